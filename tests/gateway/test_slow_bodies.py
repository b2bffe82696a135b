"""A body that comes slowly, or not at all, holds nobody up and ends with a status."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.settings import GatewaySettings
from tests.support.gateways import STORY, front
from tests.support.service_drivers import eventually

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY = json.dumps({**STORY, "max_tokens": 3}).encode()


@pytest.mark.parametrize("sent", [0, len(BODY) // 2])
async def test_a_body_that_does_not_come_ends_with_408(sent: int):
    async with front(settings=GatewaySettings(body_timeout=0.3)) as found:
        host, port = found.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(HEAD + f"content-length: {len(BODY)}\r\n\r\n".encode() + BODY[:sent])
            assert (await found.complete(max_tokens=3))["choices"], "others go on"
            async with asyncio.timeout(60):
                answer = await reader.read()  # to the end: the connection is closed
        finally:
            writer.close()
            await writer.wait_closed()
        status, _, told = answer.partition(b"\r\n")
        assert status.startswith(b"HTTP/1.1 408") and b'"code":"timeout"' in told
        await eventually(lambda: not found.verifier.sessions)
        assert await found.metric("texts_running") == 0
        assert (await found.metric("requests_total", route="other", status="408")) == 1


async def test_a_body_in_pieces_is_one_body():
    async with front() as found:
        whole = (await found.complete(max_tokens=3))["choices"]
        host, port = found.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            head = (
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
            )
            writer.write(head + b"transfer-encoding: chunked\r\n\r\n")
            for at in range(0, len(BODY), 7):
                piece = BODY[at : at + 7]
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")
            async with asyncio.timeout(60):
                answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["choices"] == whole
