"""Parts of a body that travel on as JSON."""

from __future__ import annotations

import json
from typing import Any

from speculation.errors import InputError


def json_text(field: str, value: Any) -> str:
    """Raises InputError, which names ``field``, for what nests too deeply to be written."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise InputError(field, None, f"cannot be written as JSON: {error}") from error
