"""Bearer tokens: who is let in by them, who is not any more, and that they are told to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drafter_service.client import DrafterClient
from dragoman.client import Client
from dragoman.coordinator_client import CoordinatorClient
from speculation.errors import AccessError, InputError
from tests.support.certificates import TestAuthority
from tests.support.coordinators import coordinating, running
from tests.support.service_drivers import QUICK, SLOW, WARM, drafters, drafting, eventually, serving
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.tls import PROMPT, drafted_text
from transport.identity import Identity, Role
from transport.security import Security
from transport.tokens import TokenFile, authorization_of, find_holder, new_token, own_token, read_tokens
from verifier_service.fleet_member import VerifierMember


class Door:
    """A server's file of tokens, and what its holders are given."""

    def __init__(self, folder: Path, authority: TestAuthority) -> None:
        self.folder, self.authority = folder, authority
        self.path = folder / "tokens"
        self.path.write_text("# none yet\n")

    def server(self, role: Role = Role.VERIFIER) -> Security:
        return self.authority.mutual(role).model_copy(update={"tokens": str(self.path)})

    def admit(self, role: Role) -> Security:
        """Somebody of that role, without a certificate."""
        secret, token = new_token(Identity(role, f"some-{role}"))
        with self.path.open("a") as file:
            file.write(f"{token.line}\n")
        path = self.folder / f"{role}.token"
        path.write_text(f"{secret}\n")
        return self.authority.trusting().model_copy(update={"token_file": str(path)})


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path, TestAuthority(tmp_path / "ours"))


async def test_a_drafted_text_without_a_single_certificate_of_its_own(door: Door):
    drafter, client = door.admit(Role.DRAFTER), door.admit(Role.CLIENT)
    assert await drafted_text(door.server(), drafter, client) == await drafted_text(None, None, None)


async def test_who_has_no_token_or_that_of_another_role_is_not_let_in(door: Door, caplog: pytest.LogCaptureFixture):
    drafter, client, stranger = door.admit(Role.DRAFTER), door.admit(Role.CLIENT), door.authority.trusting()
    unknown = door.folder / "unknown.token"
    unknown.write_text(secret := new_token(Identity(Role.ADMIN, "x"))[0])
    with_unknown = stranger.model_copy(update={"token_file": str(unknown)})
    async with serving(TextEngine(), security=door.server()) as (verifier, address):
        for security, words in (
            (stranger, "a token is needed"),
            (with_unknown, "is not known here"),
            (drafter, "drafter some-drafter may not call Describe"),
        ):
            async with Client(address, security=security) as asking:
                with pytest.raises(AccessError, match=words):
                    await asking.describe()
        for security, words in ((stranger, "a token is needed"), (client, "client some-client may not call Assist")):
            with pytest.raises(AccessError, match=words):
                await DrafterClient(TextDrafter(), address, name="d", backoff=QUICK, security=security).run()
        assert not verifier.describe().drafters
    assert "refused a call of Describe" in caplog.text and secret not in caplog.text


async def test_who_is_taken_out_is_out_without_a_restart(door: Door):
    client = door.admit(Role.CLIENT)
    kept = door.path.read_text()
    async with (
        serving(TextEngine(step_seconds=0.02), plan=SLOW, security=door.server()) as (verifier, address),
        Client(address, security=client) as asking,
    ):
        async with drafting(address, security=door.admit(Role.DRAFTER)):
            await drafters(verifier, 1)
            stream = asking.stream(PROMPT, sampling=WARM, max_tokens=1500, ignore_end=True)
            await anext(stream)
            door.path.write_text("# nobody\n")
            with pytest.raises(AccessError, match="or no longer"):
                await asking.describe()
            with pytest.raises(AccessError, match="or no longer"):  # a second later: streams that run are looked at
                async for _ in stream:
                    pass
        door.path.write_text(kept)
        assert (await asking.describe()).model == "text-target"


