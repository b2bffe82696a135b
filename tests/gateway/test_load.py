"""Clients that leave, that do not read, that are too many; and a gateway or verifier that stops in mid-text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket

import httpx
import psutil
import pytest

from dragoman.client import Client
from gateway.settings import GatewaySettings
from speculation.sampling.params import SamplingParams
from tests.support.gateways import STORY, Front, events_of, fleet_front, front, joined, named, registered
from tests.support.service_drivers import baseline, eventually
from tests.support.text_engine import TextEngine

LONG = {**STORY, "max_tokens": 1500, "stream": True}
ONE = GatewaySettings(max_concurrent=1, max_queue=1)


def slow() -> TextEngine:
    """Its texts are still running when something happens to them."""
    return TextEngine(step_seconds=0.01)


async def sent(found: Front, count: int = 1, **fields) -> list[asyncio.Task[httpx.Response]]:
    """So many requests, all of which are there."""
    return [asyncio.create_task(found.post("/v1/completions", **{**STORY, **fields})) for _ in range(count)]


async def waiting(found: Front, count: int) -> None:
    """Until so many requests wait in the gateway."""
    while await found.metric("requests_waiting") != count:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_ends_the_session(stream: bool):
    async with front(slow()) as found:
        (task,) = await sent(found, max_tokens=1500, stream=stream, n=2)
        await eventually(lambda: len(found.verifier.sessions) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await baseline(found.verifier, found.engine)
        assert await found.metric("texts_running") == 0


async def test_who_leaves_in_the_middle_of_a_stream_ends_the_session():
    async with front(slow()) as found:
        async with found.http.stream("POST", "/v1/completions", json=LONG) as response:
            lines = response.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
            assert found.verifier.sessions
        await baseline(found.verifier, found.engine)


async def test_beyond_the_queue_requests_are_refused_at_once_and_who_leaves_it_makes_room():
    async with front(slow(), settings=ONE) as found:
        (running,) = await sent(found, max_tokens=1500)
        await eventually(lambda: found.verifier.sessions)
        (queued,) = await sent(found, max_tokens=3)
        await waiting(found, 1)
        refused = await found.post("/v1/completions", **STORY)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        queued.cancel()
        await asyncio.gather(queued, return_exceptions=True)
        await waiting(found, 0)
        (queued,) = await sent(found, max_tokens=3)
        await waiting(found, 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await queued).status_code == 200
        await baseline(found.verifier, found.engine)
        assert await found.metric("requests_total", route="/v1/completions", status="429") == 1
        assert await found.metric("requests_total", route="/v1/completions", status="499") == 2


async def test_more_choices_than_places_take_turns():
    async with front(settings=GatewaySettings(max_concurrent=2)) as found:
        whole = await found.complete(n=5, max_tokens=10)
    async with front() as found:
        assert (await found.complete(n=5, max_tokens=10))["choices"] == whole["choices"]
        assert len({choice["text"] for choice in whole["choices"]}) == 5


async def test_a_full_verifier_is_429():
    async with front(slow(), max_sessions=1) as found:
        (running,) = await sent(found, max_tokens=1500)
        await eventually(lambda: found.verifier.sessions)
        for stream in (False, True):
            refused = await found.post("/v1/completions", **{**STORY, "stream": stream})
            assert refused.status_code == 429, refused.text
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_client_that_reads_nothing_is_cut_off_and_holds_nobody_up(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    # A megabyte, more than all buffers on the way hold.
    fields = {**STORY, "prompt": " the" * 2000, "echo": True, "n": 128, "max_tokens": 5, "stream": True}
    settings = GatewaySettings(send_timeout=0.5, max_concurrent=129)
    async with front(settings=settings, max_sessions=129) as found:
        body = json.dumps(fields).encode()
        headers = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            host, port = found.url.removeprefix("http://").split(":")
            await loop.sock_connect(deaf, (host, int(port)))
            await loop.sock_sendall(deaf, b"POST /v1/completions HTTP/1.1\r\n" + headers.encode() + body)
            await eventually(lambda: found.verifier.sessions)
            assert (await found.complete(max_tokens=3))["choices"], "others go on"
            await eventually(lambda: "cut a client off that took nothing for 0.5 s" in caplog.text)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while part := await loop.sock_recv(deaf, 1 << 20):
                    received += part
            assert received.startswith(b"HTTP/1.1 200") and b"[DONE]" not in received
        await baseline(found.verifier, found.engine)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel knows no such limit")
@pytest.mark.parametrize("closes", [True, False])
async def test_a_client_that_does_not_take_the_end_of_its_answer_is_cut_off_too(closes: bool):
    """All of it was sent, as far as the application knows, and waits in the buffers of a connection."""
    settings = GatewaySettings(send_timeout=0.5)
    async with front(settings=settings) as found:
        body = json.dumps({"prompt": "the cat " * 200_000}).encode()
        head = (
            f"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        )
        head += "connection: close\r\n\r\n" if closes else "\r\n"
        loop, (host, port) = asyncio.get_running_loop(), found.url.removeprefix("http://").split(":")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, (host, int(port)))

            def held() -> bool:
                """Whether this process, whose gateway it is, holds the other end."""
                ends = psutil.Process().net_connections("tcp")
                return any(
                    end.raddr and end.raddr.port == deaf.getsockname()[1] and end.fd != deaf.fileno() for end in ends
                )

            await eventually(held)
            await loop.sock_sendall(deaf, head.encode() + body)
            await eventually(lambda: not held())
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while part := await loop.sock_recv(deaf, 1 << 20):
                    received += part
            assert received.startswith(b"HTTP/1.1 200") and not received.endswith(b"}")
        assert (await found.complete(max_tokens=3))["choices"], "others go on"


async def test_a_stop_lets_texts_end_and_takes_no_more():
    async with front(slow()) as found:
        whole = (await found.complete(max_tokens=60))["choices"]
        await eventually(lambda: not found.verifier.sessions)  # that of the first may take a moment to close
        (running,) = await sent(found, max_tokens=60)
        await eventually(lambda: found.verifier.sessions)
        stopping = asyncio.create_task(found.server.stop(grace=60))
        assert (await running).json()["choices"] == whole
        await stopping
        with pytest.raises(httpx.ConnectError):
            await found.post("/v1/completions", **STORY)


async def test_what_runs_at_the_end_of_the_grace_is_told_so():
    async with front(slow()) as found:
        streamed, whole = await sent(found, **LONG), await sent(found, **{**LONG, "stream": False})
        await eventually(lambda: len(found.verifier.sessions) == 2)
        await found.server.stop(grace=0.2)
        assert events_of((await streamed[0]).text)[-1]["error"]["code"] == "unavailable"
        refused = await whole[0]
        assert refused.status_code == 503 and "retry-after" in refused.headers
        await baseline(found.verifier, found.engine)


async def test_a_text_that_breaks_off_says_so_at_the_end_of_its_stream():
    class Failing(TextEngine):
        steps = 0

        def step(self, batch):
            self.steps += 1
            if self.steps >= 20:  # the client tries again a few times
                raise RuntimeError("a secret of the engine's")
            return super().step(batch)

    async with front(Failing()) as found:
        events = events_of((await found.post("/v1/completions", **LONG)).text)
        assert len(events) > 5 and set(events[-1]) == {"error"} and events[-1]["error"]["type"] == "server_error"
        assert "secret" not in json.dumps(events)
        assert await found.metric("requests_total", route="/v1/completions", status="200") == 1
        assert await found.metric("streams_broken_total") == 1, "as its status does not tell"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_outlives_its_verifier(stream: bool):
    fields = {"prompt": "a story: ", "max_tokens": 120, "seed": 9, "temperature": 0.8, "ignore_eos": True}
    async with fleet_front() as (server, at, http, _):
        async with joined(at, named("m", step_seconds=0.01), "first") as (first, address):
            await registered(server, 1)
            async with Client(address) as client:
                sampling = SamplingParams(temperature=0.8, seed=9)
                own = await client.complete("a story: ", sampling=sampling, max_tokens=120, ignore_end=True)
            asking = asyncio.create_task(http.post("/v1/completions", json={**fields, "stream": stream}))
            await eventually(lambda: first.committed_tokens > 140)
        async with joined(at, named("m"), "second") as (second, _):
            response = await asking
            assert second.committed_tokens, "it wrote the end"
        if stream:
            text = "".join(event["choices"][0]["text"] for event in events_of(response.text)[:-1])
        else:
            text = response.json()["choices"][0]["text"]
        assert text == own.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_goes_on_where_its_verifier_hands_it_over(stream: bool):
    fields = {"prompt": "a story: ", "max_tokens": 120, "seed": 9, "temperature": 0.8, "ignore_eos": True}
    async with (
        fleet_front() as (server, at, http, _),
        joined(at, named("m", step_seconds=0.01), "first") as (first, _),
        joined(at, named("m", step_seconds=0.01), "second") as (second, _),
    ):
        await registered(server, 2)
        whole = (await http.post("/v1/completions", json=fields)).json()["choices"][0]["text"]
        verifiers = (first, second)
        asking = asyncio.create_task(http.post("/v1/completions", json={**fields, "stream": stream}))
        await eventually(lambda: any(each.sessions and each.sessions[0].new_tokens > 20 for each in verifiers))
        (writing,) = (each for each in verifiers if each.sessions)
        writing.drain()
        writing.hand_over()
        response = await asking
        if stream:
            text = "".join(event["choices"][0]["text"] for event in events_of(response.text)[:-1])
        else:
            text = response.json()["choices"][0]["text"]
        assert text == whole and len(whole) > 100
        await eventually(lambda: not (first.sessions or second.sessions))
