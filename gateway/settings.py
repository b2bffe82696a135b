"""The settings of a gateway: one model for the command line and for programs."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from transport.settings import Duration, Settings

_ORIGIN: Final = re.compile(r"(https?)://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
#: Which browsers leave out.
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def _origin(text: str) -> str:
    """As browsers send them. Raises ValueError."""
    if text == "*":
        return text
    found = _ORIGIN.fullmatch(text)
    if found is None or int(found[2] or 1) > 65535:
        raise ValueError("is no origin of a web page: write https://chat.example or http://localhost:3000, or *")
    if found[2] == _DEFAULT_PORTS[found[1]]:
        raise ValueError(f"has the port that browsers leave out: write {text.removesuffix(':' + found[2])}")
    return text


class GatewaySettings(Settings):
    """Times are in seconds."""

    max_concurrent: int = Field(default=64, ge=1, le=100_000, description="Texts that are written at once")
    max_queue: int = Field(
        default=256, ge=0, le=1_000_000, description="Requests that wait for their turn; further ones are refused (429)"
    )
    max_texts_per_key: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Texts of one key that are written or wait; further ones are refused (429); 0: no bound",
    )
    max_choices: int = Field(
        default=128, ge=1, le=10_000, description="Texts that one request may ask for: prompts times n"
    )
    max_body: int = Field(
        default=4 << 20, ge=1024, le=1 << 30, description="Bytes of a request's body; longer ones are refused (413)"
    )
    special_tokens: bool = Field(
        default=False, description="Names of special tokens in prompts of /v1/completions are these tokens, not text"
    )
    page: bool = Field(default=True, description="Serve the page for browsers at /")
    allowed_origins: list[Annotated[str, AfterValidator(_origin)]] = Field(
        default=[], description="Web pages from elsewhere that may ask, https://chat.example say; *: all"
    )
    head_timeout: Duration = Field(
        default=10.0, gt=0, description="A request's head must be there in this time: 40ms, 1.5s, 5m"
    )
    body_timeout: Duration = Field(
        default=60.0, gt=0, description="A request's body must be there in this time: 40ms, 1.5s, 5m"
    )
    keep_alive: Duration = Field(
        default=5.0, gt=0, description="A connection without a request is closed after this time: 40ms, 1.5s, 5m"
    )
    send_timeout: Duration = Field(
        default=60.0, gt=0, description="A client that takes nothing for so long is cut off: 40ms, 1.5s, 5m"
    )
    grace: Duration = Field(default=30.0, description="Texts that run at a stop may go on for so long: 40ms, 1.5s, 5m")
