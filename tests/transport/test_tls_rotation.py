"""Certificates are renewed while services run: nothing is restarted, running streams go on, new connections notice."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from dragoman.certificates.authority import pem_of
from dragoman.client import Client
from speculation.errors import AccessError
from tests.support.certificates import HOUR, TestAuthority
from tests.support.service_drivers import SLOW, WARM, drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine
from tests.support.tls import PROMPT, drafted_text, end
from transport.address import Address
from transport.identity import Role


@pytest.fixture
def ours(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ours")


@pytest.fixture
def other(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "other")


def serial_of(pem: str) -> int:
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def served_serial(address: Address) -> int:
    """Of the certificate that a new connection is shown."""
    return serial_of(await asyncio.to_thread(ssl.get_server_certificate, (address.host, address.port)))


async def test_certificates_are_renewed_under_a_running_stream(ours: TestAuthority):
    server, client = ours.mutual(Role.VERIFIER), ours.mutual(Role.CLIENT)
    alone = await drafted_text(None, None, None)
    engine = TextEngine()
    async with serving(engine, plan=SLOW, security=server) as (verifier, address):
        async with drafting(address, security=ours.mutual(Role.DRAFTER)), Client(address, security=client) as asking:
            await drafters(verifier, 1)
            before = await served_serial(address)
            stream = asking.stream(PROMPT, sampling=WARM, max_tokens=60)
            chunks = [await anext(stream)]
            engine.gate.clear()
            # Who calls anew shows what is in the files now.
            end(ours, Path(client.tls_cert or ""))
            with pytest.raises(AccessError, match="expired on"):
                await asking.describe()
            for security in (server, client):
                ours.folder.renew(Path(security.tls_cert or ""), HOUR)
            assert (after := await served_serial(address)) != before
            assert after == serial_of(Path(server.tls_cert or "").read_text())
            # A call that begins now goes over a connection with the new certificates of both sides.
            assert (await asking.describe()).sessions == 1
            engine.gate.set()
            chunks += [chunk async for chunk in stream]
        assert b"".join(run.text for chunk in chunks for run in chunk.runs) == alone == stream.completion.data


async def test_half_a_renewal_changes_nothing(ours: TestAuthority, caplog: pytest.LogCaptureFixture):
    server = ours.one_way()
    certificate, key = Path(server.tls_cert or ""), Path(server.tls_key or "")
    async with serving(TextEngine(), security=server) as (_, address):
        before = await served_serial(address)
        kept = key.read_bytes(), certificate.read_bytes()
        ours.folder.renew(certificate, None)
        new = key.read_bytes(), certificate.read_bytes()
        for broken, words in (((new[0], kept[1]), "is not the key of"), ((new[0], b"no certificate"), "holds no")):
            caplog.clear()
            key.write_bytes(broken[0])
            certificate.write_bytes(broken[1])
            assert await served_serial(address) == before
            assert "going on with the certificate that was there before" in caplog.text and words in caplog.text
        key.write_bytes(new[0])
        certificate.write_bytes(new[1])
        assert await served_serial(address) == serial_of(new[1].decode())


async def test_an_authority_that_is_no_longer_trusted_lets_nobody_in_anew(ours: TestAuthority, other: TestAuthority):
    server = ours.mutual(Role.VERIFIER)
    async with serving(TextEngine(), security=server) as (_, address):
        async with Client(address, security=ours.mutual(Role.CLIENT)) as client:
            await client.describe()
        Path(ours.ca).write_bytes(Path(other.ca).read_bytes())
        theirs = ours.mutual(Role.CLIENT)
        kept = ours.folder.path / "kept.pem"
        kept.write_bytes(pem_of(ours.authority.certificate))
        async with Client(address, security=theirs.model_copy(update={"tls_ca": str(kept)})) as client:
            with pytest.raises(AccessError, match="refused the certificate"):
                await client.describe()


async def test_a_drafter_that_was_in_dials_on_while_its_certificate_is_refused(
    ours: TestAuthority, caplog: pytest.LogCaptureFixture
):
    """It may be renewed; a drafter that ended would have to be started by hand."""
    security = ours.mutual(Role.DRAFTER)
    server = ours.mutual(Role.VERIFIER)
    serve = serving(TextEngine(), security=server)
    async with serve as (verifier, address), drafting(address, security=security) as drafter:
        await drafters(verifier, 1)
        end(ours, Path(security.tls_cert or ""))
        with caplog.at_level(logging.WARNING):
            await verifier.roster.drain(reconnect_after_ms=1)
            await eventually(lambda: "expired on" in caplog.text)
        assert not drafter.attached
        ours.folder.renew(Path(security.tls_cert or ""), HOUR)
        await eventually(lambda: drafter.attached)
