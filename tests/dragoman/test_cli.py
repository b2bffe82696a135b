"""The command line as a person uses it: real processes, real sockets, tiny real models.

What it says to bad input: ``test_bad_input.py``.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dragoman.processes import child
from speculation.errors import DragomanError
from tests.support.commands import dragoman
from tests.support.served_pair import ServedPair

pytestmark = pytest.mark.process


def test_generate_json_has_every_field_and_drafts_are_accepted(pair: ServedPair):
    ask = ("generate", f"--verifier={pair.address}", "--prompt=The heron", "--max-tokens=40", "--json")
    done = dragoman(*ask)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    fields = {"text", "token_ids", "finish_reason", "stop_reason", "resumes", "usage", "speculation", "timing"}
    assert set(answer) == fields
    assert answer["speculation"]["rule"] == "race"
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens"}
    assert set(answer["speculation"]) == {
        "rule",
        "steps",
        "draft_tokens",
        "accepted_tokens",
        "acceptance_rate",
        "tokens_per_step",
        "accepted_tokens_per_pos",
        "spans",
        "stale_spans",
        "bytes_up",
        "bytes_down",
        "drafters_connected",
        "drafters",
        "prediction",
        "grammar",
        "lookup",
        "recycled",
        "replay",
    }
    [drafter] = answer["speculation"]["drafters"]
    assert drafter["model"] == "tiny-llama" and drafter["accepted_tokens"] > 0
    assert answer["speculation"]["drafters_connected"] == 1
    assert set(answer["timing"]) == {"ttft_ms", "tpot_ms", "e2el_ms", "tokens_per_second"}
    assert answer["text"].startswith(" stands in the shallow water.")
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == len(answer["token_ids"]) == 40
    assert answer["speculation"]["accepted_tokens"] > 0
    assert answer["speculation"]["tokens_per_step"] == 40 / answer["speculation"]["steps"]
    alone = json.loads(dragoman(*ask, "--no-draft").stdout)
    assert alone["text"] == answer["text"] and alone["token_ids"] == answer["token_ids"]
    assert alone["speculation"]["acceptance_rate"] is None and alone["speculation"]["steps"] == 40
    assert alone["speculation"]["drafters"] == [] and alone["speculation"]["drafters_connected"] == 1


@pytest.mark.parametrize("rule", ["race", "exact"])
def test_sampled_text_depends_on_the_seed_only(pair: ServedPair, rule: str):
    options = ["generate", f"--verifier={pair.address}", "--prompt=def ", "--max-tokens=24", "--temperature=0.9"]
    options += [f"--rule={rule}", "--top-p=0.95", "--top-k=50", "--min-p=0.01"]
    one, again, alone, other = (
        dragoman(*options, *more).stdout
        for more in (["--seed=5"], ["--seed=5"], ["--seed=5", "--no-draft"], ["--seed=6"])
    )
    assert one == again == alone
    assert one != other


@pytest.mark.parametrize("rule", ["rejection", "string-rejection", "auto"])
def test_other_rules_and_a_prediction_from_the_command_line(pair: ServedPair, tmp_path: Path, rule: str):
    prediction = tmp_path / "prediction.txt"
    prediction.write_text(" stands in the shallow water. The heron")
    options = [f"--verifier={pair.address}", "--prompt=The heron", "--max-tokens=12", f"--rule={rule}", "--json"]
    answer = json.loads(dragoman("generate", *options, f"--prediction-file={prediction}").stdout)
    assert answer["text"].startswith(" stands in the shallow water"), "greedy: the same text by every rule"
    assert rule == "auto" or answer["speculation"]["rule"] == rule
    assert answer["speculation"]["accepted_tokens"] > 0


def test_a_text_is_held_to_what_the_command_line_says(pair: ServedPair, tmp_path: Path):
    options = ["generate", f"--verifier={pair.address}", "--prompt=The heron", "--max-tokens=60", "--json"]
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text(
        '{"type": "object", "properties": {"wet": {"type": "boolean"}}, "required": ["wet"], '
        '"additionalProperties": false}'
    )
    grammar.write_text('start: "a" | "b"')
    answer = json.loads(dragoman(*options, f"--json-schema={schema}").stdout)
    assert json.loads(answer["text"])["wet"] in (True, False)
    assert answer["speculation"]["grammar"]["accepted_tokens"] > 0
    assert json.loads(dragoman(*options, f"--grammar={grammar}").stdout)["text"] in ("a", "b")
    done = dragoman(*options, "--regex=[a-c]{3}", "--choice=yes")
    assert done.returncode == 2 and "regex='--regex --choice': a text is held to one of these" in done.stderr
    schema.write_text('{"type": "objec"}')
    done = dragoman(*options, f"--json-schema={schema}")
    assert done.returncode == 2 and "Invalid type: objec" in done.stderr and "Traceback" not in done.stderr


def test_piped_output_is_bare_text_and_the_summary_goes_to_stderr(pair: ServedPair, tmp_path: Path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("The heron")
    done = dragoman("generate", f"--verifier={pair.address}", f"--prompt-file={prompt}", "--stop=water", "--stop=zzz")
    assert done.returncode == 0, done.stderr
    assert done.stdout == " stands in the shallow \n"
    assert "tokens per step" in done.stderr and "\x1b" not in done.stdout
    piped = dragoman("generate", f"--verifier={pair.address}", "--prompt-file=-", "--stop=water", stdin="The heron")
    assert piped.stdout == done.stdout


def test_chat_over_a_pipe_keeps_the_conversation(pair: ServedPair):
    messages = json.dumps([{"role": "user", "content": "The heron"}])
    once = dragoman("generate", f"--verifier={pair.address}", f"--messages={messages}", "--max-tokens=12")
    lines = "The heron\n\n/reset\nThe heron\n/exit\nnever read\n"
    done = dragoman("chat", f"--verifier={pair.address}", "--max-tokens=12", "--temperature=0", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout == once.stdout * 2
    assert "tiny-qwen2" in done.stderr


def test_environment_variables_stand_for_options(pair: ServedPair):
    done = dragoman("generate", DRAGOMAN_GENERATE_VERIFIER=pair.address, DRAGOMAN_GENERATE_PROMPT="The heron",
                    DRAGOMAN_GENERATE_MAX_TOKENS="3")  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith(" st"), done.stderr


def test_demo_on_tiny_models(tiny_qwen2: Path, tiny_llama: Path):
    options = [f"--target={tiny_qwen2}", f"--drafter={tiny_llama}", "--target-threads=1"]
    done = dragoman("demo", *options, "--target-dtype=float32", "--temperature=0.7", "--seed=3")
    assert done.returncode == 0, done.stderr
    assert "identical: yes" in done.stdout.splitlines()[-1]
    result = json.loads(dragoman("demo", *options, "--max-tokens=12", "--json").stdout)
    assert result["max_tokens"] == 12
    assert result["identical"] is True and len(result["prompts"]) >= 5
    assert result["speed_up"] > 0


def test_doctor(tiny_qwen2: Path, tiny_llama: Path, tiny_gemma: Path):
    good = dragoman("doctor", f"--target={tiny_qwen2}", f"--drafter={tiny_llama}")
    assert good.returncode == 0 and "good pair" in good.stdout, good.stdout + good.stderr
    assert "384 ids" in good.stdout and "<|im_end|>" in good.stdout
    remarks = dragoman("doctor", f"--target={tiny_llama}", f"--drafter={tiny_gemma}")
    assert remarks.returncode == 0 and "works, but" in remarks.stdout and "chat template" in remarks.stdout
    assert dragoman("doctor", f"--target={tiny_llama}", "--drafter=lookup").returncode == 0


def test_doctor_says_what_cannot_work(tiny_llama: Path, tmp_path: Path):
    for file in tiny_llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["layer_types"] = ["full_attention", "linear_attention"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = dragoman("doctor", f"--target={tmp_path}", "--drafter=lookup")
    assert done.returncode == 3 and "cannot work: " in done.stdout and "linear_attention" in done.stdout


def test_models_list_and_version(tmp_path: Path):
    done = dragoman("models", "list", DRAGOMAN_HOME=str(tmp_path))
    assert done.returncode == 0 and "qwen2.5-coder-1.5b" in done.stdout and "Gemma terms" in done.stdout
    assert dragoman("--version").stdout.startswith("dragoman 0.")


def test_port_in_use(pair: ServedPair, tiny_llama: Path):
    done = dragoman("verifier", f"--model={tiny_llama}", f"--listen={pair.address}", "--dtype=float32")
    assert done.returncode == 4 and "in use" in done.stderr and "Traceback" not in done.stderr


def test_a_child_that_dies_early_is_quoted():
    async def start() -> None:
        async with child("verifier", ["verifier", "--model=nonsense"]) as started:
            await started.ready()

    with pytest.raises(DragomanError, match="nonsense") as caught:
        asyncio.run(start())
    assert caught.value.exit_code == 3
