"""Files that are written as a whole or not at all, and what is there instead."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dragoman.edge.layout import Layout
from speculation.errors import DragomanError, InputError

PUBLIC: Final = 0o644
PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class File:
    """``path``: of the machine. ``mode`` PRIVATE: a secret, which is shown nowhere. ``replaces``: whether it takes the
    place of one of other content without being told to, as a renewed certificate does."""

    path: Path
    content: bytes
    mode: int = PUBLIC
    replaces: bool = False


def check_writable(layout: Layout) -> None:
    """Raises DragomanError if this process may not write where the layout's files go, InputError
    if one of the places is outside of its root."""
    for path in (layout.at_boot, *layout.data):
        layout.entry(path)
    for path in (layout.unit_file, layout.folder):
        folder = layout.below(path).parent
        while not folder.exists():
            folder = folder.parent
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise _unwritable(folder, "its file system is read-only")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _unwritable(folder, "this user may not write there")


def check_replaced(layout: Layout, files: Sequence[File]) -> None:
    """Raises InputError if one of another content is there that a person may have written."""
    for file in files:
        if not file.replaces and _current(layout.below(file.path)) not in (None, file.content):
            remedy = "--force replaces it, --dry-run shows the new one; settings may be changed in settings.env"
            raise InputError("name", layout.name, f"{file.path} is there already, and differs", remedy=remedy)


def write(layout: Layout, file: File) -> bool:
    """Whether anything changed. Raises DragomanError."""
    path = layout.below(file.path)
    try:
        if _current(path) == file.content and path.stat().st_mode & 0o777 == file.mode:
            return False
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode), "wb") as opened:
                os.fchmod(opened.fileno(), file.mode)  # whatever the umask
                opened.write(file.content)
                opened.flush()
                os.fsync(opened.fileno())  # boards lose their power
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    return True


def link(layout: Layout, path: Path, target: Path) -> bool:
    """Whether anything changed. Raises DragomanError."""
    here = layout.entry(path)
    try:
        if here.is_symlink():
            return False
        here.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        here.symlink_to(target)
    except OSError as error:
        raise _unwritable(here, error.strerror or str(error)) from error
    return True


def remove(path: Path) -> bool:
    """A file, a link, or a folder with nothing in it; whether it was there. Raises DragomanError."""
    try:
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
                return True
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    return True


def _current(path: Path) -> bytes | None:
    """None: there is none, or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def _unwritable(path: Path, problem: str) -> DragomanError:
    remedy = "run it as root (sudo), or let --root FOLDER or --dry-run make the files for another place"
    return DragomanError(f"{path} cannot be written to: {problem}", remedy=remedy)
