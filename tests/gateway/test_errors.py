"""What is refused, with which status and in which words: always OpenAI's shape, never a traceback."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx
import openai
import pytest

from dragoman.gateway_backend import verifier_backend
from gateway.settings import GatewaySettings
from tests.support.gateways import MODEL, STORY, clients_of, fleet_front, front, gateway_to, joined, named, registered
from tests.support.text_engine import TextEngine

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "a story"}], "max_tokens": 3}
#: (field to blame, what of it is sent) of any request for a text
BAD: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 1 << 40),
    ("max_tokens", "5"),
    ("max_tokens", 2.5),
    ("max_tokens", True),
    ("n", 0),
    ("n", 1000),
    ("n", [1]),
    ("temperature", -1),
    ("temperature", "hot"),
    ("top_p", 0),
    ("top_p", 1.5),
    ("top_k", -2),
    ("top_k", 1 << 40),
    ("min_p", 2),
    ("repetition_penalty", 0),
    ("presence_penalty", 3),
    ("frequency_penalty", -3),
    ("seed", 1 << 64),
    ("seed", -(1 << 63) - 1),
    ("seed", 1.5),
    ("stop", [""]),
    ("stop", 5),
    ("stop", ["a", 5]),
    ("stop", "x" * 2000),
    ("stop", "\ud800"),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {str(10**6): 1}),
    ("logit_bias", [1]),
    ("priority", 5000),
    ("cache_salt", 5),
    ("cache_salt", "x" * 257),
    ("cache_salt", "\ud800"),
    ("rule", "guess"),
    ("rule", 5),
    ("draft", "yes"),
    ("stream", "yes"),
    ("stream_options", {"include_usage": True}),
    ("prediction", 5),
    ("prediction.type", {"type": "image", "content": "x"}),
    ("prediction.content", {"type": "content", "content": 5}),
    ("ignore_eos", 1),
    ("logprobs", "2"),
    ("response_format", "json"),
    ("structured_outputs", []),
    ("model", 5),
]
#: Those that others have, and that are never ignored.
NOT_THERE: list[tuple[str, Any]] = [
    ("prompt_logprobs", 3),
    ("functions", [{"name": "f"}]),
    ("response_format.type", {"type": "structural_tag"}),
    ("best_of", 2),
    ("suffix", "the end"),
    ("structured_outputs.structural_tag", {"structural_tag": "x"}),
    ("guided_whitespace_pattern", " *"),
    ("stop_token_ids", [5]),
    ("min_tokens", 5),
    ("skip_special_tokens", False),
    ("return_token_ids", True),
    ("modalities", ["text", "audio"]),
]


def blamed(response: httpx.Response, *, status: int, code: str | None = None, param: str | None = None) -> str:
    """The message of an error that is as it should be."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "Traceback" not in response.text
    assert error["param"] == param
    assert code is None or error["code"] == code, error
    return error["message"]


async def test_every_bad_value_is_named_by_its_field():
    async with front() as found:
        for path, body in (("/v1/completions", STORY), ("/v1/chat/completions", CHAT)):
            for field, value in BAD:
                name = field.partition(".")[0]
                sent = json.dumps({**body, name: value})
                response = await found.http.post(path, content=sent, headers={"content-type": "application/json"})
                param = field if value != 5 or name != "prediction" else "prediction"
                message = blamed(response, status=400, param=param)
                assert field.partition(".")[0] in message
            for field, value in NOT_THERE:
                response = await found.post(path, **{**body, field.partition(".")[0]: value})
                blamed(response, status=400, param=field, code="unsupported_parameter")


@pytest.mark.parametrize(
    ("prompt", "param"), [("", "prompt"), ([], "prompt"), ([[]], "prompt"), (["a", 5], "prompt"), (5, "prompt")]
)
async def test_prompts_that_are_none(prompt: object, param: str):
    async with front() as found:
        blamed(await found.post("/v1/completions", **{**STORY, "prompt": prompt}), status=400, param=param)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hello", "messages"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "wizard", "content": "x"}], "messages.role"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[0].content[0].text"),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
    ],
)
async def test_messages_that_are_none(messages: object, param: str):
    async with front() as found:
        blamed(await found.post("/v1/chat/completions", **{**CHAT, "messages": messages}), status=400, param=param)


async def test_a_field_that_is_missing():
    async with front() as found:
        needed = {"/v1/completions": "prompt", "/v1/chat/completions": "messages", "/detokenize": "tokens"}
        for path, field in needed.items():
            blamed(await found.post(path, model=MODEL), status=400, param=field, code="missing_field")


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b'"x"', b"\xff\xfe", b'{"a": ' * 20_000, b"null"])
async def test_what_is_no_json_object(content: bytes):
    async with front() as found:
        headers = {"content-type": "application/json"}
        response = await found.http.post("/v1/completions", content=content, headers=headers)
        assert blamed(response, status=400)
        form = await found.http.post("/v1/completions", data={"prompt": "x"})
        assert "application/json" in blamed(form, status=400)


