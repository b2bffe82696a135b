"""TLS as a person sets it up: commands as processes, options and environment, what both sides say."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.certificates import security_options
from dragoman.cli import main
from dragoman.processes import ChildProcess, child
from tests.support.certificates import TestAuthority
from tests.support.commands import dragoman
from tests.support.service_drivers import eventually
from transport.identity import Role
from transport.pem_files import PemFiles
from transport.security import FILES, Security

pytestmark = pytest.mark.process


@pytest.fixture
def ours(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ours")


@pytest.fixture(autouse=True)
def _quiet_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)


def environment(security: Security) -> dict[str, str]:
    return {f"DRAGOMAN_{name.upper()}": value for name in FILES if (value := getattr(security, name)) is not None}


@contextlib.asynccontextmanager
async def verifying(model: Path, security: Security) -> AsyncIterator[tuple[ChildProcess, str]]:
    arguments = ["verifier", f"--model={model}", "--listen=127.0.0.1:0", "--dtype=float32", "--threads=1"]
    async with child("verifier", [*arguments, *security_options(security)]) as started:
        yield started, (await started.ready())["address"]


def said(process: ChildProcess, words: str) -> bool:
    return words in process.last_words


async def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(dragoman, *arguments, **variables)
    return done.returncode, done.stdout, done.stderr


async def test_a_drafted_text_over_mutual_tls_by_options_and_by_environment(tiny_qwen2: Path, ours: TestAuthority):
    asking = ["generate", "--prompt=The heron", "--max-tokens=12", "--json"]
    async with verifying(tiny_qwen2, ours.mutual(Role.VERIFIER)) as (_, address):
        to = f"--verifier={address}"
        drafting = ["drafter", "--model=lookup", to, *security_options(ours.mutual(Role.DRAFTER))]
        async with child("drafter", drafting) as drafter:
            await drafter.ready()
            client = ours.mutual(Role.CLIENT)
            by_options = await run(*asking, to, *security_options(client))
            by_environment = await run(*asking, to, **environment(client))
    assert by_options[0] == by_environment[0] == 0, by_options[2]
    written = [json.loads(out) for _, out, _ in (by_options, by_environment)]
    assert written[0]["token_ids"] == written[1]["token_ids"] and written[0]["speculation"]["drafters_connected"] == 1


async def test_both_sides_say_in_a_line_why_there_is_no_access(tiny_qwen2: Path, ours: TestAuthority, tmp_path: Path):
    other = TestAuthority(tmp_path / "other")
    async with verifying(tiny_qwen2, ours.mutual(Role.VERIFIER)) as (verifier, address):
        asking = ["generate", "--prompt=x", f"--verifier={address}"]
        drafting = ["drafter", "--model=lookup", f"--verifier={address}"]
        for arguments, dialling, words, heard in (
            (asking, Security(), "speaks TLS, and was dialled in plaintext", "WRONG_VERSION_NUMBER"),
            (asking, ours.trusting(), "asks for a certificate, and this side has none", "PEER_DID_NOT_RETURN"),
            (drafting, other.mutual(Role.DRAFTER), "is not signed by the authority of --tls-ca", ""),
            (
                drafting,
                other.mutual(Role.DRAFTER).model_copy(update={"tls_ca": ours.ca}),
                "refused the certificate",
                "CERTIFICATE_VERIFY_FAILED",
            ),
        ):
            code, out, errors = await run(*arguments, *security_options(dialling))
            assert (code, out) == (7, "") and words in errors, errors
            assert [line.partition(":")[0].strip() for line in errors.splitlines()] == ["error", "fix"], errors
            await eventually(functools.partial(said, verifier, heard))
        wrong_role = ours.mutual(Role.DRAFTER)
        code, _, errors = await run(*asking, *security_options(wrong_role))
        assert code == 7 and "drafter a may not call Generate" in errors
        await eventually(lambda: "refused a call of Generate from" in verifier.last_words)


async def test_the_commands_of_a_fleet_take_the_same_options(ours: TestAuthority):
    arguments = ["coordinator", "--listen=127.0.0.1:0", *security_options(ours.mutual(Role.COORDINATOR))]
    async with child("coordinator", arguments) as started:
        at = f"--coordinator={(await started.ready())['address']}"
        client, admin = security_options(ours.mutual(Role.CLIENT)), security_options(ours.mutual(Role.ADMIN))
        for command in (["status"], ["top", "--once"]):
            code, out, errors = await run(*command, at, *client)
            assert code == 0 and "Nobody has joined yet" in out, errors
            code, out, errors = await run(*command, at)
            assert (code, out) == (7, "") and "speaks TLS" in errors
        code, _, errors = await run("drain", "box", at, *client)
        assert code == 7 and "may not call Drain" in errors
        code, _, errors = await run("drain", "box", at, *admin)
        assert code == 2 and "box" in errors, "it is let in, and there is no such verifier"


def mistakes(folder: Path) -> Iterator[tuple[list[str], str]]:
    nowhere = folder / "nowhere.pem"
    verifier, drafter = ["verifier", "--model=x"], ["drafter", "--model=lookup"]
    yield [*verifier, "--listen=0.0.0.0:1"], "can be reached by other machines"
    yield [*verifier, "--trusted-drafters=edge-*"], "trusted-drafters='edge-*': tells drafters apart"
    yield [*verifier, "--prompts-to=trusted"], "prompts-to='trusted': tells drafters apart"
    yield [*verifier, "--tls-cert=a"], "tls-cert='a': comes without --tls-key"
    yield [*verifier, "--tls-ca=a"], "tls-ca='a': comes without a certificate of this server's own"
    yield [*verifier, f"--tls-cert={nowhere}", "--tls-key=a"], "nowhere.pem': cannot be read"
    yield [*verifier, "--coordinator=10.0.0.1"], "coordinator='10.0.0.1:50060': is another machine"
    yield [*drafter, "--verifier=10.0.0.1"], "verifier='10.0.0.1:50061': is another machine"
    yield [*drafter, "--coordinator=10.0.0.1"], "coordinator='10.0.0.1:50060': is another machine"
    yield [*drafter, f"--tls-ca={nowhere}"], "nowhere.pem': cannot be read"
    yield ["generate", "--prompt=x", "--verifier=10.0.0.1"], "is another machine"
    yield ["status", "--coordinator=10.0.0.1"], "is another machine"
    yield ["top", "--once", "--tls-cert=a", "--tls-key=b"], "comes without an authority"


def test_mistakes_are_told_before_anything_is_loaded_or_dialled(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments, words in mistakes(tmp_path):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        errors = capsys.readouterr().err
        assert ended.value.code == 2 and words in errors and "fix: " in errors, errors


def test_the_demo_is_on_loopback_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAGOMAN_TLS_CA", "nowhere.pem")
    monkeypatch.setattr("dragoman.demo.run_demo", lambda config, as_json: "DRAGOMAN_TLS_CA" not in os.environ)
    with pytest.raises(SystemExit) as ended:
        main(["demo"])
    assert not ended.value.code


def test_the_commands_of_the_page_about_security_fit_together_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Those that make certificates are run; the files that the others name must be there then, and fit together."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
    blocks = [block.group(1).splitlines() for block in re.finditer(r"^```\n(.*?)^```$", page, re.M | re.S)]
    making, using, with_tokens, trusting = blocks
    assert len(making) == 5 and len(using) == 4 and len(with_tokens) == 5 and len(trusting) == 1
    monkeypatch.chdir(tmp_path)
    for line in [*making, *(line for line in with_tokens if line.startswith("dragoman "))]:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(line)[1:])
        assert not ended.value.code, capsys.readouterr().err
    for line in [*using, *trusting]:
        words = shlex.split(line)
        given = {name: words[words.index(f"--{name.replace('_', '-')}") + 1] for name in FILES}
        assert PemFiles(Security.model_validate(given)).newest().certificate
