"""The answer of /v1/responses: one object, or the events from which a client builds it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.http_errors import HttpError
from gateway.logprobs import told_places
from gateway.order import Order
from gateway.replies import Replies
from gateway.response_requests import ResponsesBody
from speculation.protocol.completion import Completion
from speculation.protocol.generation import FinishReason
from speculation.protocol.logprobs import TokenLogprobs


class ResponseReplies(Replies):
    """Of one request, which has one text."""

    def __init__(self, order: Order, body: ResponsesBody) -> None:
        super().__init__(order, "resp")
        self._item = f"msg-{secrets.token_hex(16)}"
        self._events = 0
        sampling = order.requests[0].sampling
        self._common: dict[str, Any] = {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()),
            "model": order.model.name,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": (body.model_extra or {}).get("metadata"),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": sampling.temperature,
            "text": body.text or {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": body.top_logprobs,
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "error": None,
        }

    def whole(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        (completion,) = completions
        cut = completion.finish_reason is FinishReason.LENGTH
        totals = self._totals(completions)
        return {
            **self._common,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._message(completion)],
            "usage": _usage(totals["usage"]),
            "speculation": totals["speculation"],
        }

    opens_at_once = True  # as OpenAI does: what there will be is said before anything is

    def opening(self, index: int) -> list[dict[str, Any]]:
        """What there will be."""
        begun = {**self._common, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
        item = {"id": self._item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event_of_text("response.content_part.added", part=_part("", ())),
        ]

    def growth(self, index: int, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> dict[str, Any]:
        """More of the text."""
        return self._event_of_text("response.output_text.delta", delta=text, logprobs=told_places(logprobs))

    def ending(self, index: int, text: str, completion: Completion) -> list[dict[str, Any]]:
        """What was left of it, and all of it once more, as OpenAI has it."""
        places = told_places(completion.logprobs)
        response = self.whole([completion])
        ended = "response.incomplete" if response["incomplete_details"] else "response.completed"
        return [
            *([self.growth(index, text)] if text else []),
            self._event_of_text("response.output_text.done", text=completion.text, logprobs=places),
            self._event_of_text("response.content_part.done", part=_part(completion.text, completion.logprobs)),
            self._event("response.output_item.done", output_index=0, item=self._message(completion)),
            self._event(ended, response=response),
        ]

    def broken(self, error: HttpError) -> dict[str, Any]:
        """As OpenAI's clients know it: they raise what stands under "error"."""
        told = error.body["error"]
        return self._event("error", code=told["code"], message=told["message"], param=told["param"]) | error.body

    def event(self, body: Mapping[str, Any]) -> bytes:
        """With its name."""
        return f"event: {body['type']}\n".encode() + super().event(body)

    def _message(self, completion: Completion) -> dict[str, Any]:
        return {
            "id": self._item,
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if completion.finish_reason is FinishReason.LENGTH else "completed",
            "content": [_part(completion.text, completion.logprobs)],
        }

    def _event_of_text(self, name: str, **fields: Any) -> dict[str, Any]:
        return self._event(name, item_id=self._item, output_index=0, content_index=0, **fields)

    def _event(self, name: str, **fields: Any) -> dict[str, Any]:
        self._events += 1
        return {"type": name, "sequence_number": self._events - 1, **fields}


def _part(text: str, logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": told_places(logprobs)}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Under this route's names. How much of the prompt was cached is the verifier's to know."""
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
