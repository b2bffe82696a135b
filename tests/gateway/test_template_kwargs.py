"""chat_template_kwargs from a client to the model's tokenizer, and to no verifier that would not read them."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.transcript import Transcript
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ProtocolError
from speculation.protocol.generation import GenerationRequest, Started
from speculation.protocol.messages import ChatMessage, Prompt
from tests.support.gateways import MODEL, STORY, front
from tests.support.text_engine import TextTokenizer
from transport.generation_codec import event_from_wire, event_to_wire, request_from_wire, request_to_wire
from transport.limits import WireLimits
from transport.tokenizing_codec import tokenize_response_from_wire, tokenize_response_to_wire

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
TOLD = {"enable_thinking": False, "style": "猫"}
ASKED = Prompt(messages=(ChatMessage("user", "hi"),), template_kwargs='{"enable_thinking": false}')


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the tokenizer was told, prompt by prompt."""
    seen: list[str] = []
    plain = TextTokenizer.prompt_ids

    def prompt_ids(self: TextTokenizer, prompt: Prompt) -> list[int]:
        seen.append(prompt.template_kwargs)
        return plain(self, prompt)

    monkeypatch.setattr(TextTokenizer, "prompt_ids", prompt_ids)
    return seen


async def test_conversations_have_them(read: list[str]):
    async with front() as found:
        for told in (TOLD, {}, None):
            answer = await found.post("/v1/chat/completions", **{**CHAT, "chat_template_kwargs": told})
            assert answer.status_code == 200, answer.text
        await found.post("/tokenize", model=MODEL, messages=CHAT["messages"], chat_template_kwargs=TOLD)
        said = await found.openai.chat.completions.create(**CHAT, extra_body={"chat_template_kwargs": TOLD})
        assert said.choices[0].message.content
    assert read == [
        '{"enable_thinking": false, "style": "猫"}',
        "",
        "",
        *['{"enable_thinking": false, "style": "猫"}'] * 2,
    ]


@pytest.mark.parametrize(
    ("path", "body", "told", "param"),
    [
        ("/v1/chat/completions", CHAT, [1], "chat_template_kwargs"),
        ("/v1/chat/completions", CHAT, {"tools": []}, "chat_template_kwargs.tools"),
        ("/v1/chat/completions", CHAT, {"a": "x" * 5000}, "chat_template_kwargs"),
        ("/v1/completions", STORY, TOLD, "chat_template_kwargs"),
        ("/tokenize", {"prompt": "a"}, TOLD, "chat_template_kwargs"),
    ],
)
async def test_others_are_refused(path: str, body: dict, told: object, param: str):
    async with front() as found:
        refused = await found.post(path, **{**body, "chat_template_kwargs": told})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_both_ways_on_the_wire():
    message = pb.GenerateRequest.FromString(request_to_wire(GenerationRequest(prompt=ASKED)).SerializeToString())
    assert request_from_wire(message, WireLimits()).prompt == ASKED
    for told in (True, False):
        assert event_from_wire(event_to_wire(event := Started("s", 1, template_kwargs=told))) == event


def test_a_verifier_too_old_for_them_counts_no_tokens():
    for prompt in (ASKED, Prompt("hi", special_tokens=True)):
        told = tokenize_response_to_wire(prompt, [3, 5])
        assert tokenize_response_from_wire(told, prompt) == (3, 5)
        with pytest.raises(ProtocolError, match="too old to"):
            tokenize_response_from_wire(pb.TokenizeResponse(token_ids=[3, 5]), prompt)
    assert tokenize_response_from_wire(pb.TokenizeResponse(token_ids=[3]), Prompt("hi")) == (3,)


def test_a_verifier_too_old_for_them_is_left():
    transcript = Transcript(GenerationRequest(prompt=ASKED), on_chunk=lambda chunk: None)
    with pytest.raises(ProtocolError, match="too old to know chat_template_kwargs"):
        transcript.take(Started("s", 1))
    transcript.take(Started("s", 1, template_kwargs=True))
