"""Guided texts over real sockets: valid, the same with drafters and without, refused where they must be, resumed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from drafter_service.model_drafter import ModelDrafter
from dragoman.client import Client
from dragoman.transcript import Transcript
from engine.paged_engine import PagedEngine
from speculation.errors import InputError, ProtocolError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import FinishReason, GenerationRequest, Started
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule, SamplingParams
from speculation.source import SourceKind
from tests.support.public_schemas import PUBLIC_SCHEMAS
from tests.support.schemas import SCHEMAS
from tests.support.service_drivers import baseline, drafters, drafting, serving, stub_to, text_of
from tests.support.text_engine import TextEngine
from tests.support.tiny_models import load_tiny
from transport.generation_codec import request_to_wire
from verifier_service.engine import Engine
from verifier_service.transformers_engine import TransformersEngine

WARM = SamplingParams(temperature=1.0, seed=3)
CALL = SCHEMAS["a call"]


@contextlib.asynccontextmanager
async def assisted(engine: Engine, drafter: Path | None = None) -> AsyncIterator[Client]:
    """A client of a verifier with a drafter."""
    model = ModelDrafter(load_tiny(drafter)) if drafter is not None else None
    async with (
        serving(engine) as (verifier, address),
        Client(address) as client,
        drafting(address, model),
    ):
        await drafters(verifier, 1)
        yield client


def accepted(completion: Completion) -> int:
    """Draft tokens that the guide forced."""
    return sum(share.accepted_tokens for share in completion.shares_of(SourceKind.GRAMMAR))


async def keep_to(schemas: Mapping[str, dict[str, Any]], client: Client, *, max_tokens: int) -> list[Completion]:
    """Texts of a model that babbles, at temperature 1, with a drafter: whatever ends is valid, all but one do, and the
    bytes are the same without."""
    ended, texts = 0, []
    for number, (name, schema) in enumerate(schemas.items()):
        guide = GuideSpec.json_schema(schema)
        rule = Rule.EXACT if number % 3 == 0 else Rule.RACE
        sampling = SamplingParams(temperature=1.0, seed=number)
        alone, drafted = [
            await client.complete("def", sampling=sampling, max_tokens=max_tokens, guide=guide, rule=rule, draft=draft)
            for draft in (False, True)
        ]
        assert drafted.data == alone.data and drafted.token_ids == alone.token_ids, name
        assert accepted(alone) == 0
        if alone.finish_reason is FinishReason.STOP:
            jsonschema.validate(json.loads(alone.text), schema)
            ended += 1
        texts.append(drafted)
    assert ended >= len(schemas) - 1 >= 30
    return texts


@pytest.mark.parametrize("kind", ["one by one", "all rows at once"])
async def test_schemas_are_kept_to_and_drafts_change_nothing(kind: str, tiny_qwen2: Path, tiny_llama: Path):
    model = load_tiny(tiny_qwen2)
    engine: Engine = TransformersEngine(model)
    if kind != "one by one":
        engine = made = PagedEngine(load_tiny(tiny_qwen2), kv_bytes=4 << 20, rows=32)
        made.draws_all_rows = True
    async with assisted(engine, tiny_llama) as client:
        texts = await keep_to(SCHEMAS, client, max_tokens=200)
    assert sum(map(accepted, texts)) > 100
    assert sum(text.stats.steps for text in texts) < 0.75 * sum(text.completion_tokens for text in texts)


async def test_schemas_as_programs_ask_for_in_public_are_kept_to(tiny_qwen2: Path, tiny_llama: Path):
    assert len({**SCHEMAS, **PUBLIC_SCHEMAS}) == 100
    async with assisted(TransformersEngine(load_tiny(tiny_qwen2)), tiny_llama) as client:
        await keep_to(PUBLIC_SCHEMAS, client, max_tokens=300)


@pytest.mark.parametrize(
    "guide, fits",
    [
        (GuideSpec.regex(r"[A-Z]{3}[0-9]{1,4}"), r"[A-Z]{3}[0-9]{1,4}"),
        (GuideSpec.choice(["the cat", "the dog", "猫"]), "the cat|the dog|猫"),
        (GuideSpec.grammar('start: pair ("," pair)?\npair: /[a-c]{1,3}/ "=" /[0-9]/'), "([a-c]{1,3}=[0-9],?){1,2}"),
    ],
    ids=lambda each: each.kind.value if isinstance(each, GuideSpec) else "",
)
async def test_other_kinds_are_kept_to(guide: GuideSpec, fits: str):
    engine = TextEngine()
    async with assisted(engine) as client:
        for seed in range(4):
            for rule in (Rule.RACE, Rule.EXACT, Rule.AUTO):
                sampling = dataclasses.replace(WARM, seed=seed)
                found = await client.complete("a story: ", sampling=sampling, guide=guide, rule=rule, max_tokens=60)
                assert re.fullmatch(fits, found.text) and found.finish_reason is FinishReason.STOP
                assert found.stats.rule is (Rule.RACE if rule is Rule.AUTO else rule)


async def test_a_text_that_is_resumed_is_held_to_its_guide_again():
    """At each byte: a verifier that has never seen it finds the place in the guide from the text alone."""
    guide = GuideSpec.json_schema(CALL)
    request = GenerationRequest(Prompt(text="a story: "), sampling=WARM, guide=guide)
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        whole = await client.write(request)
        jsonschema.validate(json.loads(whole.text), CALL)
        for length in range(1, len(whole.data), 7):
            resumed = dataclasses.replace(request, received=whole.data[:length])
            rest, finished = await text_of(address, request_to_wire(resumed))
            assert whole.data[:length] + rest == whole.data and finished.replayed_tokens > 0
            assert finished.completion_tokens == whole.completion_tokens


async def test_preempted_texts_keep_their_guide():
    """Four texts where there is KV memory for two."""
    guide = GuideSpec.json_schema(CALL)
    engine = TextEngine(rows=36, room=200)
    async with serving(engine) as (verifier, address), Client(address) as client:
        settings = [dataclasses.replace(WARM, seed=number) for number in range(4)]
        texts = await asyncio.gather(
            *(client.complete("a story: ", guide=guide, sampling=each, max_tokens=90) for each in settings)
        )
        for text in texts:
            jsonschema.validate(json.loads(text.text), CALL)
        await baseline(verifier, engine)


async def test_several_sessions_share_a_step_each_with_its_own_guide():
    engine = TextEngine(rows=32)
    guides = [
        GuideSpec.json_schema(CALL),
        None,
        GuideSpec.choice(["the cat", "the mat"]),
        GuideSpec.regex("(the )+end"),
    ]
    async with assisted(engine) as client:

        async def write(guide: GuideSpec | None, draft: bool) -> str:
            options = {"sampling": WARM, "max_tokens": 60, "draft": draft}
            return (await client.complete("a story: ", guide=guide, **options)).text

        alone = [await write(guide, False) for guide in guides]
        together = await asyncio.gather(*(write(guide, True) for guide in guides))
        assert alone == together
        assert max(engine.batches) > 9, "steps were shared"


async def test_what_cannot_be_is_refused_before_a_session_begins():
    engine = TextEngine()
    async with serving(engine) as (verifier, address), Client(address) as client:
        with pytest.raises(InputError, match=r"^json_schema=.*: cannot be compiled"):
            await client.complete("x", guide=GuideSpec.json_schema({"type": "objec"}))
        wire = request_to_wire(GenerationRequest(Prompt(text="x"), guide=GuideSpec.regex("a")))
        wire.rule = 3
        async with stub_to(address) as stub:
            with pytest.raises(Exception, match="rule='rejection': cannot go with regex"):
                async for _ in stub.Generate(wire):
                    pass
            wire.rule = 1
            wire.guide.Clear()
            with pytest.raises(Exception, match="guide: is of a kind that this verifier does not know"):
                async for _ in stub.Generate(wire):
                    pass
        await baseline(verifier, engine)


def test_a_verifier_that_is_too_old_is_left():
    """It would write any text, and say nothing of it."""
    request = GenerationRequest(Prompt(text="x"), guide=GuideSpec.json_object(field="response_format"))
    with pytest.raises(ProtocolError, match="too old to hold a text to a response_format"):
        Transcript(request, lambda chunk: None).take(Started("s", 1))
    Transcript(request, lambda chunk: None).take(Started("s", 1, guided=True))
    Transcript(dataclasses.replace(request, guide=None), lambda chunk: None).take(Started("s", 1))
