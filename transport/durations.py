"""Durations as people write them: 40ms, 1.5s, 200us, 5m, 7d."""

from __future__ import annotations

import math
import re

from speculation.errors import InputError

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FORM = re.compile(r"\s*([0-9.eE+-]+)\s*(us|ms|s|m|h|d)\s*")


def parse_duration(field: str, text: str) -> float:
    """Seconds. Raises InputError naming ``field`` for what is no finite duration with its unit."""
    found = _FORM.fullmatch(text)
    try:
        value = float(found[1]) * _UNITS[found[2]] if found else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(field, text, "is no duration", remedy="give a number of 0 or more with a unit: 40ms, 1.5s, 5m")
    return value


def show_duration(seconds: float) -> str:
    """In the unit that reads best."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
