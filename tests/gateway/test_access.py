"""Who is let in: API keys from the file of tokens, certificates in mutual TLS, HTTPS, and what needs neither."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dragoman.gateway_backend import verifier_backend
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from speculation.errors import ConnectionFailedError, InputError
from tests.support.certificates import HOUR, TestAuthority
from tests.support.gateways import STORY, gateway_to
from tests.support.repository import ROOT
from tests.support.service_drivers import PATIENCE, baseline, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.identity import Identity, Role
from transport.security import Security
from transport.tokens import new_token

BODY = {**STORY, "max_tokens": 3}


@pytest.fixture
def ours(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ours")


class Keys:
    """A gateway's file of tokens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens"
        self.path.write_text("")

    def issue(self, role: Role) -> str:
        secret, token = new_token(Identity(role, f"some-{role}"))
        with self.path.open("a") as file:
            file.write(f"{token.line}\n")
        return secret


def trusting(authority: TestAuthority, shown: Security | None = None) -> ssl.SSLContext:
    """Of a client that trusts the authority, and shows a certificate."""
    context = ssl.create_default_context(cafile=authority.ca)
    if shown is not None:
        assert shown.tls_cert is not None
        context.load_cert_chain(shown.tls_cert, shown.tls_key)
    return context


async def asked(address: Address, context: ssl.SSLContext, path: str = "/v1/completions", **headers: str) -> Any:
    """The response to a text that is asked for, or to a page."""
    async with httpx.AsyncClient(
        base_url=f"https://{address}", verify=context, trust_env=False, timeout=PATIENCE
    ) as http:
        if path.startswith("/v1/completions"):
            return await http.post(path, json=BODY, headers=headers)
        return await http.get(path, headers=headers)


async def test_api_keys_are_the_tokens_of_the_file(tmp_path: Path, ours: TestAuthority):
    keys = Keys(tmp_path)
    client, admin, drafter = (keys.issue(role) for role in (Role.CLIENT, Role.ADMIN, Role.DRAFTER))
    security = ours.one_way().model_copy(update={"tokens": str(keys.path)})
    context = trusting(ours)
    async with (
        serving(TextEngine()) as (verifier, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=security) as (_, address),
    ):
        for secret in (client, admin):
            for scheme in ("Bearer", "bearer"):
                assert (await asked(address, context, authorization=f"{scheme} {secret}")).status_code == 200
        for wrong in (None, "Bearer x", client[:-1], "Basic x", f"Bearer {client}x"):
            refused = await asked(address, context, **({} if wrong is None else {"authorization": wrong}))
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["type"] == "authentication_error"
        refused = await asked(address, context, authorization=f"Bearer {drafter}")
        assert refused.status_code == 403 and refused.json()["error"]["type"] == "permission_error"
        for path, status in (("/health", 200), ("/metrics", 200), ("/version", 200), ("/v1/models", 401), ("/x", 401)):
            assert (await asked(address, context, path)).status_code == status, path
        keys.path.write_text("# nobody\n")
        assert (await asked(address, context, authorization=f"Bearer {client}")).status_code == 401
        keys.path.unlink()
        assert (await asked(address, context, authorization=f"Bearer {client}")).status_code == 401
        assert verifier.describe().sessions == 0


async def test_what_kubernetes_asks_takes_no_key(tmp_path: Path, ours: TestAuthority):
    manifests = yaml.safe_load_all((ROOT / "deploy/kubernetes/base/gateway.yaml").read_text())
    [spec] = [each["spec"]["template"]["spec"] for each in manifests if each["kind"] == "Deployment"]
    [container] = spec["containers"]
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    security = ours.one_way().model_copy(update={"tokens": str(Keys(tmp_path).path)})
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=security) as (_, address),
    ):
        for path in {container[probe]["httpGet"]["path"] for probe in probes}:
            assert (await asked(address, trusting(ours), path)).status_code == 200, path


