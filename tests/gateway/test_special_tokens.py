"""Special tokens spelled in raw prompts: text, unless the gateway was told to read them."""

from __future__ import annotations

import pytest

from dragoman.client import Client
from dragoman.transcript import Transcript
from gateway.settings import GatewaySettings
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, ProtocolError
from speculation.protocol.generation import GenerationRequest, Started
from speculation.protocol.messages import ChatMessage, Prompt
from tests.support.gateways import MODEL, front
from tests.support.text_engine import TextTokenizer
from transport.generation_codec import event_from_wire, event_to_wire, request_from_wire, request_to_wire
from transport.limits import WireLimits

TEXT = "<pause>the cat<pause> sat"
READ = TextTokenizer().prompt_ids(Prompt(TEXT, special_tokens=True))
LITERAL = TextTokenizer().prompt_ids(Prompt(TEXT))
READING = GatewaySettings(special_tokens=True)


async def test_they_are_text_or_tokens():
    assert len(READ) < len(LITERAL)
    for settings, ids in ((GatewaySettings(), LITERAL), (READING, READ)):
        async with front(settings=settings) as found:
            assert (await found.post("/tokenize", prompt=TEXT)).json()["tokens"] == ids
            written = await found.post("/v1/completions", model=MODEL, prompt=TEXT, max_tokens=4, seed=3)
            assert written.status_code == 200 and written.json()["usage"]["prompt_tokens"] == len(ids)


async def test_ids_with_special_tokens_are_prompts_where_names_are_read():
    asked = {"model": MODEL, "max_tokens": 8, "seed": 3, "temperature": 0.8, "ignore_eos": True}
    async with front(settings=READING) as found:
        answers = [(await found.post("/v1/completions", prompt=each, **asked)).json() for each in (READ, TEXT)]
        assert answers[0]["choices"] == answers[1]["choices"] and answers[0]["usage"] == answers[1]["usage"]
        async with Client(str(found.verifier_address)) as client:
            own = await client.complete(Prompt(TEXT, special_tokens=True), max_tokens=1)
            assert own.prompt_tokens == len(READ)
        literal = (await found.post("/v1/completions", prompt=LITERAL, **asked)).json()
        assert literal["usage"]["prompt_tokens"] == len(LITERAL), "ids that are text stay text"
    async with front() as found:
        refused = await found.post("/v1/completions", prompt=READ, **asked)
        assert refused.status_code == 400 and "the special token <pause>" in refused.json()["error"]["message"]


async def test_counting_leaves_out_what_the_tokenizer_adds_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    pause, plain = READ[0], TextTokenizer.prompt_ids

    def prompt_ids(self: TextTokenizer, prompt: Prompt) -> list[int]:
        ids = plain(self, prompt)
        return ids if ids[:1] == [pause] else [pause, *ids]

    monkeypatch.setattr(TextTokenizer, "prompt_ids", prompt_ids)
    async with front(settings=READING) as found:
        for text, ids in ((TEXT, READ), (f"a {TEXT}", [*TextTokenizer().encode("a "), *READ]), ("a", [ord("a")])):
            told = (await found.post("/tokenize", prompt=text, add_special_tokens=False)).json()
            assert told["tokens"] == ids and told["count"] == len(ids)


def test_both_ways_on_the_wire():
    for read in (True, False):
        request = GenerationRequest(prompt=Prompt(TEXT, special_tokens=read))
        message = pb.GenerateRequest.FromString(request_to_wire(request).SerializeToString())
        assert request_from_wire(message, WireLimits()) == request
        assert event_from_wire(event_to_wire(event := Started("s", 1, special_tokens=read))) == event


def test_a_verifier_too_old_for_them_is_left():
    transcript = Transcript(GenerationRequest(prompt=Prompt(TEXT, special_tokens=True)), on_chunk=lambda chunk: None)
    with pytest.raises(ProtocolError, match="too old to read special tokens"):
        transcript.take(Started("s", 1))
    transcript.take(Started("s", 1, special_tokens=True))


def test_messages_spell_none():
    with pytest.raises(InputError, match="special_tokens=True: is for a text to continue"):
        Prompt(messages=(ChatMessage("user", "hi"),), special_tokens=True)
