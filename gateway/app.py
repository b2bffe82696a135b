"""The routes: thin shells that read a body, ask, and answer."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from gateway.access import Access
from gateway.answers import answer_to
from gateway.body_limit import BodyLimit
from gateway.connection import SendLimit
from gateway.fields import check_refused
from gateway.fleet import FleetView
from gateway.http_errors import UNFORESEEN, HttpError, http_error_of, of_validation, unavailable
from gateway.http_protocol import OneLength
from gateway.json_bytes import json_bytes
from gateway.metrics import CountRequests
from gateway.replies import ChatReplies, CompletionReplies
from gateway.request_ids import RequestIds
from gateway.requests import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody
from gateway.response_replies import ResponseReplies
from gateway.response_requests import ResponsesBody
from gateway.settings import GatewaySettings
from gateway.static_page import add_page
from gateway.strict_json import StrictJsonRoute
from gateway.texts import Texts
from gateway.tools import tools_of
from gateway.traces import TraceRequests
from gateway.translation import prompt_of, template_kwargs_of
from speculation.errors import DragomanError, InputError
from speculation.protocol.messages import Prompt
from speculation.protocol.status import ServedModel
from speculation.protocol.tokenizing import TokenPiece, named_text_of
from transport.security import Security
from transport.version import VERSION

_OWNER: Final = "dragoman"
_METHODS: Final = ("GET", "POST")
#: To pages from elsewhere, which browsers show no others.
_TOLD_HEADERS: Final = ("retry-after", "x-request-id")


def application(texts: Texts, settings: GatewaySettings, security: Security) -> ASGIApp:
    """The whole application behind the server. Raises InputError for files of ``security`` that cannot be used."""
    app: ASGIApp = _routes(texts, page=settings.page)
    app = BodyLimit(app, most=settings.max_body, seconds=settings.body_timeout)
    app = TraceRequests(app)  # within the access: who may not ask begins no span
    app = Access(app, security=security)
    if settings.allowed_origins:  # outside the access: a browser asks first whether it may, and shows no key for that
        app = CORSMiddleware(
            app, settings.allowed_origins, _METHODS, allow_headers=["*"], expose_headers=_TOLD_HEADERS, max_age=600
        )
    app = RequestIds(OneLength(app))
    app = SendLimit(app, seconds=settings.send_timeout)
    return CountRequests(app, metrics=texts.metrics)


def _routes(texts: Texts, *, page: bool) -> FastAPI:
    # No pages that load scripts from elsewhere.
    app = FastAPI(
        title="Dragoman",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Where a program has set OpenTelemetry up, it would tell it the words of errors, which may quote a request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.router.route_class = StrictJsonRoute
    _add_errors(app)
    _add_texts(app, texts)
    _add_models(app, texts)
    _add_tokens(app, texts)
    _add_fleet(app, FleetView(texts.backend))
    _add_operations(app, texts)
    if page:
        add_page(app)
    return app


def _json(body: object, status: int = 200) -> Response:
    return Response(json_bytes(body), status, media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    def handle(kind: type[Exception], told: Callable[[Any], HttpError]) -> None:
        async def handler(request: Request, error: Exception) -> Response:
            headers = getattr(error, "headers", None)  # of a wrong method: those that are right
            return told(error).response(headers)

        app.add_exception_handler(kind, handler)

    handle(DragomanError, http_error_of)
    handle(RequestValidationError, lambda error: of_validation(error.errors()))
    handle(HTTPException, lambda error: HttpError(error.status_code, str(error.detail)))
    handle(Exception, lambda error: UNFORESEEN)  # and it is raised on, to the log


def _add_texts(app: FastAPI, texts: Texts) -> None:
    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionBody) -> Response:
        """Write a text on."""
        order = await texts.completion_order(body)
        return answer_to(texts, order, CompletionReplies(order))

    @app.post("/v1/chat/completions", response_model=None)
    async def chat_completions(body: ChatBody) -> Response:
        """Answer in a conversation."""
        order = await texts.chat_order(body)
        return answer_to(texts, order, ChatReplies(order))

    @app.post("/v1/responses", response_model=None)
    async def responses(body: ResponsesBody) -> Response:
        """The same, as OpenAI's newer route has it."""
        order = await texts.response_order(body)
        return answer_to(texts, order, ResponseReplies(order, body))


