"""This machine's systemd, by its own commands."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Final

from speculation.errors import DragomanError

_REMEDY: Final = "`dragoman edge` is for machines that systemd runs; --root FOLDER and --dry-run do without it"


def manager_version() -> int:
    """Of the systemd that runs. Raises DragomanError if none does."""
    said = systemctl("show", "--property=Version", "--value")
    found = re.search(r"\d+", said)
    if found is None:
        raise DragomanError(f"systemctl tells no version: {said.strip()!r}", remedy=_REMEDY)
    return int(found[0])


def systemctl(*arguments: str) -> str:
    """What it writes. Raises DragomanError if it is not there, systemd does not run, or it refuses."""
    try:
        done = _run("systemctl", *arguments)
    except FileNotFoundError as error:
        raise DragomanError("there is no systemd on this machine: systemctl is not found", remedy=_REMEDY) from error
    if done.returncode != 0:
        words = next(iter((done.stderr.strip() or done.stdout.strip()).splitlines()), f"exit code {done.returncode}")
        if "not been booted with systemd" in words or "Failed to connect to bus" in words:
            raise DragomanError(f"systemd does not run on this machine: {words}", remedy=_REMEDY)
        remedy = "see `dragoman edge logs`; root may do all of it: sudo"
        raise DragomanError(f"systemctl {' '.join(arguments)} failed: {words}", remedy=remedy)
    return done.stdout


def properties(unit: str, *names: str) -> dict[str, str]:
    """Of a unit. Raises DragomanError."""
    said = systemctl("show", unit, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def last_words(unit: str, lines: int) -> str:
    """The end of its journal, or why that cannot be read."""
    try:
        done = _run("journalctl", *_of(unit, lines), "--no-pager")
    except FileNotFoundError:
        return "journalctl is not found"
    return (done.stdout.strip() or done.stderr.strip()).removesuffix("-- No entries --").strip()


def show_journal(unit: str, lines: int, *, follow: bool) -> int:
    """To this process's standard output; journalctl's exit code. Raises DragomanError if it is not there."""
    more = ["--follow"] if follow else ["--no-pager"]
    try:
        return subprocess.run(["journalctl", *_of(unit, lines), *more], check=False).returncode
    except FileNotFoundError as error:
        raise DragomanError("there is no systemd on this machine: journalctl is not found", remedy=_REMEDY) from error


def _of(unit: str, lines: int) -> list[str]:
    return [f"--unit={unit}", f"--lines={lines}", "--output=short-iso", "--no-hostname"]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    plain = {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | plain)
