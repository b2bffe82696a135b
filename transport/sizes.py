"""Amounts of memory as people write them: 8GiB, 512MiB, 20GB."""

from __future__ import annotations

import re

from speculation.errors import InputError

_UNITS = {"B": 1} | {
    f"{prefix}{binary}B": base**power
    for power, prefix in enumerate("KMGT", 1)
    for binary, base in (("i", 1024), ("", 1000))
}
_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*((?:[KMGT]i?)?B)\s*")


def parse_size(field: str, text: str) -> int:
    """Bytes. Raises InputError naming ``field`` for what is no amount of 1 byte or more with its unit."""
    found = _FORM.fullmatch(text)
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        raise InputError(field, text, "is no amount of memory", remedy="give a number with a unit: 8GiB, 512MiB")
    return size
