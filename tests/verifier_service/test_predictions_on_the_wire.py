"""A client's prediction, and the rule `auto`, over gRPC."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import grpc
import pytest

from drafter_service.model_drafter import ModelDrafter
from dragoman.client import Client
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule
from tests.support.service_drivers import SLOW, WARM, baseline, drafters, drafting, request, serving, stub_to, text_of
from tests.support.text_engine import TextEngine
from tests.support.tiny_models import load_tiny
from transport.limits import WireLimits
from verifier_service.transformers_engine import TransformersEngine


@pytest.mark.parametrize("rule", Rule.concrete())
async def test_a_right_prediction_saves_steps_and_no_prediction_moves_the_text(rule: Rule):
    engine = TextEngine()
    asked = request(WARM, rule=rule)
    async with serving(engine, lookup=False) as (verifier, address):
        expected, without = await text_of(address, asked)
        halves = expected[: len(expected) // 2] + b"?" + expected[len(expected) // 2 :]
        steps = []
        for prediction in (expected, halves, b"\xff" * 3000, expected[20:]):
            asked.prediction = prediction
            text, finished = await text_of(address, asked)
            assert text == expected
            steps.append(finished.speculation.steps)
        assert steps[0] <= without.speculation.steps / 2, "all of it was known"
        assert steps[1] < without.speculation.steps * 0.8, "it is taken up again behind what was wrong"
        assert steps[2] == without.speculation.steps
        await baseline(verifier, engine)


async def test_a_prediction_through_the_python_client():
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        alone = await client.complete(Prompt(text="a story: "), max_tokens=40)
        assisted = await client.complete(Prompt(text="a story: "), max_tokens=40, prediction=alone.text)
        assert assisted.data == alone.data and assisted.stats.steps < alone.stats.steps


async def test_a_prediction_that_is_too_long_is_refused():
    limits = WireLimits(prediction_bytes=100)
    async with serving(TextEngine(), limits=limits) as (_, address), stub_to(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(request(WARM, prediction=b"x" * 101)).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "prediction='101 bytes'" in str(caught.value.details())


# ---- auto ---------------------------------------------------------------------------------------------------------


async def test_auto_tries_the_rules_and_says_which_it_took(tiny_qwen2: Path, tiny_llama: Path):
    asked = request(WARM, max_tokens=32, rule=Rule.AUTO, ignore_end=True)
    async with serving(TransformersEngine(load_tiny(tiny_qwen2)), plan=SLOW, adaptive=False) as (verifier, address):
        _, alone = await text_of(address, asked)
        assert alone.speculation.rule == pb.RULE_RACE, "no drafter, no reason to depend on one"
        async with drafting(address, ModelDrafter(load_tiny(tiny_llama))):
            await drafters(verifier, 1)
            rules = Counter([(await text_of(address, asked))[1].speculation.rule for _ in range(12)])
    assert set(rules) == {pb.RULE_RACE, pb.RULE_REJECTION}
