"""What a benchmark tells the shell: a user's mistake, a text that differs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import deepened, fault_proxy, flips, replay, served_pair, soak_figures
from benchmarks.command import run_command
from benchmarks.flips import Bench
from tests.support.repository import sources

ROW = {
    "arm": "lookup",
    "temperature": 0.0,
    "texts": 1,
    "tokens": 5,
    "draft_tokens": 0,
    "drafters_tokens": 0,
    "accepted_tokens": 0,
}


def run(main: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Its exit code."""
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_mistake_is_a_line_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    for main, arguments, said in (
        (deepened.main, ["no-such-model", str(tmp_path / "deep")], "no model 'no-such-model'"),
        (deepened.main, ["no-such-model", str(tmp_path / "deep"), "--times", "6"], "times=6: is no power of two"),
        (flips.main, ["--arm", "wider"], "arm='wider': is no arm"),
        (served_pair.main, ["--concurrency", "0"], "concurrency=0: is no number of clients"),
        (served_pair.main, ["--transformers", "--temperature", "1"], "temperature=1: has other draws"),
        (served_pair.main, ["--transformers", "--dtype", "float32"], "dtype='float32': is not what transformers"),
        (served_pair.main, ["--prompts", "none.jsonl"], "prompts='none.jsonl': cannot be read"),
        (fault_proxy.main, ["--upstream", "here"], "upstream='here': not host:port"),
        (replay.app, ["drafter", "--verifier", "a:b:c"], "verifier='a:b:c'"),
        (replay.app, ["drafter", "--verifier", "a", "--recording", "none"], "recording='none': cannot be read"),
        (soak_figures.main, ["none.json", "--output", "soak.png"], "measured='none.json': cannot be read"),
    ):
        assert run(main, monkeypatch, *arguments) in (2, 3)
        error = capsys.readouterr().err
        assert said in error and "fix: " in error and "Traceback" not in error


def test_every_benchmark_is_run_so():
    """None has a way of its own, in which a mistake would be a traceback."""
    started = {
        path.name: path.read_text("utf-8").partition('if __name__ == "__main__":')[2] for path in sources("benchmarks")
    }
    commands = {name: code.strip() for name, code in started.items() if code}
    assert len(commands) > 20
    assert {name: code for name, code in commands.items() if not re.fullmatch(r"run_command\(\w+\)", code)} == {}


@pytest.mark.parametrize("found, code", [([], 0), ([{"prompt": 3, "token": 4}], 1)])
def test_a_flip_is_exit_code_1(found: list[Any], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async def ran(bench: Bench) -> None:
        bench.rows.append(ROW | {"flips": found})

    monkeypatch.setattr(Bench, "run", ran)
    assert run(flips.main, monkeypatch, "--output", str(tmp_path / "flips.json")) == code
    assert json.loads((tmp_path / "flips.json").read_text())["arms"][0]["flips"] == found


@pytest.mark.parametrize("different, code", [([], 0), ([3], 1)])
def test_a_text_that_differs_is_exit_code_1(
    different: list[int], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    cell = {"arm": "dragoman", "load": "1", "completed": 4, "output_throughput": 1.0, "different": different}
    monkeypatch.setattr(served_pair, "measure", lambda setup, prompts, console: [cell])
    assert run(served_pair.main, monkeypatch, "--output", str(tmp_path / "pair.json")) == code
    assert json.loads((tmp_path / "pair.json").read_text())["summary"]["different"] == len(different)
