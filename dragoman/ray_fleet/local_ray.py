"""A Ray of one's own on this machine, where there is no cluster: started for `fleet up`, ended by `fleet down`.

It outlives the command that starts it, and has no dashboard, which takes longer to start than all the rest. What has
to be known of it stands in a file in DRAGOMAN_HOME. It wants a token, which lies there as well: whoever reaches Ray's
ports may run any code, and a machine has several users. All of it listens on 127.0.0.1 only, the fleet's own servers,
which are not encrypted, as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from dragoman.ray_fleet import loopback_node
from dragoman.ray_fleet.loopback_node import HOST, stay_on_loopback
from dragoman.ray_fleet.probe import MODE, probe
from language_models.conversions import home, writing
from speculation.errors import ConnectionFailedError, DragomanError
from transport.address import Address

#: Seconds for the start of a node, and for its end before it is killed.
_START, _STOP = 60.0, 15.0
#: In which a node whose processes end ends as well.
_NOTICED = 3.0


@dataclass(frozen=True, slots=True)
class _Process:
    """``born``: tells it apart from a later process of the same number."""

    pid: int
    born: float

    @classmethod
    def of(cls, pid: int) -> _Process:
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if process.create_time() == self.born and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass(frozen=True, slots=True)
class LocalRay:
    """A Ray cluster of this machine alone.

    ``auth_mode``: what RAY_AUTH_MODE was when it was started; the first process is the head.
    """

    address: Address
    auth_mode: str
    processes: tuple[_Process, ...]

    @classmethod
    def running(cls) -> Self | None:
        """The one that was started and has not ended."""
        try:
            noted = json.loads(_note().read_text())
            processes = tuple(_Process(**process) for process in noted["processes"])
            found = cls(Address(**noted["address"]), noted["auth_mode"], processes)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found.processes and found.processes[0].find() else None

    @classmethod
    def start(cls, nodes: Sequence[Mapping[str, str]], *, num_cpus: int) -> Self:
        """One node for each set of labels, the first one the head; each with so many logical CPUs.

        Raises DragomanError with Ray's last words if it does not start.
        """
        mode = os.environ.get(MODE) or "token"
        _token(mode)
        started: list[_Process] = []
        # Ray Client's has a fixed port by default, at which another Ray may listen.
        port, client_port = _free_ports(2)
        address = Address(HOST, port)
        try:
            for number, labels in enumerate(nodes):
                arguments = [f"--num-cpus={num_cpus}", f"--node-ip-address={address.host}"]
                head = ["--head", f"--port={port}", "--include-dashboard=false"]
                head.append(f"--ray-client-server-port={client_port}")
                arguments += [f"--address={address}"] if number else head
                if labels:
                    arguments.append(f"--labels={','.join(f'{name}={value}' for name, value in labels.items())}")
                log = _log_of(number)
                started.append(_start_node(arguments, log))
                if number == 0:
                    _wait_for(address, started[0], log)
            found = cls(address, mode, tuple(started))
            with writing(home()):
                _note().write_text(json.dumps(asdict(found)))  # without it nobody could stop them
        except BaseException:
            cls(address, mode, tuple(started)).stop()
            raise
        return found

    def use(self) -> Address:
        """Set this process's environment for it; returns its address."""
        _token(self.auth_mode)
        stay_on_loopback()
        return self.address

    def last_words(self) -> str | None:
        """Of a node that ended by itself, as may happen to one that starts on a busy machine; None: all are there.

        Waits for a moment, as a node looks at its processes once a second.
        """
        until = time.monotonic() + _NOTICED
        while time.monotonic() < until:
            for number, process in enumerate(self.processes):
                if process.find() is None:
                    words = _log_of(number).read_text(errors="replace").strip().splitlines()[-8:]
                    return "\n".join(words) or "it said nothing"
            time.sleep(0.2)
        return None

    def stop(self) -> None:
        """End it, with all that runs in it."""
        for process in reversed(self.processes):  # the head last, or the others complain
            found = process.find()
            if found is None:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                _end([found, *found.children(recursive=True)])
        _note().unlink(missing_ok=True)


def _end(family: Sequence[psutil.Process]) -> None:
    """The first one, which takes the others along, or all of them."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family[0].send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_STOP)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def _note() -> Path:
    return home() / "ray.json"


def _log_of(number: int) -> Path:
    return home() / f"ray-node-{number}.log"


def _token(mode: str) -> None:
    """Set the environment so that this process, and what it starts, use ``mode``, with a token of our own if needed."""
    os.environ[MODE] = mode
    if mode != "token" or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = home() / "ray-token"
    with writing(home()):
        home().mkdir(parents=True, exist_ok=True)
        with (
            contextlib.suppress(FileExistsError),
            open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file,
        ):
            file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _free_ports(count: int) -> list[int]:
    """Different ones."""
    with contextlib.ExitStack() as opened:
        found = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in found]


def _start_node(arguments: list[str], log: Path) -> _Process:
    command = [sys.executable, "-m", loopback_node.__name__, "start", "--block", "--disable-usage-stats", *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        node = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    return _Process.of(node.pid)


def _wait_for(address: Address, head: _Process, log: Path) -> None:
    until = time.monotonic() + _START
    while True:
        if head.find() is None:
            words = "\n".join(log.read_text(errors="replace").strip().splitlines()[-8:])
            raise DragomanError(f"Ray did not start here:\n{words}", remedy=f"{log} has all of it")
        try:
            probe(address)
            return
        except ConnectionFailedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
