"""The launcher's parts with made-up nodes and actors: no cluster is started."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from dragoman.ray_fleet import cluster
from dragoman.ray_fleet.calls import Outcome, ask, ask_until
from dragoman.ray_fleet.commands import run_up, up_on_own_ray
from dragoman.ray_fleet.config import CoordinatorSettings, DrafterGroup, FleetFile, Target
from dragoman.ray_fleet.labels import fulfils
from dragoman.ray_fleet.launcher import Launcher, at_once
from dragoman.ray_fleet.local_ray import LocalRay
from dragoman.ray_fleet.nodes import Node, problem_of, wait_for_nodes
from dragoman.ray_fleet.places import HEAD
from dragoman.ray_fleet.standing import Standing
from speculation.errors import ConnectionFailedError, DragomanError, InputError, UnknownModelError
from transport.address import Address

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")


# ---- calls --------------------------------------------------------------------------------------------------------


def fake_ray(*answers: object) -> Any:
    """Its ``get`` gives or raises these, one after the other, the last again and again."""
    left = list(answers)

    def get(reference: object, *, timeout: float) -> object:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return SimpleNamespace(get=get, exceptions=ray.exceptions)


def call() -> None:
    """An actor's method."""


AWAY = ray.exceptions.ActorUnavailableError("the node is cut off", b"0" * 16)
DEAD = ray.exceptions.ActorDiedError()


def test_an_actor_that_is_away_is_told_apart_from_one_that_is_dead():
    assert ask(fake_ray(7), call, 1).value == 7
    away, dead = ask(fake_ray(AWAY), call, 1), ask(fake_ray(DEAD), call, 1)
    assert (away.outcome, dead.outcome) == (Outcome.AWAY, Outcome.GONE)
    assert "cut off" in away.why and "died" in dead.why
    assert ask(fake_ray(ray.exceptions.GetTimeoutError("late")), call, 1).outcome is Outcome.SILENT
    unschedulable = ray.exceptions.ActorUnschedulableError("no such node")
    assert ask(fake_ray(unschedulable), call, 1).outcome is Outcome.GONE


def test_only_one_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dragoman.ray_fleet.calls._PAUSE", 0.01)
    until = time.monotonic() + 5
    assert ask_until(fake_ray(AWAY, AWAY, "here"), call, until).value == "here"
    assert ask_until(fake_ray(AWAY, DEAD, "here"), call, until).outcome is Outcome.GONE
    assert ask_until(fake_ray(AWAY), call, time.monotonic() + 0.05).outcome is Outcome.AWAY


def test_an_error_of_ours_comes_through_an_actor_as_it_was():
    failed = ray.exceptions.RayTaskError("ready", "traceback", UnknownModelError("no model 'x'", remedy="y"))
    with pytest.raises(UnknownModelError) as caught:
        ask(fake_ray(failed), call, 1)
    assert caught.value.exit_code == 3 and caught.value.remedy == "y"
    with pytest.raises(DragomanError, match="KeyError"):
        ask(fake_ray(ray.exceptions.RayTaskError("ready", "traceback", KeyError("x"))), call, 1)


# ---- nodes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, condition, expected",
    [
        ("edge", "edge", True),
        ("cloud", "edge", False),
        (None, "edge", False),
        ("cloud", "!edge", True),
        (None, "!edge", True),
        ("edge", "!edge", False),
        ("b", "in(a, b)", True),
        (None, "in(a,b)", False),
        ("c", "!in(a,b)", True),
    ],
)
def test_label_selectors(value: str | None, condition: str, expected: bool):
    assert fulfils(value, condition) is expected


def told(labels: dict[str, str], **resources: float) -> dict:
    return {
        "Alive": True,
        "NodeManagerAddress": "10.0.0.1",
        "Labels": {"ray.io/node-id": "n", **labels},
        "Resources": {"CPU": 4.0, **resources},
    }