async def test_one_key_leaves_room_for_others(tmp_path: Path, ours: TestAuthority, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "dragoman.audit")
    keys = Keys(tmp_path)
    anna, bert = ({"authorization": f"Bearer {keys.issue(role)}"} for role in (Role.CLIENT, Role.ADMIN))
    security = ours.one_way().model_copy(update={"tokens": str(keys.path)})
    engine = TextEngine(step_seconds=0.01)
    async with (
        serving(engine) as (verifier, at),
        verifier_backend(at) as backend,
        gateway_to(backend, settings=GatewaySettings(max_texts_per_key=2), security=security) as (_, address),
        httpx.AsyncClient(
            base_url=f"https://{address}", verify=trusting(ours), trust_env=False, timeout=PATIENCE
        ) as http,
    ):

        async def ask(headers: dict[str, str], **fields: Any) -> httpx.Response:
            return await http.post("/v1/completions", json={**BODY, **fields}, headers=headers)

        long = asyncio.create_task(ask(anna, n=2, max_tokens=1500))
        await eventually(lambda: len(verifier.sessions) == 2)
        refused = await ask(anna)
        assert refused.status_code == 429 and "retry-after" in refused.headers
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert "2 texts of at most 2 at a time, and asks for 1 more" in refused.json()["error"]["message"]
        assert (await ask(bert)).status_code == 200, "of another key"
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        await baseline(verifier, engine)
        assert (await ask(anna, n=2)).status_code == 200, "what has ended is not counted"
        never = await ask(anna, n=3)
        assert never.status_code == 400 and "a key may have 2 texts at a time" in never.json()["error"]["message"]
        await baseline(verifier, engine)
    audited = [record for record in caplog.records if record.name == "dragoman.audit"]
    told = [(record.getMessage(), record.__dict__["facts"]) for record in audited]
    client, admin = "client some-client", "admin some-admin"
    texts = [(facts["by"], facts["texts"]) for event, facts in told if event == "texts"]
    assert texts == [(client, 2), (admin, 1), (client, 2)]
    assert [facts["by"] for event, facts in told if event == "refused"] == [client, client]


async def test_in_mutual_tls_the_certificates_role_counts(ours: TestAuthority):
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=ours.mutual(Role.VERIFIER)) as (_, address),
    ):
        for role, status in ((Role.CLIENT, 200), (Role.ADMIN, 200), (Role.DRAFTER, 403)):
            assert (await asked(address, trusting(ours, ours.mutual(role)))).status_code == status
        with pytest.raises(httpx.TransportError):
            await asked(address, trusting(ours))


async def test_a_certificate_that_was_revoked_is_out(ours: TestAuthority):
    client = ours.mutual(Role.CLIENT)
    ours.folder.revoked_file.write_text("")
    security = ours.mutual(Role.VERIFIER).model_copy(update={"tls_revoked": str(ours.folder.revoked_file)})
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=security) as (_, address),
    ):
        assert (await asked(address, trusting(ours, client))).status_code == 200
        ours.folder.revoke(Identity(Role.CLIENT, "a"))
        assert (await asked(address, trusting(ours, client))).status_code == 401


async def test_https_without_certificates_of_clients(ours: TestAuthority):
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=ours.one_way()) as (_, address),
    ):
        assert (await asked(address, trusting(ours))).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await asked(address, ssl.create_default_context())


async def serial_number(address: Address, context: ssl.SSLContext, name: str) -> str:
    """Of the certificate that is shown to who asks for that name; empty: for none."""
    context.check_hostname = bool(name)
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname=name)
    number = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return number


@pytest.mark.parametrize("name", ["localhost", ""])
async def test_a_renewed_certificate_is_shown_at_the_next_connection(name: str, ours: TestAuthority):
    security = ours.one_way()
    assert security.tls_cert is not None
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=security) as (_, address),
    ):
        before = await serial_number(address, trusting(ours), name)
        assert await serial_number(address, trusting(ours), name) == before
        ours.folder.renew(Path(security.tls_cert), HOUR)
        assert await serial_number(address, trusting(ours), name) != before


async def test_plaintext_is_for_this_machine_alone(unused_backend: Callable[[], Any]):
    with pytest.raises(InputError, match=r"listen=.*the connection is not encrypted"):
        await GatewayServer(unused_backend(), security=Security()).start(Address("0.0.0.0", 0))
    with pytest.raises(InputError, match="comes without TLS"):
        await GatewayServer(unused_backend(), security=Security(tokens="x")).start(Address("127.0.0.1", 0))


async def test_a_port_that_is_taken_is_said(unused_backend: Callable[[], Any]):
    async with gateway_to(unused_backend()) as (_, address):
        with pytest.raises(ConnectionFailedError, match="the port is in use"):
            await GatewayServer(unused_backend()).start(address)


class UnusedBackend:
    """Nothing is asked of it."""

    async def fleet(self) -> Any:
        raise AssertionError("asked for the fleet")


@pytest.fixture
def unused_backend() -> Callable[[], Any]:
    return UnusedBackend
