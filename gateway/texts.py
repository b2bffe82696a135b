"""Texts for requests: admitted, written, counted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncGenerator, Sequence

from gateway import translation
from gateway.admission import Admission
from gateway.backend import Backend
from gateway.choices import ChoiceEvent, written
from gateway.fields import UnknownFields, check_best_of, check_refused
from gateway.metrics import GatewayMetrics, RequestMeter
from gateway.models import ModelDirectory
from gateway.order import Order
from gateway.request_ids import audit_request
from gateway.requests import Body, ChatBody, CompletionBody, TextBody
from gateway.response_requests import ResponsesBody
from gateway.settings import GatewaySettings
from gateway.shares import Shares
from gateway.tools import tool_use_of
from gateway.traces import TextsTrace
from speculation.errors import DragomanError, InputError, UnsupportedFieldError
from speculation.protocol.messages import Prompt
from speculation.protocol.status import ServedModel
from speculation.protocol.tokenizing import TokenPiece, named_text_of, text_of
from transport.identity import Identity


class Texts:
    """What the routes stand on. Within an event loop."""

    def __init__(self, backend: Backend, settings: GatewaySettings) -> None:
        self.backend = backend
        self.models = ModelDirectory(backend)
        self.admission = Admission(max_concurrent=settings.max_concurrent, max_queue=settings.max_queue)
        self._shares = Shares(settings.max_texts_per_key)
        self.metrics = GatewayMetrics(running=lambda: self.admission.running, waiting=lambda: self.admission.waiting)
        #: Set when texts that run must end.
        self.stopping = asyncio.Event()
        self._max_choices = settings.max_choices
        self._special_tokens = settings.special_tokens
        self._unknown = UnknownFields()

    async def completion_order(self, body: CompletionBody) -> Order:
        """What a body of /v1/completions asks for. Raises InputError, and what ``ModelDirectory.find`` raises."""
        self._check(body)
        prompts = translation.prompts_of(body)
        n = translation.number_of_choices(body, len(prompts), most=self._max_choices)
        model = await self.models.find(body.model)
        raw = [await self._raw_prompt(model, prompt) for prompt in prompts]
        return self._order(body, model, raw, n, echoes=[each.text or "" for each in raw] if body.echo else None)

    async def chat_order(self, body: ChatBody) -> Order:
        """What a body of /v1/chat/completions asks for. Raises what ``completion_order`` raises."""
        self._check(body)
        use = tool_use_of(body)
        prompt = translation.prompt_of(body.messages, use.tools, body.chat_template_kwargs)
        n = translation.number_of_choices(body, 1, most=self._max_choices)
        order = self._order(body, await self.models.find(body.model), [prompt], n)
        return dataclasses.replace(order, tools=use)

    async def response_order(self, body: ResponsesBody) -> Order:
        """What a body of /v1/responses asks for. Raises what ``completion_order`` raises."""
        self._check(body)
        prompt = translation.prompt_of_input(body)
        if body.n not in (None, 1):
            raise UnsupportedFieldError("n", body.n, "is not supported here", remedy="use /v1/chat/completions")
        return self._order(body, await self.models.find(body.model), [prompt], 1)

    def _check(self, body: TextBody) -> None:
        extra = body.model_extra or {}
        check_refused(extra, in_responses=isinstance(body, ResponsesBody))
        check_best_of(extra.get("best_of"), 1 if body.n is None else body.n)
        self.note_unknown(body)
        if body.stream_options is not None and not body.stream:
            raise InputError("stream_options", None, "comes without stream", remedy="add stream: true, or leave it out")

    def note_unknown(self, body: Body) -> None:
        """Log fields that are not known here."""
        self._unknown.note(body)

    def _order(
        self, body: TextBody, model: ServedModel, prompts: Sequence[Prompt], n: int, *, echoes: list[str] | None = None
    ) -> Order:
        seed = translation.seed_of(body.seed, secrets.randbits(64))
        firsts = [translation.request_of(body, prompt, seed=seed) for prompt in prompts]
        return Order(
            model=model,
            requests=[request for first in firsts for request in translation.choices_of(first, n)],
            choices_each=n,
            echoes=[echo for echo in echoes or [""] * len(prompts) for _ in range(n)],
            stream=bool(body.stream),
            include_usage=translation.asks(body, "include_usage"),
            include_speculation=translation.asks(body, "include_speculation"),
        )

    def raw_prompt(self, text: str) -> Prompt:
        """A text to continue, read as the settings have it."""
        return Prompt(text=text, special_tokens=self._special_tokens)

    async def _raw_prompt(self, model: ServedModel, prompt: str | list[int]) -> Prompt:
        """Raises InputError for tokens that are no text by themselves: models are prompted with text."""
        if isinstance(prompt, str):
            return self.raw_prompt(prompt)
        pieces = await self.pieces(model, prompt, field="prompt")
        special = [piece.special for piece in pieces if piece.special]
        text = _decoded(text_of(pieces), prompt)
        if not special:  # what they spell is text, whatever is read of texts
            return Prompt(text=text)
        read = [Prompt(text=text)] if text else []  # the tokenizer puts some in front of any text
        if self._special_tokens:
            read.append(self.raw_prompt(_decoded(named_text_of(pieces), prompt)))
        for raw in read:
            if list(await self.backend.tokenize(model.name, raw)) == prompt:
                return raw
        problem = f"has the special token {special[0]}, which no text stands for"
        raise InputError("prompt", prompt, problem, remedy="leave it out, or use /v1/chat/completions")

    async def pieces(self, model: ServedModel, token_ids: Sequence[int], *, field: str) -> Sequence[TokenPiece]:
        """What each token stands for. ``field``: where the body has them. Raises InputError, which names it."""
        try:
            return await self.backend.detokenize(model.name, token_ids)
        except InputError as error:
            if error.field != "token_ids":
                raise
            raise InputError.relayed(str(error).replace("token_ids", field, 1)) from error

    @contextlib.asynccontextmanager
    async def written(
        self, order: Order, holder: Identity | None = None
    ) -> AsyncGenerator[AsyncGenerator[ChoiceEvent, None], None]:
        """The events of all its texts, once there is room for them; the sessions end with the block.

        ``holder``: of the key that it came with. Raises LimitExceededError or DrainingError if it is turned away.
        """
        trace = TextsTrace(order)
        meter = RequestMeter(self.metrics, model=order.model.name, choices_each=order.choices_each)
        async with contextlib.AsyncExitStack() as held:
            try:
                held.enter_context(self._shares.of(holder, len(order.requests)))
                places = await held.enter_async_context(self.admission.places(len(order.requests)))
            except DragomanError as error:
                audit_request("refused", by=holder, model=order.model.name, reason=str(error))
                raise
            audit_request("texts", by=holder, model=order.model.name, texts=len(order.requests))
            writing = written(self.backend, order.model.name, order.requests, places, may_restart=not order.stream)
            await held.enter_async_context(contextlib.aclosing(writing))
            counted = await held.enter_async_context(contextlib.aclosing(meter.counted(writing)))
            yield await held.enter_async_context(contextlib.aclosing(trace.told(counted)))


def _decoded(text: bytes, prompt: Sequence[int]) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 as text, at byte {error.start}"
        raise InputError("prompt", prompt, problem, remedy="give whole characters, or text") from None
