"""Commands as children of a test, started so that nothing of the test's own process shows in them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dragoman.cli import main
from tests.support.warm_start import HEARING


def hearing_signals(*arguments: str) -> list[str]:
    """`dragoman ARGUMENTS` with signals as they are by default: who starts a test in the background, or under nohup,
    makes all its children deaf to some.

    Not by ``preexec_fn``: with that, Python forks, and gRPC's threads, which fork handlers start again in the child,
    write to its standard error or end it, before it becomes the command.
    """
    return [sys.executable, "-c", HEARING, sys.executable, "-m", "dragoman", *arguments]


def dragoman(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`dragoman ARGUMENTS` to its end, with what it wrote. ``environment``: variables beside those of the test."""
    return subprocess.run(
        [sys.executable, "-m", "dragoman", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=280,  # a demo takes a minute on a slow machine, and tests run beside other processes
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **environment},
    )


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `dragoman ARGUMENTS` in this process. No traceback is in them."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, errors = capsys.readouterr()
    assert "Traceback" not in errors
    return ended.value.code or 0, out, errors  # type: ignore[return-value]
