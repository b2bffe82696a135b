"""A revoked certificate is out at the next call, its streams soon after, without a restart; one issued later is in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from drafter_service.client import DrafterClient
from dragoman.certificates.folder import read_certificate
from dragoman.certs import run_revoke, run_show
from dragoman.client import Client
from speculation.errors import AccessError, InputError
from tests.support.certificates import HOUR, TestAuthority
from tests.support.service_drivers import QUICK, SLOW, drafters, drafting, eventually, serving
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.tls import PROMPT
from transport import roles
from transport.address import Address
from transport.identity import Identity, Role
from transport.revocations import Revocation, RevocationFile, read_revocations
from transport.security import Security
from transport.watched_file import WatchedFile

EDGE = Identity(Role.DRAFTER, "edge-1")


@pytest.fixture
def ours(tmp_path: Path) -> TestAuthority:
    authority = TestAuthority(tmp_path / "ours")
    return authority


def server(authority: TestAuthority) -> Security:
    revoked = str(authority.folder.revoked_file)
    return authority.mutual(Role.VERIFIER).model_copy(update={"tls_revoked": revoked})


async def test_who_is_revoked_is_out_and_back_with_a_new_certificate(ours: TestAuthority):
    edge, client = ours.mutual(Role.DRAFTER, "edge-1"), ours.mutual(Role.CLIENT)
    async with (
        serving(TextEngine(), security=server(ours)) as (verifier, address),
        Client(address, security=client) as asking,
    ):
        await asking.describe()
        ours.folder.revoke(EDGE)
        with pytest.raises(AccessError, match="certificate of drafter edge-1 is revoked"):
            await DrafterClient(TextDrafter(), address, name="d", backoff=QUICK, security=edge).run()
        await asking.describe()  # another holder
        async with drafting(address, security=ours.mutual(Role.DRAFTER, "edge-2")):
            await drafters(verifier, 1)
        files = ours.folder.files_of(EDGE)
        ours.folder.renew(files.certificate, HOUR)
        await asyncio.sleep(1.1)  # it is valid from the next second on
        async with drafting(address, security=edge):
            await drafters(verifier, 1)


async def test_streams_of_who_is_revoked_end(ours: TestAuthority, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roles, "RECHECK_SECONDS", 0.05)
    edge, client = ours.mutual(Role.DRAFTER, "edge-1"), ours.mutual(Role.CLIENT)
    async with (
        serving(TextEngine(step_seconds=0.02), plan=SLOW, security=server(ours)) as (verifier, address),
        Client(address, security=client) as asking,
    ):
        expected = await asking.complete(PROMPT, max_tokens=60, ignore_end=True, draft=False)
        task = asyncio.create_task(dialling(address, edge))
        await drafters(verifier, 1)
        text = asyncio.create_task(asking.complete(PROMPT, max_tokens=60, ignore_end=True))
        await eventually(lambda: verifier.sessions and len(verifier.sessions[0].drafters) == 1)
        ours.folder.revoked_file.write_text("what is this\n")
        await asyncio.sleep(0.2)
        assert len(verifier.roster.links) == 1, "who is in stays in while the list cannot be read"
        ours.folder.revoked_file.write_text("")
        ours.folder.revoke(EDGE)
        await eventually(lambda: not verifier.roster.links)
        assert (await text).data == expected.data
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        running = asking.stream(PROMPT, max_tokens=500, ignore_end=True)
        await anext(running)
        ours.folder.revoke(Identity(Role.CLIENT, "a"))
        with pytest.raises(AccessError, match="client a is revoked"):
            async for _ in running:
                pass
        await eventually(lambda: not verifier.sessions)


async def test_a_stream_that_has_nothing_to_say_ends_as_well(ours: TestAuthority, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roles, "RECHECK_SECONDS", 0.05)
    engine = TextEngine()
    async with (
        serving(engine, security=server(ours)) as (verifier, address),
        Client(address, security=ours.mutual(Role.CLIENT)) as asking,
    ):
        engine.gate.clear()
        text = asyncio.create_task(asking.complete(PROMPT, max_tokens=60))
        await eventually(lambda: verifier.sessions)
        ours.folder.revoke(Identity(Role.CLIENT, "a"))
        await eventually(lambda: not verifier.sessions[0].drafters.open)
        engine.gate.set()
        await eventually(lambda: not verifier.sessions)
        text.cancel()
        await asyncio.gather(text, return_exceptions=True)
        assert engine.open_slots == 0


async def dialling(address: Address, security: Security) -> None:
    await DrafterClient(TextDrafter(), address, name="d", backoff=QUICK, security=security).run()


async def test_while_the_list_cannot_be_read_nobody_new_is_let_in(ours: TestAuthority):
    async with (
        serving(TextEngine(), security=server(ours)) as (_, address),
        Client(address, security=ours.mutual(Role.CLIENT)) as asking,
    ):
        for unreadable in (ours.folder.revoked_file.unlink, ours.folder.revoked_file.mkdir):
            unreadable()
            with pytest.raises(AccessError, match="cannot be read here"):
                await asking.describe()
        ours.folder.revoked_file.rmdir()
        ours.folder.revoked_file.touch()
        await asking.describe()


def test_what_is_mended_without_a_change_of_the_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "list"
    path.write_text("one")
    broken: list[InputError] = []

    def read(file: Path) -> str:
        if broken:
            raise broken[0]
        return file.read_text()

    watched = WatchedFile(str(path), read)
    assert watched.newest() == "one"
    path.write_text("another")
    broken.append(InputError("list", str(path), "cannot be read: Permission denied", remedy="chmod"))
    assert [watched.newest() for _ in range(3)] == [None] * 3
    broken.clear()
    assert watched.newest() == "another"
    assert caplog.text.count("nobody is let in") == 1


def test_what_was_issued_until_then_is_revoked_also_what_was_renewed_before(ours: TestAuthority):
    first = ours.issue(Role.DRAFTER, "edge-1")
    stolen = first.certificate.read_bytes()
    ours.folder.renew(first.certificate, HOUR)
    second = first.certificate.read_bytes()
    ours.folder.revoke(EDGE)
    listed = RevocationFile(str(ours.folder.revoked_file))
    for pem in (stolen, second):
        with pytest.raises(AccessError, match="revoked"):
            listed.check(EDGE, pem)
        listed.check(Identity(Role.DRAFTER, "edge-2"), pem)
    ours.folder.renew(first.certificate, HOUR)
    listed.check(EDGE, first.certificate.read_bytes())


def test_the_command_and_what_show_says(ours: TestAuthority, capsys: pytest.CaptureFixture[str]):
    ours.issue(Role.DRAFTER, "edge-1")
    assert RevocationFile(str(ours.folder.revoked_file)).readable, "it is there from the beginning"
    run_revoke(ours.folder.path, Role.DRAFTER, "edge-1")
    said = " ".join(capsys.readouterr().out.split())
    assert "certificates of drafter edge-1" in said and "--tls-revoked" in said
    assert not run_show(ours.folder.path, [], None, as_json=True)
    shown = {entry["name"]: entry["verdict"] for entry in json.loads(capsys.readouterr().out)}
    assert shown["edge-1"] == "revoked"
    with pytest.raises(InputError, match="holds no authority"):
        run_revoke(ours.folder.path / "nowhere", Role.DRAFTER, "edge-1")


def test_lines_of_the_file(tmp_path: Path):
    path = tmp_path / "revoked"
    path.write_text("# a remark\n\ndrafter edge-1 2026-11-27T10:00:00Z\ndrafter edge-1 2026-11-26T10:00:00Z\n")
    [(holder, until)] = read_revocations(path).items()
    assert Revocation(holder, until).line == "drafter edge-1 2026-11-27T10:00:00Z"
    for line in (
        "edge-1",
        "pilot edge-1 2026-11-27T10:00:00Z",
        "drafter edge-1 today",
        "drafter ../x 2026-11-27T10:00:00Z",
    ):
        path.write_text(f"# first\n{line}\n")
        with pytest.raises(InputError, match="line 2 is no role, name and time"):
            read_revocations(path)
    with pytest.raises(InputError, match="cannot be read"):
        RevocationFile(str(tmp_path / "none"))


def test_a_list_needs_mutual_tls(ours: TestAuthority):
    here = Address.parse("127.0.0.1:5000", field="listen")
    server(ours).check_listening(here)
    for changed in ({"tls_ca": None}, {"tokens": "tokens"}):
        with pytest.raises(InputError, match="comes without mutual TLS"):
            server(ours).model_copy(update=changed).check_listening(here)


def test_lives_are_as_long_after_a_revocation_as_before(ours: TestAuthority):
    files = ours.issue(Role.DRAFTER, "edge-1")
    before = read_certificate(files.certificate)
    ours.folder.revoke(EDGE)
    for _ in range(3):
        ours.folder.renew(files.certificate, None)
    after = read_certificate(files.certificate)
    ends = abs((after.not_valid_after_utc - before.not_valid_after_utc).total_seconds())
    assert ends < 60 and after.not_valid_before_utc > before.not_valid_before_utc
