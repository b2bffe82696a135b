"""Services of an earlier release beside those of this one: the same text, drafts that come, and one fleet."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from dragoman.client import Client
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from tests.support.releases import child_of, run, unpack
from tests.support.repository import ROOT
from tests.support.service_drivers import described

pytestmark = pytest.mark.process

#: Before messages that wait together travelled as one, roles of drafters, and quotas.
EARLIER = "986a168"
ASKED = ("--prompt=The heron", "--max-tokens=40", "--temperature=0.8", "--seed=4", "--json")
MODELS = ("--dtype=float32", "--threads=1")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    code = unpack(EARLIER, tmp_path_factory.mktemp("earlier"))
    if code is None:
        pytest.skip(f"the clone has no commit {EARLIER}, or there is no git")
    return code


@pytest.mark.parametrize(
    "old",
    [
        ("coordinator", "verifier"),
        ("drafter", "client"),
        ("coordinator",),
        ("verifier", "drafter"),
    ],
    ids="-".join,
)
async def test_an_earlier_release_and_this_one_serve_the_same_text(
    old: tuple[str, ...], earlier: Path, tiny_qwen2: Path, tiny_llama: Path
):
    code = {
        service: earlier if service in old else ROOT for service in ("coordinator", "verifier", "drafter", "client")
    }
    async with contextlib.AsyncExitStack() as stack:
        steering = await stack.enter_async_context(child_of(code["coordinator"], "coordinator", "--listen=127.0.0.1:0"))
        fleet = f"--coordinator={(await steering.ready())['address']}"
        target = (f"--model={tiny_qwen2}", "--listen=127.0.0.1:0", *TAKING_TURNS_OPTIONS, "--patience=5000", *MODELS)
        verifier = await stack.enter_async_context(child_of(code["verifier"], "verifier", fleet, *target))
        address = (await verifier.ready())["address"]
        drafter = await stack.enter_async_context(
            child_of(code["drafter"], "drafter", fleet, f"--model={tiny_llama}", *MODELS)
        )
        await drafter.ready()
        client = await stack.enter_async_context(Client(address))
        await described(client, drafters=1)

        ask = ("generate", f"--verifier={address}", *ASKED)
        alone, drafted = [
            json.loads((await asyncio.to_thread(run, code["client"], *ask, *more)).stdout)
            for more in (("--no-draft",), ())
        ]
        assert drafted["text"] == alone["text"] and drafted["token_ids"] == alone["token_ids"]
        assert drafted["speculation"]["spans"] > 0, "the drafter takes part"
        status = await asyncio.to_thread(run, code["client"], "status", fleet, "--json")
        found = json.loads(status.stdout)
        assert len(found["verifiers"]) == len(found["drafters"]) == 1
        await described(client, sessions=0, kv_cache_bytes=0, drafters=1)
