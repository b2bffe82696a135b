"""`dragoman serve` as a process with real models, over real HTTP: what it serves, and how it and its children end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.ports import free_port
from dragoman.processes import ChildProcess, child
from tests.support.commands import run_here
from tests.support.gateways import events_of
from tests.support.service_drivers import eventually

pytestmark = pytest.mark.process

ASKED: dict[str, Any] = {"prompt": "The heron", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
QUICK = ("--dtype=float32", "--drafter-dtype=float32", "--target-threads=1")


def children(of: ChildProcess) -> dict[str, psutil.Process]:
    """By what they are: verifier, drafter tiny-llama, drafter lookup."""
    found = {}
    for process in psutil.Process(of.pid).children():
        with contextlib.suppress(psutil.Error):
            _, _, started, *rest = process.cmdline()
            if started != "dragoman.end_with_parent":  # what it was forked with, see ``tests.support.warm_start``
                continue
            _, command, *options = rest
            model = next(each for each in options if each.startswith("--model=")).rpartition("/")[2]
            found[f"{command} {model.removeprefix('--model=')}"] = process
    return found


@contextlib.asynccontextmanager
async def serve(*arguments: str, port: int = 0) -> AsyncIterator[tuple[ChildProcess, httpx.AsyncClient]]:
    """The command, which may not be ready yet, and a client of the port."""
    async with child("server", ["serve", f"--listen=127.0.0.1:{port}", *QUICK, *arguments]) as server:
        at = port or (await server.ready())["address"].rpartition(":")[2]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{at}", timeout=120, trust_env=False) as http:
            yield server, http


async def told_while_loading(server: ChildProcess, http: httpx.AsyncClient) -> dict[str, Any]:
    """The first answer of its port."""
    while True:
        assert server.exit_code is None, server.last_words
        with contextlib.suppress(httpx.TransportError):
            response = await http.post("/v1/completions", json=ASKED)
            assert response.status_code == 503 and response.headers["retry-after"] == "1"
            return response.json()
        await asyncio.sleep(0.02)


async def is_open(http: httpx.AsyncClient) -> bool:
    """Whether its port takes requests."""
    try:
        return (await http.get("/version")).status_code == 200
    except httpx.TransportError:
        return False


async def complete(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await http.post("/v1/completions", json={**ASKED, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_target_and_two_drafters_until_sigterm(tiny_qwen2: Path, tiny_llama: Path):
    options = (f"--target={tiny_qwen2}", f"--drafter={tiny_llama}", "--drafter=lookup", "--grace=5m")
    async with serve(*options, port=free_port()) as (server, http):
        assert "still being loaded" in (await told_while_loading(server, http))["error"]["message"]
        assert (await server.ready())["model"] == "tiny-qwen2"
        started = children(server)
        assert started.keys() == {"verifier tiny-qwen2", "drafter tiny-llama", "drafter lookup"}

        drafted, alone = await complete(http), await complete(http, draft=False)
        assert drafted["choices"] == alone["choices"]
        assert drafted["choices"][0]["text"].startswith(" stands in the shallow water.")
        assert drafted["speculation"]["drafters_connected"] == 2
        assert {each["model"] for each in drafted["speculation"]["drafters"]} == {"tiny-llama", "lookup"}
        assert alone["speculation"]["drafters"] == []

        started["drafter lookup"].kill()
        assert (await complete(http))["choices"] == alone["choices"], "a lost drafter costs no text"
        await eventually(lambda: "the drafter lookup drafts again" in server.last_words)
        assert "the drafter lookup was ended by SIGKILL while it drafted" in server.last_words
        assert (await complete(http))["speculation"]["drafters_connected"] == 2

        started |= children(server)
        async with http.stream("POST", "/v1/completions", json={**ASKED, "max_tokens": 400, "stream": True}) as running:
            lines = running.aiter_lines()
            begun = await anext(lines)
            os.kill(server.pid, signal.SIGTERM)
            rest = [begun, *[line async for line in lines if line]]
        assert rest[-1] == "data: [DONE]", "a text that runs may end"
        assert len(events_of("\n\n".join(rest))) > 2
        await server.death("in the test")
        assert server.exit_code == 0 and "Traceback" not in server.last_words
        assert not any(process.is_running() for process in started.values())


async def test_it_ends_with_its_target(tiny_qwen2: Path):
    async with serve(f"--target={tiny_qwen2}", "--drafter=lookup") as (server, http):
        started = children(server)
        async with http.stream("POST", "/v1/completions", json={**ASKED, "max_tokens": 400, "stream": True}) as running:
            lines = running.aiter_lines()
            await anext(lines)
            started["verifier tiny-qwen2"].kill()
            rest = [line async for line in lines if line]
        await server.death("in the test")
        assert server.exit_code == 1 and "Traceback" not in server.last_words
        assert f"the target {tiny_qwen2} was ended by SIGKILL while it served" in server.last_words
        assert rest[-1] == "data: [DONE]" or "error" in json.loads(rest[-1].removeprefix("data: "))
        assert not any(process.is_running() for process in started.values())


async def test_a_second_signal_ends_texts_that_run(tiny_qwen2: Path):
    async with serve(f"--target={tiny_qwen2}", "--grace=1h") as (server, http):
        many = {**ASKED, "max_tokens": 400, "n": 128, "stream": True}  # minutes
        async with http.stream("POST", "/v1/completions", json=many) as running:
            lines = running.aiter_lines()
            await anext(lines)
            os.kill(server.pid, signal.SIGINT)
            while await is_open(http):
                await asyncio.sleep(0.02)
            os.kill(server.pid, signal.SIGINT)
            rest = [line async for line in lines if line]
        assert "error" in json.loads(rest[-1].removeprefix("data: "))
        await server.death("in the test")
        assert server.exit_code == 0 and "Traceback" not in server.last_words


async def test_a_signal_while_it_loads(tiny_qwen2: Path):
    async with serve(f"--target={tiny_qwen2}", port=free_port()) as (server, http):
        await told_while_loading(server, http)
        await eventually(lambda: children(server))
        started = children(server)
        os.kill(server.pid, signal.SIGINT)
        await server.death("in the test")
        assert server.exit_code == 0 and not any(process.is_running() for process in started.values())


async def test_a_drafter_that_cannot_be_loaded_ends_it_before_it_is_ready(tiny_qwen2: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    async with child("server", ["serve", f"--target={tiny_qwen2}", f"--drafter={tmp_path}", "--listen=0"]) as server:
        error = await server.death("in the test")
        assert error.exit_code == 3, server.last_words
        assert f"the drafter {tmp_path} ended with exit code 3 before it was ready" in server.last_words
        assert "Traceback" not in server.last_words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen=0.0.0.0:0",), "the connection is not encrypted"),
        (("--dtype=int8",), "is for drafters"),
        (("--device=gpu",), "device='gpu': is no device"),
        (("--drafter=lookup", "--drafter-device=gpu"), "drafter-device='gpu': is no device"),
        (("--drafter=lookup", "--drafter-dtype=int4"), "drafter-dtype='int4'"),
        (("--kv-memory=much",), "kv-memory"),
        (("--max-concurrent=0",), "max-concurrent"),
        (("--grace=long",), "grace"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_in_a_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
):
    code, _, errors = run_here(capsys, "serve", "--target=smollm2-135m", *arguments)
    assert code == 2 and words in errors, errors
    assert errors.count("\n") <= 2
