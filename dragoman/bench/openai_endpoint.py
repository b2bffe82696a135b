"""Any server of OpenAI's API, over HTTP."""

from __future__ import annotations

import json
import ssl
import time
from types import TracebackType
from typing import Any, Final, Self

import httpx

from dragoman.bench.endpoint import TextSettings
from dragoman.bench.http_failures import error_of_event, error_of_status, error_of_transport
from dragoman.bench.measurement import BenchRequest, Measurement
from dragoman.bench.openai_stream import OpenAIStream, event_of
from dragoman.bench.prompts import Route
from dragoman.bench.server_sent_events import data_lines
from speculation.errors import InputError, UnknownModelError, WrongServiceError
from transport.address import Address
from transport.security import Security

#: Seconds until somebody is there, and without a word from him: a long prompt of a busy server takes its time.
_TIMEOUT: Final = httpx.Timeout(600.0, connect=10.0)
_DONE: Final = b"[DONE]"


def parse_base_url(text: str, security: Security) -> str:
    """Without a slash or /v1 at its end. Raises InputError for what is no URL, or may not be dialled in plaintext."""
    remedy = "write it as http://127.0.0.1:8000"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise InputError("base-url", text, f"is no URL: {error}", remedy=remedy) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError("base-url", text, "is no URL of HTTP", remedy=remedy)
    if url.userinfo or url.query or url.fragment:  # which are not shown: there may be a password
        raise InputError("base-url", url.host, "has more than a host and a path", remedy=remedy)
    here = Address(url.host, url.port or 80).reaches_this_machine
    if url.scheme == "http" and not (here or security.allow_plaintext):
        remedy = "give https://, or add --allow-plaintext if the network is trusted"
        raise InputError("base-url", text, "is another machine, and nothing would be encrypted", remedy=remedy)
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def tls_context(security: Security) -> ssl.SSLContext:
    """Trusts the public authorities, or --tls-ca alone, and shows --tls-cert. Raises InputError for unusable files."""
    try:
        context = ssl.create_default_context(cafile=security.tls_ca)
        if security.tls_cert is not None:
            context.load_cert_chain(security.tls_cert, security.tls_key)
    except OSError as error:
        files = security.tls_ca if security.tls_cert is None else f"{security.tls_ca}, {security.tls_cert}"
        problem = f"cannot be used: {error.strerror or error}"
        raise InputError("tls-ca", files, problem, remedy="give PEM files") from error
    return context


class OpenAIEndpoint:
    """See ``BenchEndpoint``. ``base_url``: as ``parse_base_url`` has it. ``model`` empty: the only one that is served.

    No proxy of the environment is used: it would be measured as well.
    """

    def __init__(
        self,
        base_url: str,
        route: Route,
        settings: TextSettings,
        *,
        model: str = "",
        api_key: str | None = None,
        security: Security | None = None,
    ) -> None:
        self.backend = "openai" if route is Route.COMPLETIONS else "openai-chat"
        self._base_url = base_url
        self._url = base_url + route.value
        self._route = route
        self._settings = settings
        self._model = model
        self._http = httpx.AsyncClient(
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {api_key}"} if api_key else {}),
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            verify=tls_context(security or Security()),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def describe(self) -> dict[str, Any]:
        """Raises ConnectionFailedError, AccessError, WrongServiceError, or UnknownModelError for ``model``."""
        url = f"{self._base_url}/v1/models"
        served = _models_in(await self._get(url), url)
        if not self._model:
            if len(served) > 1:
                raise InputError("model", None, "several are served", remedy=f"give --model {' or '.join(served)}")
            self._model = next(iter(served))
        if self._model not in served:
            problem = f"no model {self._model!r} is served at {self._base_url}"
            raise UnknownModelError(problem, remedy=f"there is {', '.join(served)}")
        return {"model_id": self._model, "base_url": self._base_url, "max_model_len": served[self._model]}

    async def _get(self, url: str) -> bytes:
        try:
            response = await self._http.get(url)
        except httpx.HTTPError as error:
            raise error_of_transport(error, url) from error
        if not response.is_success:
            raise error_of_status(response.status_code, response.content, url)
        return response.content

    async def ask(self, request: BenchRequest) -> Measurement:
        """Raises ConnectionFailedError, AccessError, InputError, ProtocolError or SessionError."""
        body = self._body_of(request)
        started = time.perf_counter()
        stream = OpenAIStream(request, started=started, url=self._url)
        try:
            async with self._http.stream("POST", self._url, json=body) as response:
                if not response.is_success:
                    raise error_of_status(response.status_code, await response.aread(), self._url)
                async for data in data_lines(response.aiter_bytes()):
                    at = time.perf_counter() - started
                    if data == _DONE:
                        continue  # to the end, so that the connection is used again
                    event = event_of(data, self._url)
                    if event.get("error"):
                        raise error_of_event(event, self._url)
                    stream.take(event, at)
        except httpx.HTTPError as error:
            raise error_of_transport(error, self._url) from error
        return stream.measurement()

    def _body_of(self, request: BenchRequest) -> dict[str, Any]:
        settings, prompt = self._settings, request.prompt
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._route is Route.CHAT:
            body["messages"] = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
        else:
            body["prompt"] = prompt.text
        # OpenAI's own servers refuse fields that they do not know, so these are sent only where they say something.
        if settings.ignore_end:
            body["ignore_eos"] = True
        if not request.draft:
            body["draft"] = False
        return body


def _models_in(body: bytes, url: str) -> dict[str, int | None]:
    """The context length by name. Raises WrongServiceError for what is no list of models."""
    try:
        models = {str(model["id"]): model.get("max_model_len") for model in json.loads(body)["data"]}
    except (ValueError, TypeError, KeyError, AttributeError):
        models = {}
    if not models:
        raise WrongServiceError(f"{url} lists no models", remedy="give --base-url of an OpenAI API")
    return models
