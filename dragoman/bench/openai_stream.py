"""An answer of OpenAI's API as its events come: what of it is text, and when."""

from __future__ import annotations

import json
from typing import Any

from dragoman.bench.measurement import BenchRequest, Measurement, Speculation
from speculation.errors import ProtocolError, SessionError

#: Where chunks have text: of completions, of chats, and of models that think aloud (vLLM's old name and its new one).
_OF_CHOICE, _OF_DELTA = "text", ("content", "reasoning_content", "reasoning")


class OpenAIStream:
    """``take`` each event with its time, in seconds after ``started``; then ``measurement``."""

    def __init__(self, request: BenchRequest, *, started: float, url: str) -> None:
        self._request = request
        self._started = started
        self._url = url
        self._arrivals: list[float] = []
        self._texts: list[str] = []
        self._e2el = 0.0
        self._usage: dict[str, Any] | None = None
        self._speculation: Speculation | None = None
        self._finished = False

    def take(self, event: dict[str, Any], at: float) -> None:
        """One chunk. The role that opens a chat is no text, and the usage that closes a stream is no chunk of it."""
        for choice in event.get("choices") or ():
            self._e2el = at
            self._finished = self._finished or choice.get("finish_reason") is not None
            if text := _text_of(choice):
                self._texts.append(text)
                self._arrivals.append(at)
        self._usage = event.get("usage") or self._usage
        self._speculation = Speculation.from_json(event.get("speculation")) or self._speculation

    def measurement(self) -> Measurement:
        """Raises SessionError for a text without its end, ProtocolError if its tokens were not counted."""
        if not self._finished:
            raise SessionError(f"the stream of {self._url} ended in mid-text", remedy="see the endpoint's log")
        if self._usage is None:
            problem = f"{self._url} does not tell how many tokens it wrote"
            raise ProtocolError(problem, remedy="it must know stream_options.include_usage")
        return Measurement(
            self._request,
            started=self._started,
            arrivals=tuple(self._arrivals),
            e2el=self._e2el,
            prompt_tokens=int(self._usage.get("prompt_tokens") or 0),
            output_tokens=int(self._usage.get("completion_tokens") or 0),
            text="".join(self._texts),
            speculation=self._speculation,
        )


def event_of(data: bytes, url: str) -> dict[str, Any]:
    """Raises ProtocolError for what is no JSON object."""
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise ProtocolError(f"{url} sends events that are no JSON", remedy="is it an OpenAI API?")
    return event


def _text_of(choice: dict[str, Any]) -> str:
    delta = choice.get("delta") or {}
    return choice.get(_OF_CHOICE) or "".join(delta.get(name) or "" for name in _OF_DELTA)
