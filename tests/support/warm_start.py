"""Processes that load a model, without the eight seconds that their imports take: forked from one that has imported.

They are processes like any other: children of the test, with numbers, signals, exit codes, streams and a command line
of their own. What is not like a plain start is started plainly.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
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
#: Of `dragoman`: what starts processes that load a model.
_STARTING = ("demo", "serve")
#: The others load no model.
_COMMANDS = ("verifier", "drafter", "doctor", "check", *_STARTING)
#: `python -c HEARING` and a command line, which runs with signals as they are by default.
HEARING: Final = (
    "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

#: Before any test has changed it.
_AT_FIRST = dict(os.environ)
_FIRST: Final = threading.Lock()


class WarmParent:
    """Asked for one process at a time, by whatever thread. It ends with ``asking``; what it started goes on."""

    def __init__(self, asking: socket.socket) -> None:
        self._socket = asking
        self._prctl = ctypes.CDLL(None).prctl
        self._one_at_a_time = threading.Lock()

    @classmethod
    def started(cls) -> WarmParent:
        """Of this process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.support.warm_parent", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=_AT_FIRST)
        theirs.close()
        ours.recv(16)
        atexit.register(process.wait)
        atexit.register(ours.close)
        return cls(ours)

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
        hears: bool = False,
    ) -> int:
        """The number of a new child that runs what ``words`` of the command line behind the interpreter say.
        ``hears``: signals that this process is deaf to."""
        wanted = {
            "words": list(words),
            "hears": hears,
            "starts": not {*_STARTING}.isdisjoint(words) or words[0].startswith(str(_EXAMPLES)),
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
    return {name: value for name, value in environment.items() if name.startswith(_READ_EARLY) and name != "PYTHONPATH"}


def _loads_a_model(words: Sequence[Any]) -> bool:
    if not all(isinstance(word, str) for word in words) or words[0] != sys.executable:
        return False
    if Path(words[1]).parent == _EXAMPLES:
        return True
    if words[1] != "-m":
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
        words = [args[0], *args[4:]] if HEARING in args else args
        if not (usual and _loads_a_model(words) and (parent := _warm_parent()).suits(environment)):
            super()._execute_child(args, executable, preexec_fn, close_fds, *more)  # type: ignore[misc]
            return
        p2cread, _, _, c2pwrite, _, errwrite = streams
        inherited = [theirs if theirs != -1 else own for own, theirs in enumerate((p2cread, c2pwrite, errwrite))]
        folder = os.fspath(cwd) if cwd is not None else os.getcwd()
        self.pid = parent.start(
            words[1:], inherited, environment=environment, folder=folder, session=session, hears=len(words) < len(args)
        )
        self._child_created = True
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]


_parent: WarmParent | None = None


def use(asking: socket.socket) -> None:
    """In a process that was forked: processes are asked for there from now on."""
    global _parent
    _parent = WarmParent(asking)
    subprocess.Popen = WarmPopen  # type: ignore[misc]


def _warm_parent() -> WarmParent:
    global _parent
    with _FIRST:
        if _parent is None:
            _parent = WarmParent.started()
        return _parent