def test_a_missing_label_or_gpu_says_what_is_wanted_and_what_is_there():
    nodes = [Node.of(told({"role": "cloud", "zone": "a"})), Node.of(told({}, GPU=1.0))]
    problem = problem_of(DrafterGroup(name="d", model="m").place, nodes)
    assert "no node carries the label role=edge" in problem
    assert "10.0.0.1 (role=cloud, zone=a; 4 CPU, 0 GPU)" in problem and "no label; 4 CPU, 1 GPU" in problem
    gpus = Target(name="t", model="m", num_gpus=1, labels={"role": "cloud"})
    assert "needs 1 GPU, more than any node with its labels" in problem_of(gpus.place, nodes)
    assert problem_of(Target(name="t", model="m", num_gpus=0.5).place, nodes) == ""
    assert "needs 5 CPU" in problem_of(Target(name="t", model="m", num_cpus=5).place, nodes)
    assert "no node" in problem_of(Target(name="t", model="m").place, [])


def test_the_coordinator_needs_a_place_too():
    """The head node, unless its labels name another."""
    head, other = Node.of(told({}, **{HEAD: 1.0})), Node.of(told({"role": "control"}))
    default, labelled = CoordinatorSettings(), CoordinatorSettings(labels={"role": "control"})
    assert problem_of(default.place, [head]) == "" != problem_of(default.place, [other])
    assert problem_of(labelled.place, [other]) == "" != problem_of(labelled.place, [head])
    assert "needs 8 CPU, more than the head node" in problem_of(CoordinatorSettings(num_cpus=8).place, [head, other])
    fleet = FleetFile(coordinator=labelled, targets=[Target(name="t", model="m")], drafters=[])
    assert [place.name for place in fleet.places] == ["coordinator", "t"]


def test_waiting_for_a_node_that_comes_or_does_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dragoman.ray_fleet.nodes._POLL", 0.01)
    looks = []

    def nodes() -> list[dict]:
        looks.append(1)
        return [told({"role": "edge"} if len(looks) > 3 else {})]

    notes: list[str] = []
    place = DrafterGroup(name="d", model="m").place
    coming: Any = SimpleNamespace(nodes=nodes)
    wait_for_nodes(coming, [place], 5, note=notes.append)
    assert len(notes) == 1 and "waiting for a node for d" in notes[0]
    bare: Any = SimpleNamespace(nodes=lambda: [told({})])
    with pytest.raises(DragomanError, match="waited") as caught:
        wait_for_nodes(bare, [place], 0.05)
    assert "--labels=role=edge" in caught.value.remedy
    with pytest.raises(DragomanError, match="role=edge") as caught:
        wait_for_nodes(bare, [place], 0)
    assert "waited" not in caught.value.message


def test_one_that_is_stopped_half_way_lets_what_is_leaving_leave_and_says_so():
    leaving, told = threading.Event(), threading.Event()
    gone, notes = [], []

    def remove(number: int) -> None:
        if number == 0:
            assert leaving.wait(60)
            raise KeyboardInterrupt
        leaving.set()
        assert told.wait(60)
        gone.append(number)

    def note(words: str) -> None:
        notes.append(words)
        told.set()

    with pytest.raises(KeyboardInterrupt):
        at_once(remove, [0, 1], note=note)
    assert gone == [1] and notes == ["stopping, once what is on its way out is gone"]