async def test_while_the_file_cannot_be_read_nobody_is_let_in(door: Door, caplog: pytest.LogCaptureFixture):
    client = door.admit(Role.CLIENT)
    kept = door.path.read_text()
    serve = serving(TextEngine(), security=door.server())
    async with serve as (_, address), Client(address, security=client) as asking:
        for break_it in (lambda: door.path.write_text("my-secret\n"), door.path.unlink):
            break_it()
            with pytest.raises(AccessError, match="is not known here"):
                await asking.describe()
        assert "nobody is let in until it is mended" in caplog.text and "my-secret" not in caplog.text
        door.path.write_text(kept)
        await asking.describe()


async def test_members_join_by_tokens_as_what_they_are(door: Door):
    steering = coordinating(security=door.server(Role.COORDINATOR))
    async with steering as (server, address), serving(TextEngine()) as (verifier, at):
        common: dict[str, Any] = {"instance": "v", "name": "v", "advertised": str(at)}
        wrong = VerifierMember(verifier, address, security=door.admit(Role.DRAFTER), **common)
        await wrong.run()
        assert isinstance(wrong.refusal, AccessError) and "may not join as a verifier" in str(wrong.refusal)
        right = VerifierMember(verifier, address, security=door.admit(Role.VERIFIER), **common)
        async with running(right), CoordinatorClient(address, security=door.admit(Role.CLIENT)) as asking:
            await eventually(lambda: server.fleet.registry.verifiers)
            assert [member.name for member in (await asking.status()).members] == ["v"]


def test_a_servers_file_holds_no_secret(tmp_path: Path):
    holder = Identity(Role.CLIENT, "anna")
    secret, token = new_token(holder)
    other, _ = new_token(holder)
    assert len(secret) >= 43 and secret != other and secret not in token.line
    (tmp_path / "tokens").write_text(f"# a comment\n\n{token.line}\n")
    assert read_tokens(tmp_path / "tokens") == [token]
    assert find_holder(secret, [token]) == holder
    for wrong in (other, "", secret[:-1], secret + "x", token.digest, secret.upper()):
        assert find_holder(wrong, [token]) is None
    file = TokenFile(str(tmp_path / "tokens"))
    assert file.holder(authorization_of(secret)) == holder
    for header in (None, "", "Bearer ", authorization_of(token.digest), authorization_of("x" * 100_000)):
        with pytest.raises(AccessError):
            file.holder(header)


@pytest.mark.parametrize(
    "line",
    ["anna client", "anna root sha256:" + "0" * 64, "anna client md5:" + "0" * 64, "anna client sha256:00", "a/b"],
)
def test_a_line_that_is_none_is_told_by_its_number_alone(tmp_path: Path, line: str):
    (tmp_path / "tokens").write_text(f"# a comment\n{line}\n")
    with pytest.raises(InputError, match="line 2") as caught:
        read_tokens(tmp_path / "tokens")
    assert line not in str(caught.value)


def test_where_ones_own_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DRAGOMAN_TOKEN", raising=False)
    assert own_token(None) is None
    monkeypatch.setenv("DRAGOMAN_TOKEN", " from-the-environment\n")
    assert own_token(None) == "from-the-environment"
    (tmp_path / "t").write_text("from-a-file\n")
    assert own_token(str(tmp_path / "t")) == "from-a-file"
    for content in ("", "two words", "ä", "x" * 300):
        (tmp_path / "t").write_text(content)
        with pytest.raises(InputError, match=r"token-file=.*holds no token") as caught:
            own_token(str(tmp_path / "t"))
        assert not content or content not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        own_token(str(tmp_path / "nowhere"))
    monkeypatch.setenv("DRAGOMAN_TOKEN", "two words")
    with pytest.raises(InputError, match=r"^DRAGOMAN_TOKEN: holds no token"):
        own_token(None)


async def test_tokens_go_with_tls_alone(door: Door):
    with pytest.raises(InputError, match=r"tokens=.*comes without TLS"):
        async with serving(TextEngine(), security=Security(tokens=str(door.path))):
            pass
    token_file = door.admit(Role.CLIENT).token_file
    with pytest.raises(InputError, match=r"token-file=.*comes without TLS"):
        Client("127.0.0.1:1", security=Security(token_file=token_file))
