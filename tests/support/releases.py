"""The code of an earlier state of this repository, and its commands as child processes."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

from dragoman.processes import ChildProcess, child
from tests.support.repository import ROOT


def unpack(commit: str, folder: Path) -> Path | None:
    """All files of the commit below ``folder``; None where it is not to be had: no git, or a clone without history."""
    command = ["git", "-C", str(ROOT), "archive", commit]
    try:
        archive = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    where = [*within(folder), sys.executable, "-c", "import verifier_service; print(verifier_service.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found.startswith(str(folder)), f"Python takes {found} for it"
    return folder


def within(code: Path) -> tuple[str, ...]:
    """A command that runs Python so that it finds that code before any that is installed."""
    return ("env", f"--chdir={code}", f"PYTHONPATH={code}")


def child_of(code: Path, *arguments: str) -> contextlib.AbstractAsyncContextManager[ChildProcess]:
    """A ``dragoman`` service of that code, stopped at the end."""
    return child(arguments[0], arguments, within=within(code))


def run(code: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A ``dragoman`` command of that code."""
    command = [*within(code), sys.executable, "-m", "dragoman", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
