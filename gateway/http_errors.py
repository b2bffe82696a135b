"""Our errors as OpenAI's clients expect them: a status, and {"error": {"message", "type", "param", "code"}}.

What a client did wrong he is told in full. What went wrong behind the gateway is told in general words, and logged with
its addresses and reasons.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from gateway.json_bytes import json_bytes
from speculation.errors import (
    AccessError,
    ConnectionFailedError,
    DragomanError,
    DrainingError,
    InputError,
    LimitExceededError,
    LoadingError,
    QuotaExceededError,
    UnknownModelError,
    UnsupportedFieldError,
)
from speculation.protocol.session_request import CONTEXT_OVERFLOW, EARLIER_OVERFLOW

log = logging.getLogger(__name__)

#: Seconds after which a client that was turned away may ask again.
RETRY_AFTER: Final = 1


@dataclass(frozen=True, slots=True)
class HttpError:
    """One answer to a request that failed. ``param``: the field that is to blame; ``code``: for programs."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None

    @property
    def kind(self) -> str:
        """The "type" of the body."""
        match self.status:
            case 401:
                return "authentication_error"
            case 403:
                return "permission_error"
            case 429:
                return "rate_limit_error"
            case status if status >= 500:
                return "server_error"
        return "invalid_request_error"

    @property
    def body(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The whole answer; ``headers``: further ones."""
        added = dict(headers or {})
        if self.status in (429, 503):
            added["retry-after"] = str(RETRY_AFTER)
        if self.status == 401:
            added["www-authenticate"] = "Bearer"
        return Response(json_bytes(self.body), self.status, headers=added, media_type="application/json")


#: What a client is told of a mistake of the gateway's own.
UNFORESEEN: Final = HttpError(500, "something went wrong here; the log of the gateway says what", code="internal_error")


def http_error_of(error: Exception) -> HttpError:
    """What a client is told of an error; logged if it is not his own."""
    if isinstance(error, InputError):
        return _of_input(error)
    if isinstance(error, UnknownModelError):
        return HttpError(404, str(error), code="model_not_found", param="model")
    if isinstance(error, QuotaExceededError):
        log.info("refused: %s", error)
        return HttpError(429, str(error), code="rate_limit_exceeded")
    if isinstance(error, LimitExceededError):
        log.info("refused: %s", error)
        return HttpError(429, "all places are taken; try again later", code="overloaded")
    if not isinstance(error, DragomanError):
        log.error("unforeseen", exc_info=error)
        return UNFORESEEN
    log.warning("a request failed: %s", error)
    if isinstance(error, ConnectionFailedError | DrainingError):
        return unavailable(error)
    if isinstance(error, AccessError):
        return HttpError(502, "the gateway is not let in by its fleet", code="fleet_error")
    return HttpError(502, "the fleet could not finish the text", code="fleet_error")


def unavailable(error: DragomanError) -> HttpError:
    """Nobody can write texts now, which will pass: why, without addresses."""
    match error:
        case LoadingError():
            why = "the model is still being loaded"
        case DrainingError():
            why = "this server stops"
        case _:
            why = "no verifier is there"
    return HttpError(503, f"{why}; try again later", code="unavailable")


def _of_input(error: InputError) -> HttpError:
    param = error.field.replace("-", "_")
    if CONTEXT_OVERFLOW in error.problem or EARLIER_OVERFLOW in error.problem:
        return HttpError(400, str(error), code="context_length_exceeded", param=param)
    code = "unsupported_parameter" if isinstance(error, UnsupportedFieldError) else "invalid_value"
    return HttpError(400, str(error), code=code, param=param)


def of_validation(errors: Sequence[Mapping[str, Any]]) -> HttpError:
    """What pydantic, by way of FastAPI, found wrong with a body: the first of it."""
    first = errors[0]
    kind, place = first["type"], [part for part in first["loc"] if part != "body"]
    if kind == "json_invalid":
        problem = first.get("ctx", {}).get("error", "it cannot be parsed")
        return HttpError(400, f"the body is not JSON: {problem}", code="invalid_json")
    if not place:
        return HttpError(400, "the body is no JSON object (send it as application/json)", code="invalid_json")
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    problem = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if kind == "missing":
        return HttpError(400, f"{field}: is missing", code="missing_field", param=field)
    return HttpError(400, str(InputError(field, first["input"], problem)), code="invalid_type", param=field)
