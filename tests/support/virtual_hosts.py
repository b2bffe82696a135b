"""Where the verifiers of a virtual fleet run, what came of a schedule, and what each text has to be."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from speculation.protocol.generation import GenerationRequest
from tests.support import session_drivers
from tests.support.text_engine import TextEngine
from tests.support.text_models import TARGET_VOCAB
from tests.support.virtual_links import Stream
from verifier_service.verifier import Verifier


def plain_text(request: GenerationRequest) -> bytes:
    """The bytes of ``session_drivers.plain_text``."""
    prompt_ids = TextEngine.tokenizer.prompt_ids(request.prompt)
    return TARGET_VOCAB.text(session_drivers.plain_text(request.sampling, request.max_tokens, request.rule, prompt_ids))


class LostError(Exception):
    """The verifier is gone, without a word."""


@dataclass(eq=False)
class Host:
    """Where a verifier runs, and another after it died. ``calls``: those that wait for it."""

    verifier: Verifier
    engine: TextEngine
    number: int
    up: bool = True
    streams: list[Stream] = field(default_factory=list)
    calls: list[asyncio.Task[None]] = field(default_factory=list)


@dataclass
class Course:
    """What came of a schedule. ``happened``: how often what did."""

    seconds: float = 0.0
    texts: int = 0
    left: int = 0
    different: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
