"""Texts that are text."""

from __future__ import annotations

from speculation.errors import InputError


def check_text(field: str, text: str) -> None:
    """Raises InputError for characters that are none, as Python makes of input that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(field, text, f"is not UTF-8 at character {error.start}", remedy="give UTF-8") from None
