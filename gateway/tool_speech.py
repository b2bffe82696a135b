"""A text that may call tools, as /v1/chat/completions tells it: what is said, and calls by their numbers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from gateway.tool_parser import Argued, Called, Said, ToolEvent, ToolParser
from speculation.protocol.guide_spec import GuideSpec


class ToolSpeech:
    """``parser``: None for a text that stays text. ``several``: else only its first call is told. ``held``: to calls,
    or to JSON in their place; what else is there is a part of a call that was cut off."""

    def __init__(self, parser: ToolParser | None, *, several: bool, held: GuideSpec | None = None) -> None:
        self._parser = parser
        self._or_json = held is not None and held.answer is not None
        self._calls_only = held is not None and held.kind.calls_tools and not self._or_json
        self._begun = False  # to say something
        self._most = None if several else 1
        self._calls = 0

    @property
    def called(self) -> bool:
        """Whether a tool was called so far."""
        return self._calls > 0

    def delta(self, text: str, *, last: bool = False) -> dict[str, Any]:
        """What there is to tell after more of the text: nothing, {content}, {tool_calls} or both."""
        if self._parser is None:
            return {"content": text} if text else {}
        return self._told(self._parser.feed(text) + (self._parser.finish() if last else []))

    def message(self, text: str) -> dict[str, Any]:
        """Of the whole text: {content}, null without any, and {tool_calls} if there are calls."""
        told = self.delta(text, last=True)
        calls = [{name: call[name] for name in ("id", "type", "function")} for call in told.get("tool_calls", ())]
        nothing = None if calls or self._calls_only else ""
        return {"content": told.get("content", nothing), **({"tool_calls": calls} if calls else {})}

    def _told(self, events: Sequence[ToolEvent]) -> dict[str, Any]:
        said = "".join(event.text for event in events if isinstance(event, Said))
        calls: dict[int, dict[str, Any]] = {}
        for event in events:
            match event:
                case Called():
                    self._calls += 1
                    call = {"id": f"call_{secrets.token_hex(12)}", "type": "function"}
                    calls[self._calls] = {**call, "function": {"name": event.name, "arguments": ""}}
                case Argued():
                    begun = calls.setdefault(self._calls, {"function": {"arguments": ""}})
                    begun["function"]["arguments"] += event.text
                case Said():
                    pass
        if self._or_json and (self.called or (not self._begun and said.startswith("<"))):  # as no JSON begins
            self._calls_only = True
        self._begun = self._begun or bool(said)
        if self._calls_only:
            said = ""
        told = [{"index": number - 1, **call} for number, call in calls.items() if number <= (self._most or number)]
        return {**({"content": said} if said else {}), **({"tool_calls": told} if told else {})}
