"""`dragoman edge` on a machine: what systemd is told, what is shown of it, and what is missing.

In a mount namespace with a copy of /etc, and with a `systemctl` and a `journalctl` that write down what they are told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

TARGET = ("install", "--model=lookup", "--verifier=127.0.0.1:50061", "--bind-paths")
SYSTEMCTL = """\
#!/bin/sh
echo "systemctl $*" >> {told}
case "$*" in
  *Version*) echo "{version}";;
  show*) printf 'ActiveState={state}\\nSubState=running\\nStateChangeTimestamp=Sat 2026-11-28 18:31:02 UTC\\n'
         printf 'UnitFileState=enabled\\nNRestarts=2\\nMemoryCurrent=412000000\\n'
         printf 'ExecMainStatus=3\\nResult=exit-code\\n';;
esac
"""
JOURNALCTL = """\
#!/bin/sh
echo "journalctl $*" >> {told}
echo "2026-11-28T18:31:04+0000 dragoman[712]: drafting for qwen at 127.0.0.1:50061 with lookup"
"""


class Machine:
    """Its /etc is ``etc``. ``run`` is `dragoman edge` on it."""

    def __init__(self, path: Path, *, version: str = "252.38-1~deb12u1", state: str = "active") -> None:
        self.etc, self._told, self._bin = path / "etc", path / "told", path / "bin"
        self._bin.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            (self._bin / name).write_text(text.format(told=self._told, version=version, state=state))
            (self._bin / name).chmod(0o755)
        shutil.copytree("/etc", self.etc, symlinks=True, ignore_dangling_symlinks=True)

    def run(self, *arguments: str, mounted: str = "rw", within: str = "") -> subprocess.CompletedProcess[str]:
        """``within``: a command that runs it."""
        dragoman = f'exec {within} "{sys.executable}" -m dragoman edge "$@"'
        script = f"mount --bind {self.etc} /etc && mount -o remount,bind,{mounted} /etc && {dragoman}"
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *arguments],
            env={**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}", "COLUMNS": "100"},
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def told(self) -> list[str]:
        """What systemctl and journalctl were told since the last time."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        self._told.unlink(missing_ok=True)
        return lines

    def services(self) -> list[str]:
        return [path.name for path in (self.etc / "systemd/system").glob("dragoman*")]


def may_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "--mount", "true"]).returncode == 0


pytestmark = [
    pytest.mark.process,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(not may_mount(), reason="needs root, for mount namespaces"),
]


def test_the_life_of_a_service(tmp_path: Path):
    machine = Machine(tmp_path)
    done = machine.run(*TARGET)
    assert done.returncode == 0 and "is started" in done.stdout, done.stderr
    unit = "dragoman-drafter.service"
    ask = "systemctl show --property=Version --value"
    assert machine.told() == [
        ask, "systemctl daemon-reload", f"systemctl enable {unit}", f"systemctl restart {unit}",
    ]  # fmt: skip
    done = machine.run("status")
    assert done.returncode == 0, done.stderr
    assert f"{unit}: active (running) since Sat 2026-11-28 18:31:02 UTC" in done.stdout
    assert "restarts 2, memory 412 MB, starts with the machine" in done.stdout
    assert "drafting for qwen" in done.stdout and len(done.stdout.splitlines()) <= 20
    machine.told()
    done = machine.run("logs", "-f", "-n", "5")
    assert done.returncode == 0 and "drafting for qwen" in done.stdout
    assert machine.told()[-1] == f"journalctl --unit={unit} --lines=5 --output=short-iso --no-hostname --follow"
    done = machine.run("uninstall")
    assert done.returncode == 0 and machine.services() == [] and not (machine.etc / "dragoman").exists()
    assert machine.told() == [ask, f"systemctl disable --now {unit}", "systemctl daemon-reload"]


def test_written_and_not_started(tmp_path: Path):
    machine = Machine(tmp_path, version="257", state="failed")
    done = machine.run(*TARGET, "--no-start", "--name=edge-1")
    assert done.returncode == 0 and machine.services() == ["dragoman-drafter-edge-1.service"], done.stderr
    assert machine.told()[1:] == ["systemctl daemon-reload", "systemctl enable dragoman-drafter-edge-1.service"]
    assert "RestartSteps=" in (machine.etc / "systemd/system/dragoman-drafter-edge-1.service").read_text()
    done = machine.run("status")
    assert done.returncode == 1 and "it ended: exit code 3" in done.stdout, done.stderr


def test_an_etc_that_cannot_be_written_to(tmp_path: Path):
    machine = Machine(tmp_path)
    done = machine.run(*TARGET, mounted="ro")
    assert done.returncode == 1 and "its file system is read-only" in done.stderr and "--root FOLDER" in done.stderr
    if shutil.which("setpriv") is not None:
        read = "setpriv --reuid=65534 --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
        done = machine.run(*TARGET, within=read)
        assert done.returncode == 1 and "this user may not write there" in done.stderr, done.stderr
        assert "sudo" in done.stderr
    assert machine.services() == [] and "systemctl daemon-reload" not in machine.told()
    done = machine.run(*TARGET, "--dry-run", mounted="ro")
    assert done.returncode == 0 and "ExecStart=" in done.stdout


def test_a_systemd_that_is_too_old(tmp_path: Path):
    machine = Machine(tmp_path, version="245.4-4ubuntu3")
    done = machine.run(*TARGET)
    assert done.returncode == 1 and "systemd 245 gives services no credentials" in done.stderr
    assert machine.services() == []
