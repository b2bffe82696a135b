"""Connections that never say who they are, and headers without measure: they end, and others are served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from protos.dragoman.v1 import dragoman_pb2 as pb
from tests.support.certificates import TestAuthority
from tests.support.service_drivers import PATIENCE, WARM, request, serving, stub_to, text_of
from tests.support.text_engine import TextEngine
from transport import grpc_options
from transport.identity import Role
from transport.limits import PROTOCOL_VERSION


@pytest.mark.parametrize("tls", [False, True])
async def test_handshakes_that_do_not_go_on_are_ended(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grpc_options, "HANDSHAKE_TIMEOUT_MS", 5_000)  # for the honest client as well
    authority = TestAuthority(tmp_path / "ours")
    server = authority.mutual(Role.VERIFIER) if tls else None
    client = authority.mutual(Role.CLIENT) if tls else None
    async with serving(TextEngine(), security=server) as (_, address):
        halves = [await asyncio.open_connection(address.host, address.port) for _ in range(100)]
        halves[0][1].write(b"\x16\x03\x01")  # the beginning of a hello
        text, _ = await text_of(address, request(WARM), security=client)
        assert text, "others are served meanwhile"
        async with asyncio.timeout(PATIENCE):
            for reader, writer in halves:
                while await reader.read(4096):  # its own settings, then the end
                    pass
                writer.close()
        assert (await text_of(address, request(WARM), security=client))[0] == text


async def test_headers_beyond_all_measure_are_refused():
    async with serving(TextEngine()) as (_, address), stub_to(address) as stub:
        asked = pb.DescribeRequest(protocol_version=PROTOCOL_VERSION)
        flood = (("x-flood", "a" * (2 * grpc_options.MAX_METADATA_BYTES)),)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Describe(asked, metadata=flood)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.Describe(asked)).protocol_version == PROTOCOL_VERSION
