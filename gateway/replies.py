"""The bodies that answer a request for texts: whole ones, and the chunks of a stream."""

from __future__ import annotations

import hashlib
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.http_errors import HttpError
from gateway.json_bytes import json_bytes
from gateway.logprobs import TextLogprobs, of_chat
from gateway.order import Order
from gateway.tool_parsers import tool_parser
from gateway.tool_speech import ToolSpeech
from gateway.usage import speculation_of, usage_of
from speculation.protocol.completion import Completion
from speculation.protocol.generation import FinishReason
from speculation.protocol.logprobs import TokenLogprobs
from speculation.protocol.status import ServedModel
from speculation.protocol.tools import ToolFormat


def fingerprint_of(model: ServedModel) -> str:
    """Equal where the same request gives the same text: of one model, vocabulary and dtype."""
    told = f"{model.name} {model.vocab_hash} {model.dtype}"
    return f"fp_{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}"


class Replies(ABC):
    """Of one request. What begins and ends a text may take several events."""

    def __init__(self, order: Order, prefix: str) -> None:
        self._order = order
        self.id = f"{prefix}-{secrets.token_hex(16)}"

    @abstractmethod
    def whole(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The answer to a request that is not streamed."""

    def is_news(self, body: Mapping[str, Any]) -> bool:
        """Whether an event with more of a text tells anything."""
        return True

    #: Whether a text is opened when it is taken on, or with its first words.
    opens_at_once = False

    def started(self, index: int, tool_format: ToolFormat | None) -> None:  # noqa: B027  for those that care
        """A text was taken on. ``tool_format``: how its model writes calls."""

    @abstractmethod
    def opening(self, index: int) -> list[dict[str, Any]]:
        """The first events of a text."""

    @abstractmethod
    def growth(self, index: int, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> dict[str, Any]:
        """An event with more of a text."""

    @abstractmethod
    def ending(self, index: int, text: str, completion: Completion) -> list[dict[str, Any]]:
        """The last events of a text, with what was left of it."""

    def closing(self, completions: Sequence[Completion]) -> list[dict[str, Any]]:
        """What comes after all texts."""
        return []

    def broken(self, error: HttpError) -> dict[str, Any]:
        """The event that tells of a stream that breaks off."""
        return error.body

    def event(self, body: Mapping[str, Any]) -> bytes:
        """As a server-sent event."""
        return b"data: " + json_bytes(body) + b"\n\n"

    #: After the last event.
    end = b""

    def _totals(self, completions: Sequence[Completion]) -> dict[str, Any]:
        order = self._order
        usage = usage_of(completions, choices_each=order.choices_each, predicted=order.predicted)
        return {"usage": usage, "speculation": speculation_of(completions)}


class ChoiceReplies(Replies):
    """Of the two routes whose answers are lists of choices."""

    prefix: str
    whole_object: str
    chunk_object: str
    end = b"data: [DONE]\n\n"

    def __init__(self, order: Order) -> None:
        super().__init__(order, self.prefix)
        self._common = {
            "id": self.id,
            "created": int(time.time()),
            "model": order.model.name,
            "system_fingerprint": fingerprint_of(order.model),
        }

    def whole(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        choices = [
            self._choice(index, completion)
            | {"logprobs": self._logprobs(index, completion.logprobs), **self._end(index, completion)}
            for index, completion in enumerate(completions)
        ]
        return {"object": self.whole_object, **self._common, "choices": choices, **self._totals(completions)}

    def opening(self, index: int) -> list[dict[str, Any]]:
        """What it goes on from, if that is wanted."""
        echo = self._order.echoes[index]
        return [self.growth(index, echo)] if echo else []

    def growth(self, index: int, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> dict[str, Any]:
        """A chunk with more of a text."""
        told = {"logprobs": self._logprobs(index, logprobs), "finish_reason": None}
        return self._chunk([self._piece(index, text) | told])

    def ending(self, index: int, text: str, completion: Completion) -> list[dict[str, Any]]:
        """The last chunk of a text, with what was left of it."""
        piece = self._piece(index, text, last=True)
        return [self._chunk([piece | {"logprobs": None, **self._end(index, completion)}])]

    def closing(self, completions: Sequence[Completion]) -> list[dict[str, Any]]:
        """The usage, where it was asked for."""
        return [self._chunk([]) | self._totals(completions)] if self._order.include_usage else []

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {"object": self.chunk_object, **self._common, "choices": choices}
        return chunk | {"usage": None} if self._order.include_usage else chunk

    def _logprobs(self, index: int, places: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        """Of tokens that come next; null where there are none."""
        return self._told_of(index, places) if places else None

    @abstractmethod
    def _told_of(self, index: int, places: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """As the route has it."""

    @abstractmethod
    def _choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """Of a whole answer."""

    @abstractmethod
    def _piece(self, index: int, text: str, *, last: bool = False) -> dict[str, Any]:
        """Of a chunk; ``last``: nothing follows."""

    def _end(self, index: int, completion: Completion) -> dict[str, Any]:
        """Why it ended, asked for after all of it."""
        return _end_of(completion)


class CompletionReplies(ChoiceReplies):
    """Of /v1/completions."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._places = [TextLogprobs() for _ in order.requests]

    def _told_of(self, index: int, places: Sequence[TokenLogprobs]) -> dict[str, Any]:
        return self._places[index].told(places)

    def _choice(self, index: int, completion: Completion) -> dict[str, Any]:
        return self._piece(index, self._order.echoes[index] + completion.text)

    def _piece(self, index: int, text: str, *, last: bool = False) -> dict[str, Any]:
        return {"index": index, "text": text}


class ChatReplies(ChoiceReplies):
    """Of /v1/chat/completions."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._speeches: dict[int, ToolSpeech] = {}

    def is_news(self, body: Mapping[str, Any]) -> bool:
        """Not where all of the text is held back."""
        return any(choice["delta"] or choice["logprobs"] for choice in body["choices"])

    def started(self, index: int, tool_format: ToolFormat | None) -> None:
        """Decides how what it says is read."""
        self._speech(index, tool_format)

    def opening(self, index: int) -> list[dict[str, Any]]:
        """Says who speaks."""
        delta = {"role": "assistant", "content": ""}
        return [self._chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])]

    def _speech(self, index: int, tool_format: ToolFormat | None = None) -> ToolSpeech:
        if index not in self._speeches:
            use = self._order.tools
            parser = tool_parser(tool_format or ToolFormat.TEXT, use.names) if use.tools else None
            held = self._order.requests[index].guide
            self._speeches[index] = ToolSpeech(parser, several=use.several, held=held)
        return self._speeches[index]

    def _told_of(self, index: int, places: Sequence[TokenLogprobs]) -> dict[str, Any]:
        return of_chat(places)

    def _choice(self, index: int, completion: Completion) -> dict[str, Any]:
        said = self._speech(index, completion.tool_format).message(completion.text)
        content = {"content": said.pop("content")}
        return {"index": index, "message": {"role": "assistant", **content, "refusal": None, **said}}

    def _piece(self, index: int, text: str, *, last: bool = False) -> dict[str, Any]:
        return {"index": index, "delta": self._speech(index).delta(text, last=last)}

    def _end(self, index: int, completion: Completion) -> dict[str, Any]:
        end = _end_of(completion)
        called = completion.finish_reason is FinishReason.STOP and self._speech(index).called
        return {**end, "finish_reason": "tool_calls"} if called else end


def _end_of(completion: Completion) -> dict[str, Any]:
    reason = completion.finish_reason.value if completion.finish_reason is not None else None
    return {"finish_reason": reason, "stop_reason": completion.stop_reason}
