"""Which trace a request belongs to, as it travels: W3C Trace Context (https://www.w3.org/TR/trace-context/).

It comes from whoever asks, so it is untrusted: what is malformed counts as absent, and what is longer than the
recommendation has it is not passed on. Baggage is neither read nor sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
#: Characters of a traceparent, and at most of a tracestate, which has so many members at most.
TRACEPARENT_LENGTH: Final = 55
TRACESTATE_LENGTH: Final = 512
_MEMBERS: Final = 32
# Version, trace id, span id, flags. Version ff and ids of zeros are invalid. A longer one, of a later version, is not
# known here.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_MEMBER: Final = re.compile(
    r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]", re.ASCII
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The span that caused a request: valid, or empty, which is false. ``tracestate``: of the vendors on the way."""

    traceparent: str = ""
    tracestate: str = ""

    def __bool__(self) -> bool:
        return bool(self.traceparent)

    @property
    def trace_id(self) -> int:
        """Of one that is not empty, as the following two."""
        return int(self.traceparent[3:35], 16)

    @property
    def span_id(self) -> int:
        """Of the span that caused the request."""
        return int(self.traceparent[36:52], 16)

    @property
    def flags(self) -> int:
        """The lowest bit: the caller records the trace."""
        return int(self.traceparent[53:55], 16)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of a gRPC call."""
        pairs = ((TRACEPARENT, self.traceparent), (TRACESTATE, self.tracestate))
        return tuple(pair for pair in pairs if pair[1])


#: Of a request that belongs to no trace.
NO_TRACE: Final = TraceContext()


def trace_context_of(headers: Iterable[tuple[str | bytes, str | bytes]]) -> TraceContext:
    """From HTTP headers or gRPC metadata, untrusted. Empty where there is no valid traceparent, or more than one."""
    found: dict[str, list[str]] = {TRACEPARENT: [], TRACESTATE: []}
    for name, value in headers:
        key = _text(name).lower()
        if key in found:
            found[key].append(_text(value))
    if len(found[TRACEPARENT]) != 1:
        return NO_TRACE
    return checked(found[TRACEPARENT][0], ",".join(found[TRACESTATE]))


def checked(traceparent: str, tracestate: str = "") -> TraceContext:
    """Of untrusted fields: empty if ``traceparent`` is malformed, without ``tracestate`` if that is, or is too long."""
    if len(traceparent) != TRACEPARENT_LENGTH or not _TRACEPARENT.fullmatch(traceparent):
        return NO_TRACE
    return TraceContext(traceparent, tracestate if _is_tracestate(tracestate) else "")


def _is_tracestate(text: str) -> bool:
    if len(text) > TRACESTATE_LENGTH:
        return False
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    return 0 < len(members) <= _MEMBERS and all(map(_MEMBER.fullmatch, members))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