def test_a_taken_port_of_the_gateway_is_told_before_a_ray_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def start(*arguments: object, **options: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(cluster, "find", lambda address: None)
    monkeypatch.setattr("dragoman.ray_fleet.commands.LocalRay.start", start)
    path = tmp_path / "fleet.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path.write_text(f"targets:\n  - name: a\n    model: m\ngateway:\n  port: {port}\n")
        with pytest.raises(ConnectionFailedError, match=f":{port}: the port is in use") as caught:
            run_up(path, "auto", wait_seconds=None, as_json=False)
    assert "another gateway.port" in caught.value.remedy


def test_a_local_node_that_ended_is_quoted(dragoman_home: Path):
    dragoman_home.mkdir()
    ours, other = psutil.Process(), subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = psutil.Process(other.pid).create_time()
    processes = [{"pid": ours.pid, "born": ours.create_time()}, {"pid": other.pid, "born": born}]
    note = {"address": {"host": "127.0.0.1", "port": 1}, "auth_mode": "token", "processes": processes}
    (dragoman_home / "ray.json").write_text(json.dumps(note))
    (dragoman_home / "ray-node-1.log").write_text("begins\nSome Ray subprocesses exited unexpectedly: raylet\n")
    local = LocalRay.running()
    assert local is not None and local.last_words() is None
    other.communicate(b"")
    assert local.last_words() == "begins\nSome Ray subprocesses exited unexpectedly: raylet"


class OwnRay:
    """In place of the local Ray that `fleet up` starts; some of its nodes end by themselves."""

    def __init__(self, ends: list[bool]) -> None:
        self.ends = ends
        self.calls: list[str] = []

    def start(self, nodes: object, *, num_cpus: int) -> OwnRay:
        self.calls.append("start")
        return self

    def use(self) -> Address:
        return Address("127.0.0.1", 1)

    def last_words(self) -> str | None:
        return "raylet: killed" if self.ends[len(self.calls) // 2] else None

    def stop(self) -> None:
        self.calls.append("stop")

    def up(self, fleet: FleetFile, *, wait_seconds: float) -> list[Standing]:
        if self.ends[len(self.calls) // 2]:
            raise DragomanError("edge has no place")
        return []


@pytest.mark.parametrize(
    ("ends", "problem", "calls"),
    [
        ([False], None, ["start"]),
        ([True, False], None, ["start", "stop", "start"]),
        ([True, True], "ended by itself.*raylet: killed", ["start", "stop", "start", "stop"]),
    ],
)
def test_a_node_of_the_own_ray_that_ends_is_started_once_more(
    monkeypatch: pytest.MonkeyPatch, ends: list[bool], problem: str | None, calls: list[str]
):
    own = OwnRay(ends)
    monkeypatch.setattr("dragoman.ray_fleet.commands.LocalRay", own)
    monkeypatch.setattr("dragoman.ray_fleet.commands._launcher", lambda address: contextlib.nullcontext(own))
    fleet = FleetFile(targets=[Target(name="t", model="m")])
    if problem is None:
        assert up_on_own_ray(fleet, 0.0) == (own.use(), [])
    else:
        with pytest.raises(DragomanError, match=re.compile(problem, re.DOTALL)):
            up_on_own_ray(fleet, 0.0)
    assert own.calls == calls


def test_what_fails_for_another_reason_is_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    own = OwnRay([False])
    monkeypatch.setattr(own, "up", lambda fleet, wait_seconds: (_ for _ in ()).throw(DragomanError("no such model")))
    monkeypatch.setattr("dragoman.ray_fleet.commands.LocalRay", own)
    monkeypatch.setattr("dragoman.ray_fleet.commands._launcher", lambda address: contextlib.nullcontext(own))
    with pytest.raises(DragomanError, match="no such model"):
        up_on_own_ray(FleetFile(targets=[Target(name="t", model="m")]), 0.0)
    assert own.calls == ["start"], "and it stays, for `fleet down` or another `up`"


# ---- sizes --------------------------------------------------------------------------------------------------------


def test_a_group_is_named_or_the_only_one_of_its_kind():
    fleet = FleetFile(
        targets=[Target(name="t", model="m"), Target(name="u", model="m")], drafters=[DrafterGroup(name="d", model="m")]
    )
    launcher = Launcher(ray)
    for name, meant in (("drafters", "d"), ("u", "u")):  # an error names the group that is meant
        with pytest.raises(InputError, match=rf"^{meant}=1001.*too many"):
            launcher.scale(fleet, {name: 1001}, drain_seconds=0)
    with pytest.raises(InputError, match="several groups"):
        launcher.scale(fleet, {"target": 1}, drain_seconds=0)
    with pytest.raises(InputError, match="no group") as caught:
        launcher.scale(fleet, {"x": 1}, drain_seconds=0)
    assert "t, u, d" in caught.value.remedy
    with pytest.raises(InputError, match=r"name a group twice"):
        launcher.scale(fleet, {"drafters": 3, "d": 2}, drain_seconds=0)
    with pytest.raises(InputError, match=r"d=1001.*too many") as caught:
        launcher.scale(fleet, {"drafters": 1001}, drain_seconds=0)
    assert "1000" in caught.value.remedy
