"""The command line as a person uses it: real processes, real sockets, tiny real models.

Bad input ends in one clear line, the right exit code, and never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman.client import Client
from dragoman.processes import ChildProcess, child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from speculation.errors import DragomanError
from tests.support.commands import dragoman

pytestmark = pytest.mark.process


class Pair:
    """A verifier and a drafter as processes, in an event loop of their own."""

    def __init__(self, target: Path, drafter: Path) -> None:
        self._runner = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self.address = self._runner.run(self._start(target, drafter))

    async def _start(self, target: Path, drafter: Path) -> str:
        verifier = await self._enter("verifier", f"--model={target}", "--listen=127.0.0.1:0", *TAKING_TURNS_OPTIONS)
        address = (await verifier.ready())["address"]
        drafting = await self._enter("drafter", f"--model={drafter}", f"--verifier={address}")
        await drafting.ready()
        return address

    async def _enter(self, *arguments: str) -> ChildProcess:
        options = ("--dtype=float32", "--threads=1")
        return await self._stack.enter_async_context(child(arguments[0], [*arguments, *options]))

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def pair(tiny_qwen2: Path, tiny_llama: Path) -> Iterator[Pair]:
    started = Pair(tiny_qwen2, tiny_llama)
    yield started
    started.close()


def test_generate_json_has_every_field_and_drafts_are_accepted(pair: Pair):
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
def test_sampled_text_depends_on_the_seed_only(pair: Pair, rule: str):
    options = ["generate", f"--verifier={pair.address}", "--prompt=def ", "--max-tokens=24", "--temperature=0.9"]
    options += [f"--rule={rule}", "--top-p=0.95", "--top-k=50", "--min-p=0.01"]
    one, again, alone, other = (
        dragoman(*options, *more).stdout
        for more in (["--seed=5"], ["--seed=5"], ["--seed=5", "--no-draft"], ["--seed=6"])
    )
    assert one == again == alone
    assert one != other


@pytest.mark.parametrize("rule", ["rejection", "string-rejection", "auto"])
def test_other_rules_and_a_prediction_from_the_command_line(pair: Pair, tmp_path: Path, rule: str):
    prediction = tmp_path / "prediction.txt"
    prediction.write_text(" stands in the shallow water. The heron")
    options = [f"--verifier={pair.address}", "--prompt=The heron", "--max-tokens=12", f"--rule={rule}", "--json"]
    answer = json.loads(dragoman("generate", *options, f"--prediction-file={prediction}").stdout)
    assert answer["text"].startswith(" stands in the shallow water"), "greedy: the same text by every rule"
    assert rule == "auto" or answer["speculation"]["rule"] == rule
    assert answer["speculation"]["accepted_tokens"] > 0


def test_a_text_is_held_to_what_the_command_line_says(pair: Pair, tmp_path: Path):
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


def test_piped_output_is_bare_text_and_the_summary_goes_to_stderr(pair: Pair, tmp_path: Path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("The heron")
    done = dragoman("generate", f"--verifier={pair.address}", f"--prompt-file={prompt}", "--stop=water", "--stop=zzz")
    assert done.returncode == 0, done.stderr
    assert done.stdout == " stands in the shallow \n"
    assert "tokens per step" in done.stderr and "\x1b" not in done.stdout
    piped = dragoman("generate", f"--verifier={pair.address}", "--prompt-file=-", "--stop=water", stdin="The heron")
    assert piped.stdout == done.stdout


def test_chat_over_a_pipe_keeps_the_conversation(pair: Pair):
    messages = json.dumps([{"role": "user", "content": "The heron"}])
    once = dragoman("generate", f"--verifier={pair.address}", f"--messages={messages}", "--max-tokens=12")
    lines = "The heron\n\n/reset\nThe heron\n/exit\nnever read\n"
    done = dragoman("chat", f"--verifier={pair.address}", "--max-tokens=12", "--temperature=0", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout == once.stdout * 2
    assert "tiny-qwen2" in done.stderr


def test_environment_variables_stand_for_options(pair: Pair):
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


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "latin1.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "folder").mkdir()
    return {"dir": str(tmp_path)}


LOCAL = "--verifier={address}"
#: The port that is taken if none is named may be another's.
ANYWHERE = "--listen=127.0.0.1:0"
BAD_INPUT = {
    "unknown model": (3, ["verifier", "--model=smolm2-135m", ANYWHERE], "did you mean smollm2-135m"),
    "folder that is no model": (3, ["verifier", "--model={dir}/folder", ANYWHERE], "config.json"),
    "missing file": (3, ["verifier", "--model={dir}/absent.gguf", ANYWHERE], "absent.gguf"),
    "corrupt weights": (3, ["verifier", "--model={dir}/broken.gguf", ANYWHERE], "cannot be converted"),
    "unknown drafter model": (3, ["drafter", "--model=nonsense"], "nonsense"),
    "public address": (2, ["verifier", "--model=x", "--listen=0.0.0.0:1"], "--allow-plaintext"),
    "no port": (2, ["verifier", "--model=x", "--listen=127.0.0.1:banana"], "port"),
    "bad width": (2, ["verifier", "--model=x", "--listen=127.0.0.1:{free}", "--width=9999"], "width=9999"),
    "unreachable verifier": (4, ["generate", "--verifier=127.0.0.1:{free}", "--prompt=x"], "no verifier answers"),
    "resume for no time": (2, ["generate", LOCAL, "--prompt=x", "--resume-for=2"], "resume-for='2'"),
    "a port alone": (4, ["generate", "--verifier={free}", "--prompt=x"], "no verifier answers at 127.0.0.1:{free}"),
    "IPv6 without brackets": (2, ["generate", "--verifier=::1", "--prompt=x"], "stands in brackets"),
    "advertise a port alone": (2, ["verifier", "--model=x", "--coordinator=1", "--advertise=5"], "names no host"),
    "no prompt": (2, ["generate", LOCAL], "exactly one"),
    "two prompts": (2, ["generate", LOCAL, "--prompt=x", "--messages=[]"], "exactly one"),
    "empty prompt": (2, ["generate", LOCAL, "--prompt="], "prompt"),
    "empty file": (2, ["generate", LOCAL, "--prompt-file={dir}/empty.txt"], "is empty"),
    "not UTF-8": (2, ["generate", LOCAL, "--prompt-file={dir}/latin1.txt"], "UTF-8"),
    "absent file": (2, ["generate", LOCAL, "--prompt-file={dir}/absent.txt"], "absent.txt"),
    "messages that are no JSON": (2, ["generate", LOCAL, "--messages=[oops"], "is not JSON"),
    "messages that are no messages": (2, ["generate", LOCAL, '--messages=[{{"role": 1}}]'], "role, content"),
    "one message, no list": (2, ["generate", LOCAL, '--messages={{"role": "user"}}'], "is one message, not a list"),
    "messages that are a string": (2, ["generate", LOCAL, '--messages="x"'], "no list of messages"),
    "messages without contents": (2, ["generate", LOCAL, '--messages=[{{"role": "user"}}]'], "role, content"),
    "a mistyped role": (
        2,
        ["generate", LOCAL, '--messages=[{{"role": "usr", "content": "x"}}]'],
        "messages.role='usr'",
    ),
    "no messages": (2, ["generate", LOCAL, "--messages=[]"], "prompt"),
    "prompt beyond the context": (2, ["generate", LOCAL, "--prompt={long}"], "context of 512"),
    "negative temperature": (2, ["generate", LOCAL, "--prompt=x", "--temperature=-1"], "temperature=-1"),
    "NaN temperature": (2, ["generate", LOCAL, "--prompt=x", "--temperature=nan"], "temperature=nan"),
    "top-p of 0": (2, ["generate", LOCAL, "--prompt=x", "--top-p=0"], "top_p=0"),
    "huge max-tokens": (2, ["generate", LOCAL, "--prompt=x", "--max-tokens=4294967296"], "max-tokens=4294967296"),
    "negative max-tokens of a demo": (2, ["demo", "--max-tokens=-3"], "max-tokens=-3"),
    "huge top-k": (2, ["generate", LOCAL, "--prompt=x", "--top-k=99999999999"], "top_k=99999999999"),
    "no sessions": (2, ["verifier", "--model=x", "--max-sessions=0"], "max-sessions=0"),
    "no model to convert": (2, ["models", "convert", "org/foo"], "model='org/foo'"),
    "an int8 target": (2, ["verifier", "--model=x", "--dtype=int8"], "dtype='int8'"),
    "negative max-tokens": (2, ["generate", LOCAL, "--prompt=x", "--max-tokens=-1"], "max-tokens=-1"),
    "negative seed": (2, ["generate", LOCAL, "--prompt=x", "--seed=-1"], "seed=-1"),
    "empty stop": (2, ["generate", LOCAL, "--prompt=x", "--stop="], "stop"),
    "unknown rule": (2, ["generate", LOCAL, "--prompt=x", "--rule=luck"], "race"),
    "temperature that is no number": (2, ["generate", LOCAL, "--prompt=x", "--temperature=hot"], "temperature='hot'"),
    "unknown option": (2, ["generate", "--bogus"], "option='--bogus'"),
}


@pytest.mark.parametrize("code, arguments, words", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_clear_line(pair: Pair, files: dict[str, str], code: int, arguments: list[str], words: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        names = {**files, "address": pair.address, "free": free.getsockname()[1], "long": "heron " * 600}
    done = dragoman(*(argument.format(**names) for argument in arguments), DRAGOMAN_HOME=files["dir"] + "/home")
    assert done.returncode == code, done.stderr
    assert words.format(**names) in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    # A mistake at the prompt costs nobody else anything.
    assert asyncio.run(sessions(pair.address)) == (0, 0)


async def sessions(address: str) -> tuple[int, int]:
    async with Client(address) as client:
        described = await client.describe()
        return described.sessions, described.kv_cache_bytes


def test_port_in_use(pair: Pair, tiny_llama: Path):
    done = dragoman("verifier", f"--model={tiny_llama}", f"--listen={pair.address}", "--dtype=float32")
    assert done.returncode == 4 and "in use" in done.stderr and "Traceback" not in done.stderr


def test_a_child_that_dies_early_is_quoted():
    async def start() -> None:
        async with child("verifier", ["verifier", "--model=nonsense"]) as started:
            await started.ready()

    with pytest.raises(DragomanError, match="nonsense") as caught:
        asyncio.run(start())
    assert caught.value.exit_code == 3
