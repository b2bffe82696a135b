"""Where a path of a machine leads, links followed below the machine's root as they will be on the machine itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speculation.errors import InputError

#: As the kernel does it.
_MOST_LINKS: Final = 40


@dataclass(frozen=True, slots=True)
class Walk:
    """All of the machine, absolute, without `..`. ``end``: without links. ``names``: those that the path has on the
    way, one more with each link. ``visited``: folders on the way and the end, none of them a link."""

    end: Path
    names: tuple[Path, ...]
    visited: tuple[Path, ...]


def walk(field: str, path: Path, root: Path) -> Walk:
    """Nothing need be there. Raises InputError for links that go round in a circle; ``field``: whose ``path`` is."""
    names, visited = [_normal(path)], []
    left, at, links = list(reversed(path.parts[1:])), Path("/"), 0
    while left:
        part = left.pop()
        if part == "..":
            at = at.parent
            continue
        here = root / (at / part).relative_to("/")
        if not here.is_symlink():
            at = at / part
            visited.append(at)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise InputError(field, str(path), "is a link that leads to itself", remedy="check the path")
        target = here.readlink()
        names.append(_normal(at / target / Path(*reversed(left))))
        at = Path("/") if target.is_absolute() else at
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return Walk(at, tuple(dict.fromkeys((*names, at))), tuple(dict.fromkeys((*visited, at))))


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))
