"""Where the files of an edge machine's drafter are. A machine may have several, told apart by their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speculation.errors import InputError
from transport.identity import Identity, Role

#: Begins every unit that is ours, and no other.
MARK: Final = "# Written by `dragoman edge install`"
_UNITS: Final = Path("/etc/systemd/system")
_SETTINGS: Final = Path("/etc/dragoman")
_WANTS: Final = "multi-user.target.wants"


@dataclass(frozen=True, slots=True)
class Layout:
    """Of the drafter with this name, or of the one without. Paths are those of the machine that it runs on; ``below``
    says where they are here. Raises InputError for a name that a file or a certificate could not have."""

    root: Path
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            Identity(Role.DRAFTER, self.name)

    @property
    def drafter(self) -> str:
        return "drafter" if self.name is None else f"drafter-{self.name}"

    @property
    def service(self) -> str:
        """Of systemd, without its ending; its folders for state and cache are called so as well."""
        return f"dragoman-{self.drafter}"

    @property
    def unit(self) -> str:
        return f"{self.service}.service"

    @property
    def unit_file(self) -> Path:
        return _UNITS / self.unit

    @property
    def at_boot(self) -> Path:
        """The link by which systemd starts it at boot."""
        return _UNITS / _WANTS / self.unit

    @property
    def settings(self) -> Path:
        """The folder of those of all drafters."""
        return _SETTINGS

    @property
    def folder(self) -> Path:
        """Of its settings, certificates, key and token."""
        return _SETTINGS / self.drafter

    @property
    def environment_file(self) -> Path:
        return self.folder / "settings.env"

    @property
    def data(self) -> list[Path]:
        """What systemd makes for it: a dynamic user's folders are in ``private``, with a link beside."""
        return [
            parent / middle / self.service
            for parent in (Path("/var/cache"), Path("/var/lib"))
            for middle in ("private", "")
        ]

    def below(self, path: Path) -> Path:
        """Where a file of the machine is to be found here. Raises InputError if a link leads out of the root: an
        image's absolute links are followed on this machine, and lead to its own files."""
        return self._within(self.entry(path))

    def entry(self, path: Path) -> Path:
        """Likewise, of what is not followed if it is a link itself, but made or removed."""
        here = self.root / path.relative_to("/")
        self._within(here.parent)
        return here

    def _within(self, here: Path) -> Path:
        real, root = Path(os.path.realpath(here)), Path(os.path.realpath(self.root))
        if not real.is_relative_to(root):
            remedy = "make the links in the image relative, or work within it (chroot)"
            raise InputError("root", str(self.root), f"is left by a link: {here} is {real}", remedy=remedy)
        return here

    @property
    def installed(self) -> bool:
        return self.below(self.unit_file).exists()


def installed_layout(root: Path, name: str | None) -> Layout:
    """The drafter of that name; without a name the only one. Raises InputError if it is not there."""
    found = list(_installed(root))
    chosen = Layout(root, name)
    if chosen.installed:
        return chosen
    if name is None and len(found) == 1:
        return found[0]
    names = ", ".join(layout.name or "the one without a name" for layout in found)
    if name is None and found:
        raise InputError("name", None, "is needed: there are several drafters here", remedy=f"give --name: {names}")
    remedy = f"installed are: {names}" if found else "`dragoman edge install` installs one"
    raise InputError("name", name, f"no drafter is installed here: there is no {chosen.unit_file}", remedy=remedy)


def _installed(root: Path) -> Iterator[Layout]:
    bare = Layout(root)
    for path in sorted(bare.below(_UNITS).glob(f"{bare.service}*.service")):
        name = path.name.removeprefix(bare.service).removesuffix(".service").removeprefix("-")
        layout = Layout(root, name or None)
        if layout.unit == path.name:
            yield layout
