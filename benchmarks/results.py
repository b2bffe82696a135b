"""Where a benchmark's figures go, and are read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speculation.errors import InputError


def write_results(found: dict[str, Any], output: Path | None) -> None:
    """As JSON into the file, or to standard output; what JSON does not know is written as text."""
    text = json.dumps(found, default=str, indent=1)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n")


def read_results(path: Path, *, field: str, holds: str, made_by: str) -> dict[str, Any]:
    """What a benchmark wrote, which ``holds`` an entry of that name. Raises InputError, which names the ``field``."""
    remedy = f"name a file that {made_by} wrote"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(field, path, f"cannot be read: {error}", remedy=remedy) from None
    if not isinstance(found, dict) or holds not in found:
        raise InputError(field, path, f"has no {holds!r}", remedy=remedy)
    return found
