"""A drafted text between services that are protected so or so, and certificates that end."""

from __future__ import annotations

import datetime
from pathlib import Path

from dragoman.client import Client
from speculation.protocol.messages import Prompt
from tests.support.certificates import TestAuthority
from tests.support.service_drivers import WAITING, WARM, drafters, drafting, serving
from tests.support.text_engine import TextEngine
from transport.security import Security

PROMPT = Prompt(text="a story: ")


async def drafted_text(server: Security | None, drafter: Security | None, client: Security | None) -> bytes:
    """Of a verifier, a drafter and a client with these settings."""
    async with (
        serving(TextEngine(), plan=WAITING, adaptive=False, security=server) as (verifier, address),
        drafting(address, security=drafter),
        Client(address, security=client) as asking,
    ):
        await drafters(verifier, 1)
        completion = await asking.complete(PROMPT, sampling=WARM, max_tokens=60)
        assert completion.stats.accepted_tokens > 0, "the drafter took part"
        return completion.data


def end(authority: TestAuthority, certificate: Path) -> None:
    """Let it have ended a minute ago."""
    authority.folder.renew(certificate, -datetime.timedelta(minutes=1))
