"""The service itself: started as its unit says, with a key that never left its machine, it drafts for a verifier."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from dragoman.cli import app, main
from dragoman.client import Client
from speculation.protocol.messages import Prompt
from tests.support.certificates import TestAuthority
from tests.support.edge_units import InstalledUnit
from tests.support.repository import ROOT
from tests.support.service_drivers import SLOW, WARM, drafters, serving
from tests.support.system_call_filter import allowed_calls, there_is_one
from tests.support.text_engine import TextEngine
from transport.identity import Role

PROMPT = Prompt(text="a story: a story: a story: ")


def done(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code, arguments


def installed(root: Path, authority: TestAuthority, verifier: str) -> InstalledUnit:
    """As a person does it: a request there, a certificate here, and again there."""
    options = ["edge", "install", "--model=lookup", f"--verifier={verifier}", "--name=edge-1", "--bind-paths"]
    done(*options, "--request", f"--root={root}")
    folder = root / "etc/dragoman/drafter-edge-1"
    key = (folder / "key.pem").read_bytes()
    assert not list(root.rglob("multi-user.target.wants/*")), "without a certificate it is not started"
    done("certs", "issue", f"--request={folder / 'request.csr'}", f"--dir={authority.folder.path}")
    certificate = authority.folder.path / "drafter-edge-1.pem"
    done(*options, f"--tls-ca={authority.ca}", f"--tls-cert={certificate}", f"--root={root}")
    assert (folder / "key.pem").read_bytes() == key, "it is the key that was made there"
    assert list(root.rglob("multi-user.target.wants/*"))
    assert not any(key in path.read_bytes() for path in authority.folder.path.iterdir())
    return InstalledUnit(root, "edge-1")


async def drafts(tmp_path: Path, *, filtered: bool) -> None:
    """Installs it, starts it as systemd would, has it draft, and stops it."""
    authority, credentials = TestAuthority(tmp_path / "authority"), tmp_path / "credentials"
    async with serving(TextEngine(), plan=SLOW, security=authority.mutual(Role.VERIFIER)) as (verifier, address):
        unit = installed(tmp_path / "root", authority, f"localhost:{address.port}")
        unit.load_credentials(credentials)
        assert sorted(path.name for path in credentials.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
        within = [sys.executable, "-m", "tests.support.system_call_filter", str(unit.path)] if filtered else []
        process = await asyncio.create_subprocess_exec(
            *within,
            *unit.command(credentials),
            # Where the tests run from a checkout, the program finds our packages by its path.
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
            | unit.environment(credentials, tmp_path / "data"),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await drafters(verifier, 1)
            assert [each.name for each in verifier.describe().drafters] == ["edge-1"]
            async with Client(address, security=authority.mutual(Role.CLIENT)) as client:
                assert (await client.complete(PROMPT, sampling=WARM, max_tokens=40)).data
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = await process.communicate()
    assert process.returncode == 0 and b"drafting for" in said, said.decode()


@pytest.mark.process
async def test_it_drafts_with_the_command_and_environment_of_its_unit(tmp_path: Path):
    await drafts(tmp_path, filtered=False)


@pytest.mark.process
@pytest.mark.skipif(not there_is_one(), reason="needs libseccomp and systemd-analyze")
async def test_it_drafts_with_the_system_calls_that_its_unit_allows(tmp_path: Path):
    await drafts(tmp_path, filtered=True)


@pytest.mark.process
@pytest.mark.skipif(not there_is_one(), reason="needs libseccomp and systemd-analyze")
def test_the_filter_keeps_out_what_it_should(tmp_path: Path):
    done("edge", "install", "--model=lookup", "--verifier=127.0.0.1", "--bind-paths", f"--root={tmp_path}")
    unit = InstalledUnit(tmp_path)
    assert {"mount", "reboot", "setuid", "sched_setaffinity"}.isdisjoint(allowed_calls(unit))
    code = (
        "import mmap, os, socket\n"
        "for call in (lambda: mmap.mmap(-1, 4096, prot=7), lambda: os.sched_setaffinity(0, {0}),\n"
        "             lambda: socket.socket(socket.AF_PACKET), lambda: os.chroot('/'), socket.socket):\n"
        "    try: call(); print('let through')\n"
        "    except PermissionError: print('refused')\n"
    )
    command = [sys.executable, "-m", "tests.support.system_call_filter", str(unit.path), sys.executable, "-c", code]
    tried = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert tried.stdout.split("\n") == [*["refused"] * 4, "let through", ""], tried.stderr


@pytest.mark.parametrize("coordinator", [False, True])
def test_the_command_line_takes_what_the_unit_says(tmp_path: Path, monkeypatch, coordinator: bool):
    authority = TestAuthority(tmp_path / "authority")
    files = authority.issue(Role.DRAFTER)
    tls = [f"--tls-ca={authority.ca}", f"--tls-cert={files.certificate}", f"--tls-key={files.key}"]
    settings = ["--threads=3", "--max-sessions=7", "--device=cpu", "--dtype=int8", "--verbose", "--trust-remote-code"]
    settings.append("--prefix-memory=64MiB")
    dialled = ["--coordinator=head:50060"] if coordinator else ["--verifier=gpu-box:50061"]
    done("edge", "install", "--model=smollm2-135m", *dialled, *tls, *settings, "--bind-paths", f"--root={tmp_path}")
    unit = InstalledUnit(tmp_path)
    credentials = tmp_path / "credentials"
    program, *arguments = unit.command(credentials)
    assert Path(program).name == "dragoman"
    for name, value in unit.environment(credentials, tmp_path / "data").items():
        monkeypatch.setenv(name, value)
    group: Any = typer.main.get_command(app)
    outer = group.make_context("dragoman", list(arguments), auto_envvar_prefix="DRAGOMAN")
    name, command, rest = group.resolve_command(outer, list(arguments))
    taken = command.make_context(name, rest, parent=outer).params
    wanted = {
        "model": "smollm2-135m",
        "verifier": None if coordinator else "gpu-box:50061",
        "coordinator": "head:50060" if coordinator else None,
        "threads": 3,
        "max_sessions": 7,
        "prefix_memory": "64MiB",
        "device": "cpu",
        "dtype": "int8",
        "verbose": True,
        "trust_remote_code": True,
        "tls_cert": str(credentials / "cert.pem"),
        "tls_key": str(credentials / "key.pem"),
        "tls_ca": str(credentials / "ca.pem"),
    }
    assert name == "drafter" and {key: taken[key] for key in wanted} == wanted
