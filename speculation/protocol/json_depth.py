"""How deep JSON may nest: less than any interpreter's own limits, which differ from one Python to the next."""

from __future__ import annotations

from typing import Any

from speculation.errors import InputError


def check_depth(field: str, value: Any, limit: int) -> None:
    """Raises InputError, which names ``field``, for more than ``limit`` objects and lists within one another."""
    if _is_deeper(value, limit):
        problem = f"has more than {limit} objects and lists within one another"
        raise InputError(field, None, problem, remedy="make it flatter")


def _is_deeper(value: Any, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is not None and (left == 0 or any(_is_deeper(each, left - 1) for each in inner))
