"""JSON as it goes over the wire."""

from __future__ import annotations

import json


def json_bytes(value: object) -> bytes:
    """UTF-8. A lone surrogate, which clients may send in what an error quotes, goes back as the escape that it came
    as."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
