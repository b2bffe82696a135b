"""Figures that commands draw into a file: --plot."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from speculation.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot(path: Path) -> None:
    """Raises InputError, before anything is measured, for a file that nothing could be drawn into."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("plot", path, "needs matplotlib", remedy="pip install matplotlib")
    if path.suffix not in (".png", ".svg"):
        raise InputError("plot", path, "is neither .png nor .svg", remedy="name the file so")
    check_folder("plot", path)


def check_folder(field: str, path: Path) -> None:
    """Raises InputError if the file cannot be in its folder."""
    if path.is_dir():
        raise InputError(field, path, "is a folder", remedy="name a file in it")
    if not path.parent.is_dir():
        raise InputError(field, path, "cannot be written: its folder is not there", remedy="check the path")


def save_figure(figure: Figure, path: Path) -> None:
    """Raises InputError."""
    try:
        figure.savefig(path, dpi=144)
    except OSError as error:
        raise InputError("plot", path, f"cannot be written: {error.strerror}", remedy="check the path") from error
