"""`dragoman tokens` as a person uses it, and a token from its making to its end."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.support.commands import run_here
from transport.identity import Identity, Role
from transport.tokens import find_holder, read_tokens


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `dragoman tokens`."""
    return run_here(capsys, "tokens", *arguments)


def test_a_token_is_told_once_and_its_digest_kept(capsys: pytest.CaptureFixture[str]):
    code, out, errors = run(capsys, "add", "client", "anna")
    secret = out.strip()
    assert code == 0 and "client anna is in tokens" in errors and secret not in errors
    assert secret not in Path("tokens").read_text() and stat.S_IMODE(Path("tokens").stat().st_mode) == 0o600
    assert find_holder(secret, read_tokens(Path("tokens"))) == Identity(Role.CLIENT, "anna")
    code, out, errors = run(capsys, "add", "drafter", "edge-1", "--to=edge-1.token")
    assert (code, out) == (0, "") and "the token is in edge-1.token" in errors
    other = Path("edge-1.token").read_text().strip()
    assert stat.S_IMODE(Path("edge-1.token").stat().st_mode) == 0o600 and other not in errors
    assert find_holder(other, read_tokens(Path("tokens"))) == Identity(Role.DRAFTER, "edge-1")
    code, out, _ = run(capsys, "list")
    assert [line.split() for line in out.splitlines()] == [["name", "role"], ["anna", "client"], ["edge-1", "drafter"]]
    assert json.loads(run(capsys, "list", "--json")[1])[1] == {"name": "edge-1", "role": "drafter"}


def test_who_is_removed_has_none(capsys: pytest.CaptureFixture[str]):
    secrets = [run(capsys, "add", role, "anna")[1].strip() for role in ("client", "admin")]
    kept = run(capsys, "add", "client", "ben")[1].strip()
    code, out, _ = run(capsys, "remove", "anna")
    assert code == 0 and "anna is out: 2 tokens taken from tokens" in out
    tokens = read_tokens(Path("tokens"))
    assert [find_holder(secret, tokens) for secret in secrets] == [None, None]
    assert find_holder(kept, tokens) == Identity(Role.CLIENT, "ben")
    assert [path.name for path in Path().iterdir()] == ["tokens"], "nothing is left over"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["add", "client", "anna"], "name='anna': has a token as a client already"),
        (["add", "root", "ben"], "role='root': is not one of"),
        (["add", "client", "a b"], "name='a b': is no name"),
        (["add", "client", "ben", "--to=there"], "to='there': cannot be written: File exists"),
        (["add", "client", "ben", "--tokens=no/such/folder"], "tokens='no/such/folder': cannot be written"),
        (["remove", "ben"], "name='ben': has no token"),
        (["remove", "anna", "--tokens=nowhere"], "tokens='nowhere': cannot be read: No such file"),
        (["list", "--tokens=there"], "tokens='there': line 1 is no name, role and digest"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str):
    run(capsys, "add", "client", "anna")
    Path("there").write_text("something\n")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    code, out, errors = run(capsys, *arguments)
    assert (code, out) == (2, "") and words in errors and "fix: " in errors
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before
