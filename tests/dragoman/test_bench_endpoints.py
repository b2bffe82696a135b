"""What `dragoman bench` says of endpoints that are not there, not let in, or no OpenAI API; and what it asks of any."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dragoman.cli import app
from speculation.errors import DragomanError
from tests.support.gateways import front
from tests.support.http_answers import answer, answering, event_stream, json_answer

MODELS = json_answer({"object": "list", "data": [{"id": "m"}]})
TEXT = {"choices": [{"index": 0, "text": "Yes", "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
ASK = ("--num-prompts=2", "--endpoint=/v1/completions")


async def bench(*arguments: str) -> Any:
    """Its JSON object, or the error that it ends with, one line of cause."""
    done = await asyncio.to_thread(CliRunner().invoke, app, ["bench", *ASK, *arguments, "--json"])
    if done.exception is None or isinstance(done.exception, SystemExit):
        return json.loads(done.stdout)
    assert isinstance(done.exception, DragomanError), done.exception
    assert done.stdout == "" and "\n" not in done.exception.message
    return done.exception


async def test_any_openai_api_is_asked_for_nothing_that_only_some_know():
    async with answering({"/v1/models": MODELS, "/v1/completions": event_stream(TEXT, USAGE)}) as (url, bodies):
        told = await bench(f"--base-url={url}", "--max-tokens=9")
        assert (told["completed"], told["total_input_tokens"], told["total_output_tokens"]) == (2, 8, 4)
        assert "spec_decode_num_drafts" not in told
    known = {"model", "prompt", "max_tokens", "temperature", "seed", "stream", "stream_options"}
    assert len(bodies) == 3 and all(set(body) == known for body in bodies)
    assert bodies[0]["stream_options"] == {"include_usage": True} and bodies[0]["max_tokens"] == 9


async def test_a_comparison_needs_an_endpoint_that_can_leave_drafters_out():
    async with answering({"/v1/models": MODELS, "/v1/completions": event_stream(TEXT, USAGE)}) as (url, bodies):
        error = await bench(f"--base-url={url}", "--compare=no-draft", "--num-warmups=0")
        assert "compare='no-draft'" in str(error) and "Dragoman" in error.remedy
    assert [body["draft"] for body in bodies] == [False]


@pytest.mark.parametrize(
    "response, code, words",
    [
        (json_answer({"error": {"message": "bad key"}}, status=401), 7, "answers 401: bad key"),
        (json_answer({"error": "who are you"}, status=403), 7, "answers 403: who are you"),
        (answer(b"<html>\n welcome</html>", kind="text/html"), 5, "lists no models"),
        (answer(b"<html>\n no</html>", status=404, kind="text/html"), 5, "answers 404: <html> no</html>"),
        (json_answer({"data": []}), 5, "lists no models"),
        (json_answer({"data": [{"id": "a"}, {"id": "b"}]}), 2, "model: several are served"),
        (answer(b"", status=503), 4, "answers 503"),
        (b"SSH-2.0-OpenSSH\r\n", 5, "speaks no HTTP"),
        (b"", 5, "breaks off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_who_is_no_openai_api_is_told_in_one_line(response: bytes, code: int, words: str):
    async with answering({"/v1/models": response}) as (url, _):
        error = await bench(f"--base-url={url}")
        assert (words in error.message and url in str(error)) or code == 2
        assert error.exit_code == code and error.remedy


@pytest.mark.parametrize(
    "response, code, words",
    [
        (json_answer({"error": {"message": "no model m", "code": "model_not_found"}}, status=404), 3, "no model m"),
        (answer(b"", status=405), 5, "answers 405"),
        (json_answer({"error": {"message": "max_tokens: too many"}}, status=400), 2, "max_tokens: too many"),
        (json_answer({"detail": "gone wrong"}, status=500), 6, "gone wrong"),
        (event_stream(TEXT), 5, "does not tell how many tokens"),
        (event_stream({"choices": [{"text": "Y"}]}, USAGE), 6, "ended in mid-text"),
        (event_stream(TEXT, {"error": {"message": "out of memory"}}), 6, "out of memory"),
        (answer(b"data: [1]\n\n", kind="text/event-stream"), 5, "no JSON"),
        (event_stream(TEXT, USAGE)[:-20], 5, "breaks off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_first_text_that_fails_ends_the_run(response: bytes, code: int, words: str):
    async with answering({"/v1/models": MODELS, "/v1/completions": response}) as (url, _):
        error = await bench(f"--base-url={url}")
        assert words in error.message and error.exit_code == code
        told = await bench(f"--base-url={url}", "--num-warmups=0")
        assert (told["completed"], told["failed"], told["mean_ttft_ms"]) == (0, 2, None)


async def test_nobody_there_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    for where, remedy in (("--base-url=http://127.0.0.1", "--base-url"), ("--verifier=127.0.0.1", "dragoman verifier")):
        error = await bench(f"{where}:{free}")
        assert error.exit_code == 4 and str(free) in error.message and remedy in error.remedy


async def test_a_model_that_is_not_served_and_a_grpc_port_are_told():
    async with front() as found:
        error = await bench(f"--base-url={found.url}", "--model=nope")
        assert error.exit_code == 3 and "no model 'nope'" in error.message and "text-target" in error.remedy
        error = await bench(f"--base-url=http://{found.verifier_address}")
        assert error.exit_code == 5 and "--verifier" in error.remedy


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--base-url=ftp://x"], "base-url='ftp://x'"),
        (["--base-url=localhost:8000"], "base-url='localhost:8000'"),
        (["--base-url=http://192.0.2.1"], "nothing would be encrypted"),
        (["--base-url=http://[x"], "base-url="),
        (["--base-url=https://me:secret@x"], "base-url='x': has more"),
        (["--base-url=http://x", "--verifier=y"], "comes with --verifier"),
        (["--verifier=127.0.0.1:1", "--model=m"], "model='m'"),
        (["--verifier=127.0.0.1:1", "--api-key-env=HOME"], "api-key-env"),
        (["--verifier=192.0.2.1"], "verifier='192.0.2.1:50061'"),
        (["--api-key-env=NO_SUCH_KEY"], "api-key-env='NO_SUCH_KEY'"),
        (["--compare=no-draft", "--request-rate=2"], "compare='no-draft'"),
        (["--compare=no-draft", "--max-concurrency=2"], "compare='no-draft'"),
        (["--temperature=-1"], "temperature=-1"),
        (["--plot=x.gif"], "plot='x.gif'"),
        (["--save-result=/no/such/folder/x.json"], "save-result="),
        (["--save-result=/"], "is a folder"),
        (["--tls-ca={text}"], "tls-ca="),
    ],
)
async def test_a_mistake_is_told_before_anybody_is_asked(arguments: list[str], words: str, tmp_path: Path):
    (tmp_path / "text").write_text("no certificate")
    error = await bench(*(each.format(text=tmp_path / "text") for each in arguments))
    assert words in error.message and error.exit_code == 2 and error.remedy