async def test_a_prompt_beyond_the_context():
    async with front() as found:
        long = {"prompt": "the cat " * 2000}
        response = await found.post("/v1/completions", **{**STORY, **long})
        blamed(response, status=400, code="context_length_exceeded", param="prompt")
        response = await found.post("/v1/completions", **{**STORY, **long, "stream": True})
        blamed(response, status=400, code="context_length_exceeded", param="prompt")


async def test_a_body_that_is_too_long_by_its_word_or_in_fact():
    async with front(settings=GatewaySettings(max_body=2000)) as found:
        declared = await found.post("/v1/completions", **{**STORY, "prompt": "x" * 3000})
        assert "2000 bytes" in blamed(declared, status=413, code="body_too_large")

        async def parts(size: int):
            for _ in range(30):
                yield b" " * size

        for size in (100, 5000):
            blamed(await found.http.post("/v1/completions", content=parts(size)), status=413)
        # So much is not even read, whether the client hears of it or is cut off.
        with contextlib.suppress(httpx.TransportError):
            blamed(await found.http.post("/v1/completions", content=b" " * (2 << 20)), status=413)
        assert (await found.complete(max_tokens=2))["choices"]


async def test_models_routes_and_methods_that_are_not_there():
    async with front() as found:
        response = await found.post("/v1/completions", **{**STORY, "model": "gpt-5"})
        assert MODEL in blamed(response, status=404, code="model_not_found", param="model")
        blamed(await found.http.get("/v1/models/gpt-5"), status=404, code="model_not_found", param="model")
        blamed(await found.http.get("/v2/completions"), status=404)
        wrong = await found.http.get("/v1/completions")
        blamed(wrong, status=405)
        assert wrong.headers["allow"] == "POST"


async def test_openais_client_knows_our_errors():
    async with front() as found:
        with pytest.raises(openai.NotFoundError):
            await found.openai.completions.create(model="gpt-5", prompt="x")
        with pytest.raises(openai.BadRequestError) as caught:
            await found.openai.chat.completions.create(**CHAT, functions=[{"name": "f"}])
        assert caught.value.code == "unsupported_parameter" and caught.value.param == "functions"


async def test_nobody_is_there():
    async with (
        verifier_backend("127.0.0.1:1") as backend,
        gateway_to(backend) as (_, address),
        clients_of(address) as (_, http, asking),
    ):
        for response in (
            await http.get("/health"),
            await http.get("/v1/models"),
            await http.post("/v1/completions", json=STORY),
            await http.post("/v1/completions", json={**STORY, "stream": True}),
        ):
            message = blamed(response, status=503, code="unavailable")
            assert response.headers["retry-after"] == "1" and "127.0.0.1" not in message
        with pytest.raises(openai.InternalServerError):
            await asking.completions.create(model=MODEL, prompt="x")


async def test_a_fleet_of_two_models_and_of_none():
    async with fleet_front() as (server, at, http, asking):
        blamed(await http.get("/health"), status=503, code="unavailable")
        async with joined(at, named("org/first"), "a"), joined(at, named("second", salt=3), "b"):
            await registered(server, 2)
            listed = [model async for model in asking.models.list()]
            assert {(model.id, model.max_model_len, model.owned_by) for model in listed} == {
                ("org/first", 2048, "dragoman"),
                ("second", 2048, "dragoman"),
            }
            assert (await http.get("/v1/models/org/first")).json()["id"] == "org/first"
            assert (await http.get("/health")).status_code == 200
            fields = {"prompt": "a story: ", "seed": 1, "max_tokens": 20}
            answers = [await asking.completions.create(model=name, **fields) for name in ("org/first", "second")]
            assert [each.model for each in answers] == ["org/first", "second"]
            assert answers[0].choices[0].text != answers[1].choices[0].text
            assert answers[0].system_fingerprint != answers[1].system_fingerprint
            response = await http.post("/v1/completions", json=fields)
            assert "org/first" in blamed(response, status=400, param="model")


async def test_a_mistake_of_ours_is_logged_and_not_told(caplog: pytest.LogCaptureFixture):
    class Broken(TextEngine):
        def open(self, prompt_ids):
            raise RuntimeError("a secret of the engine's")

    async with front(Broken()) as found:
        for stream in (False, True):
            response = await found.post("/v1/completions", **{**STORY, "stream": stream})
            assert "secret" not in response.text
            if not stream:
                blamed(response, status=502, code="fleet_error")
    assert "a secret of the engine's" in caplog.text
