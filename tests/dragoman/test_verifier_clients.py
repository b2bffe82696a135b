"""Connections to verifiers are bounded, and one that is used is not closed."""

from __future__ import annotations

from dragoman import SamplingParams
from dragoman.verifier_clients import IDLE, VerifierClients
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine
from transport.security import Security


async def test_addresses_that_come_and_go_leave_no_connections_behind():
    clients = VerifierClients(Security())
    async with serving(TextEngine()) as (_, address), clients.client(str(address)) as used:
        for port in range(20_000, 20_000 + 2 * IDLE):
            async with clients.client(f"127.0.0.1:{port}"):
                pass
        assert len(clients.addresses) == IDLE + 1
        assert clients.addresses[-1] == f"127.0.0.1:{20_000 + 2 * IDLE - 1}", "the latest stay"
        answer = await used.complete("a story: ", max_tokens=5, sampling=SamplingParams())
        assert answer.completion_tokens == 5, "one that is used is open, however old"
    await clients.close()
    assert not clients.addresses


async def test_the_next_text_takes_the_same_connection():
    clients = VerifierClients(Security())
    async with clients.client("127.0.0.1:20000") as first, clients.client("127.0.0.1:20000") as second:
        assert first is second
    async with clients.client("127.0.0.1:20000") as third:
        assert third is first
    await clients.close()
