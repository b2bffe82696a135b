"""Bad input ends in one clear line, the right exit code, and never a traceback.

The cases run in this process but for one of each command; how an error leaves a process is the same for all.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from dragoman.client import Client
from tests.support.commands import dragoman, run_here
from tests.support.served_pair import ServedPair

pytestmark = pytest.mark.process


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "latin1.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "folder").mkdir()
    return {"dir": str(tmp_path)}


LOCAL = "--verifier={address}"
#: The port that is taken if none is named may be another's.
ANYWHERE = "--listen=127.0.0.1:0"
#: What is wrong with an option is told all the same: it comes before what runs on this machine.
TAKEN = "--listen={address}"
BAD_INPUT = {
    "unknown model": (3, ["verifier", "--model=smolm2-135m", TAKEN], "did you mean smollm2-135m"),
    "folder that is no model": (3, ["verifier", "--model={dir}/folder", ANYWHERE], "config.json"),
    "missing file": (3, ["verifier", "--model={dir}/absent.gguf", ANYWHERE], "absent.gguf"),
    "corrupt weights": (3, ["verifier", "--model={dir}/broken.gguf", ANYWHERE], "cannot be converted"),
    "unknown drafter model": (3, ["drafter", "--model=nonsense"], "nonsense"),
    "public address": (2, ["verifier", "--model=x", "--listen=0.0.0.0:1"], "--allow-plaintext"),
    "no port": (2, ["verifier", "--model=x", "--listen=127.0.0.1:banana"], "port"),
    "bad width": (2, ["verifier", "--model=x", TAKEN, "--width=9999"], "width=9999"),
    "unreachable verifier": (4, ["generate", "--verifier=127.0.0.1:{free}", "--prompt=x"], "no verifier answers"),
    "resume for no time": (2, ["generate", LOCAL, "--prompt=x", "--resume-for=2"], "resume-for='2'"),
    "a port alone": (4, ["generate", "--verifier={free}", "--prompt=x"], "no verifier answers at 127.0.0.1:{free}"),
    "IPv6 without brackets": (2, ["generate", "--verifier=::1", "--prompt=x"], "stands in brackets"),
    "advertise a port alone": (
        2,
        ["verifier", "--model=x", TAKEN, "--coordinator=1", "--advertise=5"],
        "names no host",
    ),
    "no prompt": (2, ["generate", LOCAL], "exactly one"),
    "two prompts": (2, ["generate", LOCAL, "--prompt=x", "--messages=[]"], "exactly one"),
    "empty prompt": (2, ["generate", LOCAL, "--prompt="], "prompt"),
    "empty file": (2, ["generate", LOCAL, "--prompt-file={dir}/empty.txt"], "is empty"),
    "not UTF-8": (2, ["generate", LOCAL, "--prompt-file={dir}/latin1.txt"], "UTF-8"),
    "absent file": (2, ["generate", LOCAL, "--prompt-file={dir}/absent.txt"], "absent.txt"),
    "messages that are no JSON": (2, ["generate", LOCAL, "--messages=[oops"], "is not JSON"),
    "messages that are no messages": (2, ["generate", LOCAL, '--messages=[{{"role": 1}}]'], "role, content"),
    "one message, no list": (2, ["generate", LOCAL, '--messages={{"role": "user"}}'], "is one message, not a list"),
    "messages that are a string": (2, ["generate", LOCAL, '--messages="x"'], "no list of messages"),
    "messages without contents": (2, ["generate", LOCAL, '--messages=[{{"role": "user"}}]'], "role, content"),
    "a mistyped role": (
        2,
        ["generate", LOCAL, '--messages=[{{"role": "usr", "content": "x"}}]'],
        "messages.role='usr'",
    ),
    "no messages": (2, ["generate", LOCAL, "--messages=[]"], "prompt"),
    "prompt beyond the context": (2, ["generate", LOCAL, "--prompt={long}"], "context length of 512"),
    "negative temperature": (2, ["generate", LOCAL, "--prompt=x", "--temperature=-1"], "temperature=-1"),
    "NaN temperature": (2, ["generate", LOCAL, "--prompt=x", "--temperature=nan"], "temperature=nan"),
    "top-p of 0": (2, ["generate", LOCAL, "--prompt=x", "--top-p=0"], "top_p=0"),
    "huge max-tokens": (2, ["generate", LOCAL, "--prompt=x", "--max-tokens=4294967296"], "max-tokens=4294967296"),
    "negative max-tokens of a demo": (2, ["demo", "--max-tokens=-3"], "max-tokens=-3"),
    "huge top-k": (2, ["generate", LOCAL, "--prompt=x", "--top-k=99999999999"], "top_k=99999999999"),
    "no sessions": (2, ["verifier", "--model=x", "--max-sessions=0"], "max-sessions=0"),
    "no model to convert": (2, ["models", "convert", "org/foo"], "model='org/foo'"),
    "an int8 target": (2, ["verifier", "--model=x", "--dtype=int8"], "dtype='int8'"),
    "negative max-tokens": (2, ["generate", LOCAL, "--prompt=x", "--max-tokens=-1"], "max-tokens=-1"),
    "negative seed": (2, ["generate", LOCAL, "--prompt=x", "--seed=-1"], "seed=-1"),
    "empty stop": (2, ["generate", LOCAL, "--prompt=x", "--stop="], "stop"),
    "unknown rule": (2, ["generate", LOCAL, "--prompt=x", "--rule=luck"], "race"),
    "temperature that is no number": (2, ["generate", LOCAL, "--prompt=x", "--temperature=hot"], "temperature='hot'"),
    "unknown option": (2, ["generate", "--bogus"], "option='--bogus'"),
}


#: One of each command, and the one that draws a progress bar.
AS_A_PROCESS = (
    "unknown model",
    "corrupt weights",
    "unknown drafter model",
    "prompt beyond the context",
    "negative max-tokens of a demo",
)


@pytest.fixture
def names(pair: ServedPair, files: dict[str, str]) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {**files, "address": pair.address, "free": str(port), "long": "heron " * 600}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_line(
    pair: ServedPair, names: dict[str, str], case: str, capsys: pytest.CaptureFixture[str], dragoman_home: Path
):
    code, arguments, words = BAD_INPUT[case]
    written = [argument.format(**names) for argument in arguments]
    if case in AS_A_PROCESS:
        done = dragoman(*written)
        ended, out, errors = done.returncode, done.stdout, done.stderr
    else:
        ended, out, errors = run_here(capsys, *written)
    assert ended == code, errors
    assert words.format(**names) in errors
    assert f"\n{errors}".count("\nerror: ") == 1 and "Traceback" not in errors
    assert not out
    # A mistake at the prompt costs nobody else anything.
    assert asyncio.run(sessions(pair.address)) == (0, 0)


async def sessions(address: str) -> tuple[int, int]:
    async with Client(address) as client:
        described = await client.describe()
        return described.sessions, described.kv_cache_bytes
