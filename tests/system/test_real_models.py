"""The embedded models through real processes: three families, and the text is the target's whoever drafts.

``benchmarks/identity.py`` does the same for many prompts.
"""

from __future__ import annotations

import contextlib

import pytest

from dragoman.client import Client
from dragoman.processes import child
from speculation.protocol.completion import Completion
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.sampling.params import SamplingParams

pytestmark = pytest.mark.process

PROMPTS = (
    Prompt(text='def is_even(number: int) -> bool:\n    """Whether the number is even."""\n'),
    Prompt(text="Translate to French.\nEnglish: The cat 🐱 sleeps. 猫は寝ています。\nFrench:"),
    Prompt(text="The river flows to the sea.\n" * 5 + "The river"),  # something to look up
    Prompt(messages=(ChatMessage("user", "Say the alphabet: a b c d e f g h i j k l m n o p q r s t, again:"),)),
)
SAMPLINGS = (SamplingParams(), SamplingParams(temperature=0.8, seed=3))
MAX_TOKENS = 6
# Drafts take part even where the drafter is the slower of the two: here it is bytes that count, not speed.
WAITING = ("--no-adaptive", "--width=8", "--lookahead=8", "--span-tokens=4", "--patience=3000")


async def texts(client: Client, *, draft: bool) -> list[Completion]:
    """Every other one sampled, and the one that looks up its text both ways."""
    asked = [*zip(PROMPTS, SAMPLINGS * 2, strict=True), (PROMPTS[2], SAMPLINGS[1])]
    return [
        await client.complete(prompt, sampling=sampling, max_tokens=MAX_TOKENS, draft=draft)
        for prompt, sampling in asked
    ]


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.timeout(900)  # the first use of a model converts it
@pytest.mark.parametrize(
    "target, drafters", [("gemma3-270m", ["smollm2-135m"]), ("smollm2-135m", ["gemma3-270m", "lookup"])]
)
async def test_same_bytes_whoever_drafts(target: str, drafters: list[str]):
    async with contextlib.AsyncExitStack() as stack:
        options = [f"--model={target}", "--dtype=float32", "--listen=127.0.0.1:0", *WAITING]
        verifier = await stack.enter_async_context(child("verifier", ["verifier", *options]))
        address = (await verifier.ready())["address"]
        client = await stack.enter_async_context(Client(address))
        alone = await texts(client, draft=False)
        for model in drafters:
            arguments = ["drafter", f"--model={model}", f"--verifier={address}", "--threads=1"]
            async with child("drafter", arguments) as drafting:
                await drafting.ready()
                drafted = await texts(client, draft=True)
            assert [text.data for text in drafted] == [text.data for text in alone]
            assert [text.token_ids for text in drafted] == [text.token_ids for text in alone]
            assert sum(text.stats.accepted_tokens for text in drafted) > 0
        described = await client.describe()
        assert (described.sessions, described.kv_cache_bytes) == (0, 0)
    assert len({text.data for text in alone}) >= len(PROMPTS)
