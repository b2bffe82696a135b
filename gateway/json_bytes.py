"""JSON as it goes over the wire."""

from __future__ import annotations

import json
from typing import Final

#: What some clients take for the end of a line, as Python's ``str.splitlines`` does, and so of an event of a stream.
_LINE_ENDS: Final = {ord(sign): f"\\u{ord(sign):04x}" for sign in "\x85\u2028\u2029"}


def json_bytes(value: object) -> bytes:
    """UTF-8, in one line whoever reads it. A lone surrogate, which clients may send in what an error quotes, goes back
    as the escape that it came as."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii():
        text = text.translate(_LINE_ENDS)
    return text.encode("utf-8", "backslashreplace")
