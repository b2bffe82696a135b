"""What both ends of the wire must agree on: the protocol's version and what a message may hold."""

from __future__ import annotations

from dataclasses import dataclass

#: Raised when a change is made that an older peer would misunderstand.
PROTOCOL_VERSION = 1

#: A message holds at most a prompt; spans and verdicts are some kilobytes at most.
MAX_MESSAGE_BYTES = 4 << 20
#: Of a vocabulary's table in one message.
CHUNK_BYTES = 256 << 10

#: That somebody may ask about at once: as many as a long context has.
MAX_TOKEN_IDS = 1 << 17


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one drafter may send. ``span_bytes`` and ``pool_bytes`` are of text, ``pool_bytes`` a session's.

    The rest is what a client may send: its prompt or messages, its own draft, its stop strings in all, and the text
    that it received before. Together they fit into a message; and so does an offer to a drafter, prompt and text.
    ``token_ids``: that it asks about.
    """

    span_bytes: int = 1024
    pool_bytes: int = 4096
    malformed_messages: int = 100
    span_drawn_tokens: int = 8
    prompt_bytes: int = MAX_MESSAGE_BYTES // 2
    prediction_bytes: int = MAX_MESSAGE_BYTES // 4
    received_bytes: int = MAX_MESSAGE_BYTES // 8
    stop_bytes: int = MAX_MESSAGE_BYTES // 64
    token_ids: int = MAX_TOKEN_IDS