def _add_models(app: FastAPI, texts: Texts) -> None:
    began = int(time.time())

    def told(model: ServedModel) -> dict[str, Any]:
        common = {"id": model.name, "object": "model", "created": began, "owned_by": _OWNER}
        # As vLLM has them, whose load generator asks for the root.
        more: dict[str, Any] = {
            "root": model.name,
            "parent": None,
            "permission": [],
            "max_model_len": model.context_length,
        }
        return common | more

    @app.get("/v1/models", response_model=None)
    async def models() -> Response:
        """The models that are served now."""
        return _json({"object": "list", "data": [told(model) for model in await texts.models.served()]})

    # Names may be paths.
    @app.get("/v1/models/{name:path}", response_model=None)
    async def model(name: str) -> Response:
        """One of them."""
        return _json(told(await texts.models.find(name)))


def _add_tokens(app: FastAPI, texts: Texts) -> None:
    @app.post("/tokenize", response_model=None)
    async def tokenize(body: TokenizeBody) -> Response:
        """A prompt in the model's tokens."""
        texts.note_unknown(body)
        check_refused(body.model_extra or {})
        if (body.prompt is None) == (body.messages is None):
            raise InputError("prompt", body.prompt, "stands beside messages, or neither is there", remedy="give one")
        prompt = _prompt_to_count(body, texts)
        model = await texts.models.find(body.model)
        ids = await texts.backend.tokenize(model.name, prompt)
        pieces = None
        if body.return_token_strs or body.add_special_tokens is False:
            pieces = await texts.pieces(model, ids, field="prompt")
        if pieces is not None and body.add_special_tokens is False and body.prompt is not None:
            literal = await _read_literally(texts, model, body.prompt) if prompt.special_tokens else pieces
            front, back = _added(literal, body.prompt)
            ids, pieces = ids[front : len(ids) - back], pieces[front : len(pieces) - back]
        told = {"count": len(ids), "max_model_len": model.context_length, "tokens": ids}

        def answer() -> Response:
            shown = [piece.shown for piece in pieces] if pieces is not None and body.return_token_strs else None
            return _json({**told, "token_strs": shown})

        return await asyncio.to_thread(answer)  # a million ids take long to write

    @app.post("/detokenize", response_model=None)
    async def detokenize(body: DetokenizeBody) -> Response:
        """The text that tokens stand for; special ones by their names."""
        texts.note_unknown(body)
        model = await texts.models.find(body.model)
        pieces = await texts.pieces(model, body.tokens, field="tokens")

        def answer() -> Response:
            return _json({"prompt": named_text_of(pieces).decode(errors="replace")})

        return await asyncio.to_thread(answer)


async def _read_literally(texts: Texts, model: ServedModel, text: str) -> Sequence[TokenPiece]:
    ids = await texts.backend.tokenize(model.name, Prompt(text=text))
    return await texts.pieces(model, ids, field="prompt")


def _added(literal: Sequence[TokenPiece], text: str) -> tuple[int, int]:
    """How many tokens the tokenizer puts before the text, and behind it: where names are text, all others are text."""
    special = [piece.special for piece in literal]
    front, back = (next((at for at, name in enumerate(names) if not name), 0) for names in (special, special[::-1]))
    return (0 if front and text.startswith(special[0]) else front), back


def _prompt_to_count(body: TokenizeBody, texts: Texts) -> Prompt:
    if body.messages is not None:
        return prompt_of(body.messages, tools_of(body.tools), body.chat_template_kwargs)
    raw, told = texts.raw_prompt(body.prompt or ""), template_kwargs_of(body.chat_template_kwargs)
    return dataclasses.replace(raw, tools=tools_of(body.tools), template_kwargs=told)


def _add_fleet(app: FastAPI, fleet: FleetView) -> None:
    @app.get("/dragoman/fleet", response_model=None)
    async def who_drafts_for_whom() -> Response:
        """The fleet as it stands."""
        return _json(await fleet.body())


def _add_operations(app: FastAPI, texts: Texts) -> None:
    @app.get("/health", response_model=None)
    async def health() -> Response:
        """Whether a text would find a verifier."""
        try:
            await texts.models.served()
        except DragomanError as error:  # not logged: it is asked every few seconds
            return unavailable(error).response()
        return _json({"status": "ok"})

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(texts.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/version", response_model=None)
    async def version() -> Response:
        """Of Dragoman."""
        return _json({"version": VERSION})
