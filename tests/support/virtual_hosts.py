"""Where the verifiers of a virtual fleet run, what came of a schedule, and what each text has to be."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from speculation.protocol.generation import GenerationRequest
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from tests.support.text_engine import TextEngine
from tests.support.text_models import TARGET_VOCAB, TextModel
from tests.support.virtual_links import Stream
from verifier_service.verifier import Verifier

#: Made once: what it computed serves all schedules.
TARGET = TextModel(TARGET_VOCAB, salt=1)
_NOISE = RaceNoise(TARGET_VOCAB)


def plain_text(request: GenerationRequest) -> bytes:
    """The reference: one token after another, no session and no draft anywhere."""
    prompt_ids = TextEngine.tokenizer.prompt_ids(request.prompt)
    stream = "race" if request.rule is Rule.RACE else "target"
    sampler = TokenSampler(request.sampling, TARGET_VOCAB, _NOISE, prompt_ids=prompt_ids, stream=stream)
    ids: list[int] = []
    while len(ids) < request.max_tokens:
        token = sampler.draw(TARGET.logits(ids))
        sampler.advance(token)
        if token in TARGET_VOCAB.end_ids:
            break
        ids.append(token)
    return TARGET_VOCAB.text(ids)


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
