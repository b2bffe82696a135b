"""How texts go to the client: in one body, or event by event as they grow."""

from __future__ import annotations

import codecs
import logging
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.choices import ChoiceEnded, ChoiceEvent, ChoiceGrew, ChoiceStarted
from gateway.connection import HOLDER, while_connected
from gateway.http_errors import http_error_of
from gateway.json_bytes import json_bytes
from gateway.order import Order
from gateway.replies import Replies
from gateway.texts import Texts
from gateway.told_chunk import told_chunk
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk

log = logging.getLogger(__name__)


class Answer(Response):
    """Written while it is sent, for as long as the client is there.

    What a text fails with is raised as long as nothing was sent.
    """

    def __init__(self, texts: Texts, order: Order, replies: Replies) -> None:
        super().__init__()
        self._texts = texts
        self._order = order
        self._replies = replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        await while_connected(receive, self._texts.stopping, self._answer(scope, receive, send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class WholeAnswer(Answer):
    """One JSON body at the end."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        completions: dict[int, Completion] = {}
        async with self._texts.written(self._order, scope.get(HOLDER)) as events:
            async for event in events:
                if isinstance(event, ChoiceEnded):
                    completions[event.index] = event.completion
        body = self._replies.whole([completions[index] for index in range(len(completions))])
        await Response(json_bytes(body), media_type="application/json")(scope, receive, send)


class StreamedAnswer(Answer):
    """Server-sent events, from when a verifier has taken the first text on.

    A choice is opened with its first text, so that clients see when that came, and in the order of their indices:
    openai's helper appends choices to a list as it meets them. Each may be written by another verifier.
    """

    def __init__(self, texts: Texts, order: Order, replies: Replies) -> None:
        super().__init__(texts, order, replies)
        self._begun = False
        self._opened = 0  # choices, the first of them
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in order.requests]
        self._completions: dict[int, Completion] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        try:
            await super().__call__(scope, receive, send)
        except Exception as error:
            if not self._begun:
                raise
            log.warning("the stream %s breaks off: %s", self._replies.id, error)
            self._texts.metrics.broken()
            await self._send(send, self._replies.broken(http_error_of(error)))
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._texts.written(self._order, scope.get(HOLDER)) as events:
            async for event in events:
                await self._begin(send)
                for body in self._bodies(event):
                    await self._send(send, body)
        for body in self._replies.closing([self._completions[index] for index in range(len(self._completions))]):
            await self._send(send, body)
        await send({"type": "http.response.body", "body": self._replies.end})

    def _bodies(self, event: ChoiceEvent) -> list[dict[str, Any]]:
        """What a client is told of an event: whole characters, whatever the bytes of a chunk."""
        index = event.index
        match event:
            case ChoiceGrew():
                grown = self._growth(index, event.chunk)
                return [*self._open(index), *grown] if grown else []
            case ChoiceEnded():
                self._completions[index] = event.completion
                rest = self._decoders[index].decode(b"", final=True)
                return [*self._open(index), *self._replies.ending(index, rest, event.completion)]
            case ChoiceStarted():
                self._replies.started(index, event.tool_format)
                return self._open(index) if self._replies.opens_at_once else []

    def _open(self, index: int) -> list[dict[str, Any]]:
        """This choice and those before it, as far as they are not."""
        opening = range(self._opened, index + 1)
        self._opened = max(self._opened, index + 1)
        return [body for each in opening for body in self._replies.opening(each)]

    def _growth(self, index: int, chunk: Chunk) -> list[dict[str, Any]]:
        """Nothing if there is nothing to say."""
        decoder, logprobs = self._decoders[index], chunk.logprobs
        if not self._order.include_speculation:
            text = decoder.decode(chunk.data)
            if not (text or logprobs):
                return []
            body = self._replies.growth(index, text, logprobs)
            return [body] if self._replies.is_news(body) else []
        runs = [(decoder.decode(run.text), run.source) for run in chunk.runs]
        body = self._replies.growth(index, "".join(text for text, _ in runs), logprobs)
        return [body | {"speculation": told_chunk(index, chunk, runs)}]

    async def _begin(self, send: Send) -> None:
        """The head of the answer, once."""
        if self._begun:
            return
        self._begun = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send(self, send: Send, body: dict[str, Any]) -> None:
        """One event."""
        await self._begin(send)
        await send({"type": "http.response.body", "body": self._replies.event(body), "more_body": True})


def answer_to(texts: Texts, order: Order, replies: Replies) -> Answer:
    """As the request wants it."""
    return (StreamedAnswer if order.stream else WholeAnswer)(texts, order, replies)
