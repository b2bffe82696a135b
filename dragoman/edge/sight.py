"""What a hardened unit sees of its machine: not the homes of people, nor what others put into /tmp."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Final

from dragoman.edge.walk import Walk, walk
from speculation.errors import InputError

#: By ProtectHome and PrivateTmp.
HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
#: What a unit file takes as it stands, without quoting.
_PLAIN: Final = re.compile(r"/[A-Za-z0-9@+=._/~-]*")


class Sight:
    """Collects what a unit needs. ``bind``: what it would not see is bound into it, read-only, instead of refused."""

    def __init__(self, *, bind: bool) -> None:
        self._bind = bind
        self._bound: set[Path] = set()

    @property
    def bound(self) -> list[Path]:
        """Without those that are within others."""
        return sorted(path for path in self._bound if not self._bound & set(path.parents))

    def need(self, field: str, path: Path, *, root: Path = Path("/"), remedy: str) -> None:
        """A file or folder, absolute. ``root``: of the machine, a folder while an image is made.

        Raises InputError if the unit would not see it, by whatever links, or not be let in.
        """
        if not _PLAIN.fullmatch(str(path)):
            problem = "is no path that a unit can name"
            raise InputError(field, str(path), problem, remedy="use letters, digits and @ + = . _ ~ -, from / on")
        way = walk(field, path, root)
        for name in filter(_is_hidden, way.names):
            if not self._bind:
                leads = "" if name == path else f" ({path} leads there)"
                problem = f"is hidden from the service, which sees nothing of /home, /root and /tmp{leads}"
                raise InputError(field, str(name), problem, remedy=f"{remedy}; or add --bind-paths")
            if not _PLAIN.fullmatch(str(name)):
                raise InputError(field, str(name), "is no path that a unit can name", remedy=remedy)
            self._bound.add(name)
        self._check_open(field, path, way, root=root, remedy=remedy)

    def _check_open(self, field: str, path: Path, way: Walk, *, root: Path, remedy: str) -> None:
        """The service runs as a user of its own, so everybody must be let in, from what is bound on."""
        if not _below(root, way.end).exists():
            raise InputError(field, str(path), "is not there", remedy=remedy)
        for named in reversed(way.visited):
            if _is_hidden(named) and not self._bound & {named, *named.parents}:
                continue  # systemd makes that folder anew, above what is bound
            found = _below(root, named)
            needed = stat.S_IXOTH if found.is_dir() else stat.S_IROTH
            if not stat.S_IMODE(found.stat().st_mode) & needed:
                problem = f"cannot be read by the service's own user: {named} is closed to others"
                raise InputError(field, str(path), problem, remedy=f"chmod o+rX {named}")


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _is_hidden(path: Path) -> bool:
    return any(path.is_relative_to(hidden) for hidden in HIDDEN)
