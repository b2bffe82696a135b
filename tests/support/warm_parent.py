"""`python -m tests.support.warm_parent SOCKET`: has imported what a model needs, and becomes what it is asked for.

A request is a datagram: JSON (``words``: of the command line behind the interpreter, ``environment``, ``folder``,
``session``, ``hears``: signals that its parent is deaf to, ``starts``: whether it will start such processes itself)
with the three standard streams. The answer is the process's number. The process is an orphan from its first moment, so
that the asker, who is a subreaper for that moment, becomes its parent, and sees it end like any child.

One that starts others is given a parent like this one as a child of its own: its children must be its descendants.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from setproctitle import getproctitle, setproctitle

from tests.support import warm_start

#: Not gRPC, whose threads do not outlive a fork; nothing of our own, which is to be imported by who runs it.
MODULES = (
    "torch",
    "transformers.modeling_utils",
    "transformers.masking_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "tokenizers",
    "safetensors.torch",
    "jinja2.sandbox",
    "gguf",
)
_LARGEST = 1 << 17


def _serve(asker: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Until the asker is gone: None. In a process that was asked for: what it is to be, and its streams."""
    while True:
        message, streams, _, _ = socket.recv_fds(asker, _LARGEST, 3)
        if not message:
            return None
        ours, theirs = os.pipe()
        between = os.fork()
        if not between:
            child = os.fork()
            if not child:
                os.close(ours)
                os.close(theirs)
                asker.close()
                return json.loads(message), streams
            os.write(theirs, str(child).encode())
            os.kill(os.getpid(), signal.SIGKILL)  # at once, without what an interpreter does at its end
        os.waitpid(between, 0)
        asker.send(os.read(ours, 20))
        for each in (ours, theirs, *streams):
            os.close(each)


def _with_parent_of_its_own() -> tuple[dict[str, Any], list[int]] | None:
    """In the process that starts others: None. In those that it asks for: what they are to be."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        warm_start.use(ours)
        return None
    ours.close()
    os.setsid()  # not of a terminal, whose signals are for the process
    for number in range(3):  # whoever reads what the process writes waits for nobody else
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    served = _serve(theirs)
    if served is None:
        os._exit(0)
    return served


def _become(wanted: dict[str, Any], streams: list[int]) -> None:
    if wanted["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if wanted["hears"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for heard in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(heard, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if wanted["starts"] and (asked := _with_parent_of_its_own()) is not None:
        _become(*asked)
        return
    _run(*wanted["words"])


def _run(what: str, *arguments: str) -> None:
    """``-m MODULE`` or ``FILE``, with arguments."""
    setproctitle(" ".join((sys.executable, what, *arguments)))
    if what == "-m":
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [what, *arguments]
        sys.path[0] = str(Path(what).parent)
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    getproctitle()  # finds the memory of the command line by the environment, as long as that is untouched
    for name in MODULES:
        importlib.import_module(name)
    asking = socket.socket(fileno=int(sys.argv[1]))
    asking.send(b"ready")
    served = _serve(asking)
    if served is not None:
        _become(*served)
