"""TLS and mutual TLS between real services on loopback: the same text, and no access for who may not have any."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from drafter_service.client import DrafterClient
from drafter_service.fleet_member import DrafterMember
from dragoman.client import Client
from dragoman.coordinator_client import CoordinatorClient
from dragoman.fleet_client import FleetClient
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import AccessError, DragomanError, InputError
from tests.support.certificates import TestAuthority
from tests.support.coordinators import coordinating, running
from tests.support.service_drivers import QUICK, SLOW, WARM, baseline, drafters, drafting, serving
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.tls import PROMPT, drafted_text, end
from transport.address import Address
from transport.channels import open_channel
from transport.identity import Role
from transport.limits import PROTOCOL_VERSION
from transport.pem_files import pem_files
from transport.security import Security
from verifier_service.fleet_member import VerifierMember


@pytest.fixture
def ours(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ours")


@pytest.fixture
def other(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "other")


async def test_the_text_is_the_same_in_plaintext_in_tls_and_in_mutual_tls(ours: TestAuthority):
    plain = await drafted_text(None, None, None)
    assert len(plain) > 60
    trusting = ours.trusting()
    assert await drafted_text(ours.one_way(), trusting, trusting) == plain
    drafter, client = ours.mutual(Role.DRAFTER), ours.mutual(Role.CLIENT)
    assert await drafted_text(ours.mutual(Role.VERIFIER), drafter, client) == plain


async def test_a_whole_fleet_in_mutual_tls(ours: TestAuthority):
    steering = coordinating(security=ours.mutual(Role.COORDINATOR))
    serve = serving(TextEngine(), plan=SLOW, security=ours.mutual(Role.VERIFIER))
    async with steering as (server, coordinator), serve as (verifier, address):
        member = VerifierMember(
            verifier,
            coordinator,
            instance="v",
            name="v",
            advertised=str(address),
            security=ours.mutual(Role.VERIFIER),
        )
        drafter = DrafterMember(
            TextDrafter(), coordinator, instance="d", name="d", backoff=QUICK, security=ours.mutual(Role.DRAFTER)
        )
        async with running(member, drafter):
            await drafters(verifier, 1)
            async with FleetClient(coordinator, security=ours.mutual(Role.CLIENT)) as client:
                completion = await client.complete(PROMPT, sampling=WARM, max_tokens=60)
        assert completion.completion_tokens == 60
        # Each by its own kind alone: a drafter cannot join as a verifier, whom clients would then dial.
        verifier_again = VerifierMember(
            verifier, coordinator, instance="x", name="x", advertised="h:1", security=ours.mutual(Role.DRAFTER)
        )
        await verifier_again.run()
        assert isinstance(verifier_again.refusal, AccessError)
        assert "drafter a may not join as a verifier" in verifier_again.refusal.message
        assert len(server.fleet.registry.verifiers) <= 1


async def test_who_leaves_leaves_nothing_behind(ours: TestAuthority):
    """The check of roles stands between the call and its handler, which must end all the same."""
    engine = TextEngine()
    async with serving(engine, plan=SLOW, security=ours.mutual(Role.VERIFIER)) as (verifier, address):
        async with drafting(address, security=ours.mutual(Role.DRAFTER)):
            await drafters(verifier, 1)
            async with Client(address, security=ours.mutual(Role.CLIENT)) as client:
                async with client.stream(PROMPT, sampling=WARM, max_tokens=2000, ignore_end=True) as stream:
                    await anext(stream)
                await baseline(verifier, engine)
        await drafters(verifier, 0)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
async def test_the_names_of_loopback_are_in_every_servers_certificate(ours: TestAuthority, host: str):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        pytest.skip(f"this machine has no {host}")
    serve = serving(TextEngine(), listen=Address(host, 0), security=ours.mutual(Role.VERIFIER))
    client = ours.mutual(Role.CLIENT)
    async with serve as (_, address), Client(address, security=client) as asking:
        assert (await asking.describe()).model == "text-target"


# ---- no access ----------------------------------------------------------------------------------------------------

#: Of (the server's settings, the dialling side's): what the latter is told.
Case = tuple[Callable[[TestAuthority, TestAuthority], tuple[Security | None, Security | None]], str, str]
CASES: dict[str, Case] = {
    "wrong authority": (lambda ours, other: (ours.one_way(), other.trusting()), "is not signed by", "ca.pem"),
    "expired": (lambda ours, other: (expired_server(ours), ours.trusting()), "has expired", "certs renew"),
    "wrong host": (
        lambda ours, other: (server_of(ours, hosts=("gpu-box.example",)), ours.trusting()),
        "is not for 127.0.0.1",
        "--host 127.0.0.1",
    ),
    "certificate of a drafter": (
        lambda ours, other: (ours.one_way(Role.DRAFTER), ours.trusting()),
        "is none of a server",
        "of the role verifier",
    ),
    "no certificate": (
        lambda ours, other: (ours.mutual(Role.VERIFIER), ours.trusting()),
        "asks for a certificate, and this side has none",
        "--tls-cert",
    ),
    "certificate of another authority": (
        lambda ours, other: (
            ours.mutual(Role.VERIFIER),
            other.mutual(Role.CLIENT).model_copy(update={"tls_ca": ours.ca}),
        ),
        "refused the certificate",
        "another authority",
    ),
    "expired client": (
        lambda ours, other: (ours.mutual(Role.VERIFIER), expired_client(ours)),
        "expired on",
        "certs renew",
    ),
    "plaintext against TLS": (lambda ours, other: (ours.one_way(), Security()), "speaks TLS", "--tls-ca"),
    "plaintext against mutual TLS": (
        lambda ours, other: (ours.mutual(Role.VERIFIER), Security()),
        "speaks TLS",
        "--tls-ca",
    ),
    "TLS against plaintext": (
        lambda ours, other: (None, ours.trusting()),
        "does not speak TLS",
        "without --tls-ca",
    ),
}


def server_of(authority: TestAuthority, **issued: object) -> Security:
    files = authority.issue(Role.VERIFIER, "special", **issued)  # type: ignore[arg-type]
    return Security(tls_cert=str(files.certificate), tls_key=str(files.key))


def expired_server(authority: TestAuthority) -> Security:
    """As one whose certificate ended while it ran: what is there at the start is refused by ourselves."""
    security = server_of(authority)
    pem_files(security)
    end(authority, Path(security.tls_cert or ""))
    return security


def expired_client(authority: TestAuthority) -> Security:
    security = authority.mutual(Role.CLIENT, "late")
    pem_files(security)
    end(authority, Path(security.tls_cert or ""))
    return security


@pytest.mark.parametrize("case", CASES)
async def test_who_may_not_come_in_is_told_why_and_what_to_do(case: str, ours: TestAuthority, other: TestAuthority):
    make, words, remedy = CASES[case]
    server, dialling = make(ours, other)
    async with serving(TextEngine(), security=server) as (verifier, address):
        async with Client(address, security=dialling) as client:
            for refused in (client.describe, lambda: client.complete(PROMPT, max_tokens=4)):
                with pytest.raises(AccessError) as caught:
                    await refused()
                assert words in caught.value.message and remedy in caught.value.remedy, str(caught.value)
                assert "\n" not in str(caught.value) and caught.value.exit_code == 7
        drafter = DrafterClient(TextDrafter(), address, name="d", backoff=QUICK, security=dialling)
        with pytest.raises(AccessError) as caught:
            await drafter.run()
        assert words in caught.value.message
        assert not drafter.attached and verifier.describe().drafters == () and verifier.committed_tokens == 0


async def test_a_coordinator_is_as_closed_as_a_verifier(ours: TestAuthority, other: TestAuthority):
    async with coordinating(security=ours.mutual(Role.COORDINATOR)) as (server, address):
        for dialling in (Security(), ours.trusting(), other.trusting()):
            async with CoordinatorClient(address, security=dialling) as client:
                with pytest.raises(AccessError, match=f"the coordinator at {address}"):
                    await client.status()
        member = DrafterMember(TextDrafter(), address, instance="d", name="d", backoff=QUICK, security=ours.trusting())
        with pytest.raises(AccessError):
            await member.run()
        assert not server.fleet.registry.drafters


@pytest.mark.parametrize(
    "dialling, where", [(Security(), "10.1.2.3:50061"), (Security(), "box.example"), (Security(), "[2001:db8::1]:1")]
)
async def test_another_machine_is_not_dialled_in_plaintext_unless_that_is_allowed(dialling: Security, where: str):
    with pytest.raises(InputError, match="would not be encrypted") as caught:
        Client(where, security=dialling)
    assert caught.value.field == "verifier" and "--allow-plaintext" in caught.value.remedy
    with pytest.raises(InputError, match=r"^coordinator="):
        CoordinatorClient(where, security=dialling)
    drafter = DrafterClient(TextDrafter(), Address.parse(where, field="x"), name="d", security=dialling)
    with pytest.raises(InputError, match="would not be encrypted"):
        await drafter.run()
    allowed = dialling.model_copy(update={"allow_plaintext": True})
    async with Client(where, security=allowed), CoordinatorClient(where, security=allowed):
        pass


async def test_other_machines_are_not_served_in_plaintext_unless_that_is_allowed(ours: TestAuthority):
    everywhere = Address("0.0.0.0", 0)
    with pytest.raises(InputError, match="not encrypted") as caught:
        async with serving(TextEngine(), listen=everywhere, security=Security()):
            pass
    assert "--allow-plaintext" in caught.value.remedy and "--tls-cert" in caught.value.remedy
    with pytest.raises(InputError, match="not encrypted"):
        async with coordinating(everywhere, security=Security()):
            pass
    for security in (Security(allow_plaintext=True), ours.one_way()):
        async with serving(TextEngine(), listen=everywhere, security=security):
            pass


# ---- roles --------------------------------------------------------------------------------------------------------


async def test_a_role_may_do_its_own_and_nothing_else(ours: TestAuthority):
    async with serving(TextEngine(), security=ours.mutual(Role.VERIFIER)) as (verifier, address):
        drafter = DrafterClient(TextDrafter(), address, name="d", backoff=QUICK, security=ours.mutual(Role.CLIENT))
        with pytest.raises(AccessError, match="client a may not call Assist") as caught:
            await drafter.run()
        assert "role drafter" in str(caught.value)
        async with Client(address, security=ours.mutual(Role.DRAFTER)) as client:
            for refused in (client.describe, lambda: client.complete(PROMPT, max_tokens=4)):
                with pytest.raises(AccessError, match="drafter a may not call"):
                    await refused()
        assert verifier.describe().drafters == () and verifier.committed_tokens == 0
    async with coordinating(security=ours.mutual(Role.COORDINATOR)) as (_, address):
        async with CoordinatorClient(address, security=ours.mutual(Role.CLIENT)) as client:
            assert not (await client.status()).members
            with pytest.raises(AccessError, match="may not call Drain"):
                await client.drain("v")
        async with CoordinatorClient(address, security=ours.mutual(Role.ADMIN)) as client:
            with pytest.raises(DragomanError) as caught_later:
                await client.drain("v")
            assert not isinstance(caught_later.value, AccessError), "it is let in, and there is no such verifier"


async def test_without_mutual_tls_nobody_has_a_role(ours: TestAuthority):
    dialling = ours.mutual(Role.DRAFTER)
    serve = serving(TextEngine(), security=ours.one_way())
    async with serve as (_, address), Client(address, security=dialling) as client:
        assert (await client.describe()).model == "text-target"


async def test_who_has_a_certificate_of_the_authority_but_no_role_may_do_nothing(
    ours: TestAuthority, monkeypatch: pytest.MonkeyPatch
):
    """Of an authority that signs for others too."""
    with monkeypatch.context() as patch:
        patch.setattr("transport.identity.TRUST_DOMAIN", "elsewhere")
        security = ours.mutual(Role.CLIENT, "stray")
    serve = serving(TextEngine(), security=ours.mutual(Role.VERIFIER))
    async with serve as (_, address), open_channel(address, security) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.VerifierServiceStub(channel).Describe(pb.DescribeRequest(protocol_version=PROTOCOL_VERSION))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "without a role" in (caught.value.details() or "")
