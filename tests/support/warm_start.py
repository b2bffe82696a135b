"""Processes that load a model, without the eight seconds that their imports take: forked from one that has imported.

They are processes like any other: children of the test, with numbers, signals, exit codes and streams of their own, and
the same command line, which only the process table does not show. What is not like a plain start is started plainly.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

_PR_SET_CHILD_SUBREAPER = 36
#: Variables that libraries read as they are imported.
_READ_EARLY = (
    "HF_",
    "TRANSFORMERS_",
    "TORCH",
    "PYTORCH_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "KMP_",
    "CUDA_",
    "PYTHON",
    "LD_",
)
#: Of `dragoman`: the others load no model, or start processes that do.
_COMMANDS = ("verifier", "drafter", "doctor", "check")

#: Before any test has changed it.
_AT_FIRST = dict(os.environ)
_FIRST: Final = threading.Lock()


class WarmParent:
    """Asked for one process at a time, by whatever thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._prctl = ctypes.CDLL(None).prctl
        self._one_at_a_time = threading.Lock()
        command = [sys.executable, "-m", "tests.support.warm_parent", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=_AT_FIRST)
        theirs.close()
        self._socket.recv(16)
        atexit.register(self.close)

    def close(self) -> None:
        """It ends; what it started goes on."""
        self._socket.close()
        self._process.wait()

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process with these variables would have imported the same."""
        return _early(environment) == _early(_AT_FIRST)

    def start(
        self,
        words: Sequence[str],
        streams: Sequence[int],
        *,
        environment: Mapping[str, str],
        folder: str,
        session: bool,
    ) -> int:
        """The number of a new child that runs the module and arguments ``words``."""
        wanted = {
            "module": words[0],
            "arguments": list(words[1:]),
            "environment": dict(environment),
            "folder": folder,
            "session": session,
        }
        with self._one_at_a_time:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._socket, [json.dumps(wanted).encode()], list(streams))
                return int(self._socket.recv(20))
            finally:
                self._prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_EARLY)}


def _loads_a_model(words: Sequence[Any]) -> bool:
    if list(words[:2]) != [sys.executable, "-m"] or not all(isinstance(word, str) for word in words):
        return False
    module, *arguments = words[2:]
    if module == "dragoman.end_with_parent":
        module, *arguments = arguments
    return module == "dragoman" and "--model=lookup" not in arguments and not {*_COMMANDS}.isdisjoint(arguments[:2])


class WarmPopen(subprocess.Popen):
    """In place of subprocess.Popen, while tests run."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, *more: Any) -> None:
        pass_fds, cwd, env, _, _, shell, *rest = more
        streams, (_, gid, gids, uid, umask, session, *group) = rest[:6], rest[6:]
        environment = os.environ if env is None else env
        usual = (preexec_fn, tuple(pass_fds), shell, gid, gids, uid) == (None, (), False, None, None, None)
        usual = usual and umask == -1 and group in ([], [-1], [None]) and not isinstance(args, str)
        if not (usual and _loads_a_model(args) and (parent := _warm_parent()).suits(environment)):
            super()._execute_child(args, executable, preexec_fn, close_fds, *more)  # type: ignore[misc]
            return
        p2cread, _, _, c2pwrite, _, errwrite = streams
        inherited = [theirs if theirs != -1 else own for own, theirs in enumerate((p2cread, c2pwrite, errwrite))]
        folder = os.fspath(cwd) if cwd is not None else os.getcwd()
        self.pid = parent.start(args[2:], inherited, environment=environment, folder=folder, session=session)
        self._child_created = True
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]


@functools.cache
def _only_parent() -> WarmParent:
    return WarmParent()


def _warm_parent() -> WarmParent:
    with _FIRST:
        return _only_parent()
