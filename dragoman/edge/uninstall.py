"""`dragoman edge uninstall`: what install wrote is removed, and only if told to, what cannot be made again."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dragoman.edge.credentials import NAMES
from dragoman.edge.files import check_writable, remove
from dragoman.edge.layout import MARK, Layout, installed_layout
from dragoman.edge.systemd import manager_version, systemctl
from speculation.errors import DragomanError, InputError


def run_uninstall(name: str | None, *, root: Path | None, purge: bool) -> None:
    """``purge``: keys, certificates, token and the converted models as well.

    Raises InputError for a drafter that is not installed, or whose unit is not ours; DragomanError if there is no
    systemd, or the files cannot be removed.
    """
    layout = _layout(root or Path("/"), name, purge=purge)
    unit = layout.below(layout.unit_file)
    if layout.installed and not unit.read_text("utf-8", errors="replace").startswith(MARK):
        remedy = "remove it by hand, if it shall go"
        raise InputError("name", name, f"{layout.unit_file} was not written by `dragoman edge install`", remedy=remedy)
    if root is None:
        manager_version()
    check_writable(layout)
    if root is None and layout.installed:
        systemctl("disable", "--now", layout.unit)
    for path in (layout.at_boot, layout.unit_file, layout.environment_file):
        _remove(layout, path)
    if purge:
        for path in (layout.folder / each for each in NAMES):
            _remove(layout, path)
        for path in layout.data:
            _remove_tree(layout, path)
    for path in (layout.folder, layout.settings):
        if not any(layout.below(path).glob("*")):
            _remove(layout, path)
    if left := [here for path in (layout.folder, *layout.data) if (here := layout.entry(path)).is_dir()]:
        _say(f"left      {', '.join(map(str, left))}  (--purge removes keys, certificates and models)")
    if root is None:
        systemctl("daemon-reload")


def _layout(root: Path, name: str | None, *, purge: bool) -> Layout:
    """With ``purge`` also one of which only the keys or the models are left. Raises InputError."""
    bare = Layout(root, name)
    left = any(bare.entry(path).exists() for path in (bare.folder, *bare.data))
    return bare if purge and left else installed_layout(root, name)


def _remove(layout: Layout, path: Path) -> None:
    if remove(layout.entry(path)):
        _say(f"removed   {layout.entry(path)}")


def _remove_tree(layout: Layout, path: Path) -> None:
    """Raises DragomanError."""
    here = layout.entry(path)
    if here.is_symlink() or not here.is_dir():
        _remove(layout, path)
        return
    try:
        shutil.rmtree(here)
    except OSError as error:
        raise DragomanError(f"{path} cannot be removed: {error.strerror}", remedy="remove it by hand") from error
    _say(f"removed   {layout.entry(path)}")


def _say(words: str) -> None:
    Console().print(Text(words), soft_wrap=True)
