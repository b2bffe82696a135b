"""What an HTTP endpoint answers, or fails with, as one of our errors."""

from __future__ import annotations

import json
import ssl
from typing import Any

import httpx

from speculation.errors import (
    AccessError,
    ConnectionFailedError,
    DragomanError,
    InputError,
    LimitExceededError,
    SessionError,
    UnknownModelError,
    WrongServiceError,
)

#: Characters of a body that is none of OpenAI's, as they are shown.
_SHOWN = 120


def error_of_status(status: int, body: bytes, url: str) -> DragomanError:
    """Of an answer that is no success."""
    told = _error_in(body)
    if told is None:
        shown = " ".join(body.decode(errors="replace").split())[:_SHOWN]
        words = f"{url} answers {status}" + (f": {shown}" if shown else "")
    else:
        words = f"{url} answers {status}: {told.get('message', told)}"
    match status:
        case 401 | 403:
            return AccessError(words, remedy="name the variable that has the key: --api-key-env NAME")
        case 404 if told is not None and (told.get("code") == "model_not_found" or "model" in str(told).lower()):
            return UnknownModelError(words, remedy="give --model as the endpoint lists it at /v1/models")
        case 404 | 405 | 501:
            return WrongServiceError(words, remedy="give --base-url and --endpoint of an OpenAI API")
        case 429:
            return LimitExceededError(words, remedy="lower --max-concurrency or --request-rate")
        case 503:
            return ConnectionFailedError(words, remedy="try again once it serves")
        case _ if 400 <= status < 500:
            return InputError.relayed(words)
    return SessionError(words, remedy="see the endpoint's log")


def error_of_event(event: dict[str, Any], url: str) -> DragomanError:
    """Of an event in mid-stream that says the text failed."""
    told = event["error"]
    words = told.get("message", told) if isinstance(told, dict) else told
    return SessionError(f"{url} broke the text off: {words}", remedy="see the endpoint's log")


def error_of_transport(error: httpx.HTTPError, url: str) -> DragomanError:
    """Of a request that got no answer, or not all of it."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                remedy = "give --tls-ca, the authority that signed its certificate; http:// if it speaks no TLS"
                return AccessError(f"no TLS with {url}: {error}", remedy=remedy)
            cause = cause.__cause__ or cause.__context__
        return ConnectionFailedError(f"nobody answers at {url}: {error}", remedy="start it, or give another --base-url")
    if isinstance(error, httpx.TimeoutException):
        return SessionError(f"{url} was silent for too long", remedy="see the endpoint's log")
    if isinstance(error, httpx.RemoteProtocolError):
        remedy = "see the endpoint's log; a gRPC address is given with --verifier or --coordinator"
        return WrongServiceError(f"{url} breaks off or speaks no HTTP: {error}", remedy=remedy)
    return SessionError(f"the connection to {url} broke: {error or type(error).__name__}", remedy="is it still there?")


def _error_in(body: bytes) -> dict[str, Any] | None:
    """OpenAI's object, or what comes close to it."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    told = found.get("error", found if "message" in found else found.get("detail"))
    return told if isinstance(told, dict) else None if told is None else {"message": told}
