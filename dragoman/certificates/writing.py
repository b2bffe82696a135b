"""Files of an authority's folder, each written as a whole."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    """Raises FileExistsError, OSError."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}") if replace else path
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # before its name, so that after a crash it is not an empty file
    if replace:
        new.replace(path)
