"""Bytes that no HTTP library would send: heads that do not come, requests with two lengths, what is no HTTP at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from gateway.settings import GatewaySettings
from tests.support.gateways import STORY, Front, front

QUICK = GatewaySettings(head_timeout=1.0)
BODY = json.dumps({**STORY, "max_tokens": 3}).encode()
GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@contextlib.asynccontextmanager
async def connected(found: Front) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = found.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", POST[:9], POST, GET + POST])
async def test_a_connection_that_brings_no_request_is_cut_off(sent: bytes):
    async with front(settings=QUICK) as found, connected(found) as (reader, writer):
        writer.write(sent)
        answer = await reader.read()  # to the end: the gateway closes
        assert answer.startswith(b"HTTP/1.1 200") is sent.startswith(GET)
        assert (await found.complete(max_tokens=3))["choices"], "others go on"


async def test_a_connection_is_used_again_and_a_long_answer_is_not_cut_off():
    async with front(settings=QUICK) as found, connected(found) as (reader, writer):
        body = json.dumps({**STORY, "max_tokens": 400, "stream": True}).encode()
        for _ in range(3):
            writer.write(POST + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            streamed = await reader.readuntil(b"0\r\n\r\n")
            assert streamed.startswith(b"HTTP/1.1 200") and b"[DONE]" in streamed
            await asyncio.sleep(1.2)  # more than a head may take


async def test_a_connection_without_a_further_request_is_closed_after_the_time_that_is_set():
    async with front(settings=GatewaySettings(keep_alive=0.2)) as found, connected(found) as (reader, writer):
        writer.write(GET)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")  # to the end: the gateway closes


async def test_a_request_of_two_lengths_is_told_its_id_as_any_other():
    async with front() as found, connected(found) as (reader, writer):
        writer.write(POST + f"content-length: {len(BODY)}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".encode())
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400") and b"\r\nx-request-id: req_" in answer


async def test_bytes_after_an_answer_that_ended_the_connection_do_no_harm(caplog: pytest.LogCaptureFixture):
    async with front() as found, connected(found) as (reader, writer):
        writer.write(POST + f"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nnot hex\r\n{'x' * 100}".encode())
        answer = await reader.read()
        assert answer.count(b"HTTP/1.1 ") == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    "head",
    [
        b"what is this\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # a TLS client
        POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n" + BODY,
        POST + f"content-length: {len(BODY)}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".encode() + GET,
        POST + b"transfer-encoding: chunked\r\n\r\nnot hex\r\n",
        POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"folded: a\r\n b\r\nspace : x\r\n\r\n",
    ],
    ids=["words", "TLS", "two lengths", "length and chunks", "bad chunk", "unknown coding", "bad header"],
)
async def test_what_is_malformed_gets_one_answer_and_the_connection_ends(head: bytes):
    """So nothing of it is taken for a second request."""
    async with front() as found, connected(found) as (reader, writer):
        writer.write(head)
        answer = await reader.read()
        status, _, rest = answer.partition(b"\r\n")
        assert status.split()[1] in (b"400", b"501") and answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in rest.lower()
        error = json.loads(rest.partition(b"\r\n\r\n")[2])["error"]
        assert error["type"] == "invalid_request_error" and error["code"] in ("invalid_http", "invalid_json")
        assert not found.verifier.sessions


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("route", ["/v1/completions", "/v1/responses", "/tokenize"])
async def test_numbers_that_are_none_of_json_are_refused(route: str, number: str):
    async with front() as found:
        body = f'{{"input": "a", "prompt": "a", "metadata": {{"x": {number}}}}}'
        answer = await found.http.post(route, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_json"
        assert number in answer.json()["error"]["message"]
