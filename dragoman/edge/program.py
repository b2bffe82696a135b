"""The program that a unit starts: an installed `dragoman`, with the interpreter and packages behind it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import dragoman
from dragoman.edge.layout import Layout
from dragoman.edge.sight import Sight
from dragoman.edge.walk import walk

_REMEDY: Final = "install Dragoman into a virtual environment in /opt/dragoman, with a Python of the system's"


def program_of(given: Path | None, layout: Layout, sight: Sight) -> Path:
    """``given``: of the machine at the layout's root; None: the one that runs now.

    Raises InputError for one that the unit could not start.
    """
    if given is not None:
        sight.need("program", given, root=layout.root, remedy=_REMEDY)
        return walk("program", given, layout.root).end if ".." in given.parts else given
    script = Path(sys.executable).with_name("dragoman")
    # The environment, the interpreter that it was made of, and our package, which may be a checkout.
    for path in (Path(sys.prefix), Path(sys.base_prefix).resolve(), Path(dragoman.__file__).resolve().parents[1]):
        sight.need("program", path, remedy=_REMEDY)
    sight.need("program", script, remedy=_REMEDY)
    return script
