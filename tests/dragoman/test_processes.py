"""Children end with their parent, however that ends; and whoever waits for one hears its last words."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.ports import free_port
from dragoman.processes import child
from speculation.errors import DragomanError
from tests.support.commands import hearing_signals
from tests.support.repository import ROOT
from tests.support.service_drivers import PATIENCE, eventually

pytestmark = pytest.mark.process

ENDINGS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]


@pytest.mark.parametrize("number, code", ENDINGS, ids=[number.name for number, _ in ENDINGS])
def test_the_demo_takes_its_children_along(tiny_qwen2: Path, number: signal.Signals, code: int):
    options = (f"--target={tiny_qwen2}", "--drafter=lookup", "--max-tokens=400", "--target-threads=1")
    demo = subprocess.Popen(hearing_signals("demo", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    children: list[psutil.Process] = []
    try:
        parent = psutil.Process(demo.pid)
        while len(children) < 2:
            assert demo.poll() is None, "it ended by itself"
            children = [each for each in parent.children(recursive=True) if _is_a_command(each)]
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=120)
        assert demo.returncode == code, errors
        assert b"Traceback" not in errors
        gone, alive = psutil.wait_procs(children, timeout=120)
        assert len(gone) == 2 and not alive
    finally:
        for process in (demo, *children):
            if process.poll() is None if isinstance(process, subprocess.Popen) else process.is_running():
                process.kill()


def _is_a_command(process: psutil.Process) -> bool:
    try:
        return "dragoman" in process.cmdline()
    except psutil.Error:
        return False


_A_TALKER = """
import asyncio
from dragoman.processes import child

async def main():
    async with child("talker", ["builtins"], module=["pydoc"]):
        await asyncio.sleep({seconds})

asyncio.run(main())
"""


@pytest.mark.parametrize("seconds", [0, 3])
def test_nothing_is_left_of_a_child_when_the_event_loop_is_closed(seconds: int):
    """It wrote more than anybody read: asyncio holds such a process, and complains of it once its loop is closed."""
    command = [sys.executable, "-c", _A_TALKER.format(seconds=seconds)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_a_child_that_is_never_ready_is_quoted():
    nobody = f"127.0.0.1:{free_port()}"
    async with child("drafter", ["drafter", "--model=lookup", f"--verifier={nobody}"]) as waiting:
        heard: list[str] = []
        waiting.on_words = heard.append
        await eventually(lambda: "no verifier answers" in waiting.last_words, 120)
        with pytest.raises(DragomanError, match=r"not ready within 0.1 s(.|\n)*no verifier answers"):
            await waiting.ready(limit=0.1)
        assert any(nobody in line for line in heard)


async def test_a_child_is_heard_to_its_end_whatever_it_says_and_whoever_listens(caplog: pytest.LogCaptureFixture):
    """A long line, then more than a pipe holds: it would stand still before it is ready if nobody read on."""
    says = "sys.stderr.write('x' * 200_000 + '\\n' + 'y\\n' * 300_000 + 'last'); print('{\"ready\": 1}', flush=True)"
    heard: list[str] = []

    def listen(words: str) -> None:
        heard.append(words)
        if len(heard) == 2:
            raise OSError("the terminal is gone")

    async with child("talker", ["-n1", "-r1", f"import sys; {says}"], module=("timeit",)) as talker:
        talker.on_words = listen
        assert (await talker.ready(limit=PATIENCE))["ready"] == 1
        with pytest.raises(DragomanError, match=r"before the work was done:\n(.|\n)*y\nlast$"):
            await talker.during(asyncio.Event().wait())
    assert "".join(heard).count("x") == 200_000 and heard.count("y") == 300_000 and heard[-1] == "last"
    assert max(map(len, heard)) <= 2 << 16
    assert "what the talker said could not be passed on" in caplog.text and "the terminal is gone" in caplog.text


async def test_work_that_needs_a_child_ends_with_it():
    async with child("coordinator", ["coordinator", "--listen=127.0.0.1:0", "-v"]) as steering:
        assert await steering.during(asyncio.sleep(0, "done")) == "done"
        await steering.ready()
        working = asyncio.ensure_future(steering.during(asyncio.Event().wait()))
        await asyncio.sleep(0)
        os.kill(steering.pid, signal.SIGKILL)
        with pytest.raises(DragomanError, match="the coordinator was ended by SIGKILL before the work was done"):
            await working

        async def broken() -> None:
            raise DragomanError("the connection broke")

        # What the work says of it is the lesser news.
        with pytest.raises(DragomanError, match="was ended by SIGKILL"):
            await steering.during(broken())
