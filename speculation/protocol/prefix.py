"""The head of a prompt as one number, so that equal heads can be sent the same way without showing any text."""

from __future__ import annotations

import hashlib
from typing import Final

from speculation.protocol.messages import Prompt

#: Bytes of the prompt that count. A system prompt that is longer makes all its conversations alike.
HEAD_BYTES: Final = 256


def prefix_digest(prompt: Prompt) -> int:
    """64 bits of BLAKE2b over the first ``HEAD_BYTES`` of the text, or of the messages one after the other."""
    if prompt.text is not None:
        head = prompt.text.encode()
    else:
        head = b"".join(f"{turn.role}\0{turn.content}\0".encode() for turn in prompt.messages)
    return int.from_bytes(hashlib.blake2b(head[:HEAD_BYTES], digest_size=8).digest(), "big")
