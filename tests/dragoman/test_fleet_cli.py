"""`dragoman coordinator`, `status` and `top` as a person uses them, and how the fleet is drawn."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.ports import free_port
from dragoman.coordinator_client import CoordinatorClient
from dragoman.fleet import status_as_dict, watch
from dragoman.fleet_view import away_line, fleet_view, show_age, show_plan, sparkline
from dragoman.processes import child
from protos.dragoman.v1 import dragoman_pb2 as pb
from tests.support.commands import dragoman, hearing_signals
from tests.support.coordinators import coordinating, joining, target
from tests.support.fleet_drawings import a_fleet, drawn
from tests.support.fleet_members import FakeDrafter
from tests.support.service_drivers import PATIENCE, eventually
from transport.address import Address

pytestmark = pytest.mark.process


async def placed(coordinator: str) -> None:
    """Until the coordinator was told that the first session has a drafter and a plan."""
    async with asyncio.timeout(PATIENCE), CoordinatorClient(coordinator) as client:
        while not any(session.drafters and session.plan.width for session in (await client.status()).sessions):
            await asyncio.sleep(0.02)


# ---- the commands -------------------------------------------------------------------------------------------------


async def test_status_and_top_show_the_fleet():
    made = target()
    async with child("coordinator", ["coordinator", "--listen=127.0.0.1:0"]) as started:
        address = (await started.ready())["address"]
        where = Address.parse(address, field="address")
        empty = await asyncio.to_thread(dragoman, "status", f"--coordinator={address}")
        assert empty.returncode == 0 and "Nobody has joined yet" in empty.stdout, empty.stderr
        async with joining(where, made), joining(where, FakeDrafter()):
            await placed(address)
            asked = await asyncio.to_thread(dragoman, "status", f"--coordinator={address}", "--json")
            drawn = await asyncio.to_thread(dragoman, "top", "--once", f"--coordinator={address}", COLUMNS="80")
    assert asked.returncode == 0, asked.stderr
    fleet = json.loads(asked.stdout)
    assert set(fleet) == {"version", "uptime_seconds", "verifiers", "drafters", "sessions"}
    assert [member["address"] for member in fleet["verifiers"]] == ["10.0.0.1:50061"]
    assert [member["round_trip"] for member in fleet["drafters"]] == [0.005]
    session = fleet["sessions"][0]
    assert session["drafters"] == ["d1"] and session["plan"]["width"] > 0
    assert drawn.returncode == 0, drawn.stderr
    assert "1 verifier · 1 drafter · 1 session" in drawn.stdout and "name of d1" in drawn.stdout
    assert max(len(line) for line in drawn.stdout.splitlines()) <= 80


async def test_members_come_back_to_a_coordinator_that_was_killed():
    made = target()
    port = free_port()
    start = ["coordinator", f"--listen=127.0.0.1:{port}"]
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(child("coordinator", start))
        await first.ready()
        link = await stack.enter_async_context(joining(Address("127.0.0.1", port), made))
        await eventually(lambda: made.links_of("s") == [1])
        first.kill()
        await eventually(lambda: not link.joined)
        made.sessions["s"].links = []
        second = await stack.enter_async_context(child("coordinator", start))
        await second.ready()
        await eventually(lambda: made.links_of("s") == [1])


async def test_top_outlives_the_coordinator():
    port = free_port()
    start = ["coordinator", f"--listen=127.0.0.1:{port}"]
    process = await asyncio.create_subprocess_exec(
        *hearing_signals("top", f"--coordinator=127.0.0.1:{port}", "--seconds=0.1"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None

    async def until(words: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while words not in (line := (await process.stdout.readline()).decode()):
                assert line, "it ended"

    try:
        await until("no coordinator answers")
        async with child("coordinator", start) as started:
            await started.ready()
            await until("0 verifiers")
        await until("no coordinator answers")
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0 and not errors, errors
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_top_draws_on_a_whole_terminal():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100, height=30, legacy_windows=False)
    async with coordinating() as (_, address):
        watching = asyncio.create_task(watch(str(address), console, 0.02))
        await eventually(lambda: shown.getvalue().count("Nobody has joined yet") >= 3)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert shown.getvalue().startswith("\x1b[?1049h") and shown.getvalue().count("\x1b[?1049l") == 1


BAD_INPUT = {
    "unreachable": (4, ["status", "--coordinator=127.0.0.1:{free}"], "no coordinator answers"),
    "unreachable, top": (4, ["top", "--once", "--coordinator=127.0.0.1:{free}"], "dragoman coordinator"),
    "no address": (2, ["status", "--coordinator=x/y"], "coordinator='x/y'"),
    "no address, top": (2, ["top", "--coordinator=x:y"], "coordinator='x:y'"),
    "no time": (2, ["top", "--seconds=0"], "seconds"),
    "public address": (2, ["coordinator", "--listen=0.0.0.0:1"], "--allow-plaintext"),
    "public address in the file": (2, ["coordinator", "--config={dir}/public.yaml"], "--allow-plaintext"),
    "absent file": (2, ["coordinator", "--config={dir}/absent.yaml"], "absent.yaml"),
    "bad setting": (2, ["coordinator", "--config={dir}/bad.yaml"], "line 2: no such setting"),
    "port in use": (4, ["coordinator", "--listen=127.0.0.1:{taken}"], "in use"),
}


@pytest.mark.parametrize("code, arguments, words", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_clear_line(tmp_path: Path, code: int, arguments: list[str], words: str):
    (tmp_path / "bad.yaml").write_text("plan:\n  widht: 4\n")
    (tmp_path / "public.yaml").write_text("listen: 0.0.0.0:1\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        names = {"dir": tmp_path, "free": free_port(), "taken": taken.getsockname()[1]}
        done = dragoman(*(argument.format(**names) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr and not done.stdout


# ---- the drawing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 160])
def test_figures_are_whole_at_any_width(width: int):
    lines = drawn(fleet_view(a_fleet(), width=width), width)
    text = "\n".join(lines)
    assert all(len(line) <= width for line in lines)
    for figure in ("98.7", "54321", "3.21", "50%", "80ms", "16/32 ×2", "1.84×", "123.4", "987654", "12.3 ms", "3/64"):
        assert figure in text
    assert "▁▅█" in text and "alone" in text and "00000002" in text
    assert "2 verifiers · 2 drafters · 3 sessions · 246.8 tokens/s · up 67 min" in text


def test_a_wide_terminal_shows_who_drafted_how_much():
    status = a_fleet()
    for number, session in enumerate(status.sessions):
        session.sources.add(source=pb.DRAFT_SOURCE_LOOKUP, accepted_tokens=2, draft_tokens=9)
        for instance in ("d1", "d2") if number else ():
            counts = {"accepted_tokens": 15, "draft_tokens": 41}
            session.sources.add(source=pb.DRAFT_SOURCE_DRAFTER, instance=instance, **counts)
    edge = next(member.drafter for member in status.members if member.instance == "d1")
    edge.acceptance_rate, edge.accepted_tokens, edge.draft_tokens = 0.36, 1234, 4321
    for width in (120, 160):
        lines = drawn(fleet_view(status, width=width), width)
        assert all(len(line) <= width for line in lines)
        [alone, drafted, _] = [line.split() for line in lines if line.startswith("0000000")]
        assert "2/9" in alone and "30/82" not in alone and "2/9" in drafted and "30/82" in drafted
        [heading] = [line for line in lines if line.startswith("session")]
        assert "drafted" in heading and "looked up" in heading and "predicted" not in heading
        assert any("edge" in line and "36%, 1234/4321" in line for line in lines)
    assert "36%, 1234/4321" in "\n".join(drawn(fleet_view(status, width=80), 80))
    edge.ClearField("acceptance_rate")  # it is idle
    assert " 1234/4321" in "\n".join(drawn(fleet_view(status, width=80), 80))


def test_a_short_terminal_shows_what_fits():
    lines = drawn(fleet_view(a_fleet(100), width=120, height=30), 120)
    assert len(lines) <= 30
    assert any("more sessions" in line for line in lines)


def test_silent_members_and_an_absent_coordinator_are_named():
    assert "silent for 2 s" in "\n".join(drawn(fleet_view(a_fleet(), width=160), 160))
    away = away_line(Address("10.0.0.9", 1), 12.0)
    assert "10.0.0.9:1 for 12 s; trying again" in drawn(fleet_view(None, width=120, away=away), 120)[0]


def test_small_words():
    assert sparkline([-1.0, 0.0, 0.5, 0.99, 1.0, 7.0], 5) == "▁▅███"
    assert show_plan(pb.SpeculationPlan()) == "off"
    assert show_plan(pb.SpeculationPlan(width=4, lookahead=8, patience=0.1)) == "4/8 w"
    assert [show_age(seconds) for seconds in (5, 150, 10000)] == ["5 s", "2 min", "3 h"]


def test_json_has_what_members_say_of_themselves():
    status = a_fleet()
    status.members[0].notes.append("its chat template knows no system message")
    [noted, *others] = [member for kind in ("verifiers", "drafters") for member in status_as_dict(status)[kind]]
    assert noted["notes"] == ["its chat template knows no system message"]
    assert others and all(member["notes"] == [] for member in others)


def test_json_says_null_for_what_is_not_known():
    fleet = status_as_dict(a_fleet())
    assert fleet["drafters"][1]["round_trip"] is None and fleet["drafters"][1]["seconds_per_token"] is None
    assert json.loads(json.dumps(fleet)) == fleet
