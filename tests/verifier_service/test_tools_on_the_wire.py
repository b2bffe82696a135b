"""Tools from a client through a verifier to a drafter: the text is the target's own, and old peers are told apart."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafter_service.model_drafter import ModelDrafter
from dragoman.client import Client
from dragoman.transcript import Transcript
from gateway.tool_parser import Argued, Called
from gateway.tool_parsers import tool_parser
from language_models.causal_lm import CausalLM
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, ProtocolError, UnsupportedFieldError
from speculation.protocol.generation import GenerationRequest, Started
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.tools import Tool, ToolCall, ToolFormat
from speculation.sampling.params import SamplingParams
from tests.support.service_drivers import drafters, drafting, serving
from tests.support.text_engine import TextEngine
from tests.support.tiny_models import load_tiny
from tests.support.tool_templates import QWEN_LIKE
from transport import prompt_codec
from transport.generation_codec import event_from_wire, event_to_wire, request_from_wire, request_to_wire
from transport.limits import WireLimits
from verifier_service.tool_guide import tool_grammar
from verifier_service.transformers_engine import TransformersEngine

SCHEMA = {
    "type": "object",
    "properties": {"fish": {"$ref": "#/$defs/fish"}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["fish"],
    "additionalProperties": False,
    "$defs": {"fish": {"enum": ["🐟", "heron"]}},
}
TOOL = Tool("add", "a fish", json.dumps(SCHEMA, ensure_ascii=False))
ASKED = Prompt(
    messages=(
        ChatMessage("user", "hi"),
        ChatMessage("assistant", "", (ToolCall("c", "add", "{}"),)),
        ChatMessage("tool", "a heron", tool_call_id="c"),
    ),
    tools=(TOOL,),
)
#: The tiny models' contexts have 512 tokens.
SHORT = Prompt(messages=(*ASKED.messages[:2], ChatMessage("user", "so?")), tools=(Tool("add"),))


def with_tools(model: Path, path: Path) -> CausalLM:
    """A tiny model whose template has tools."""
    shutil.copytree(model, path)
    (path / "chat_template.jinja").write_text(QWEN_LIKE)
    return load_tiny(path)


@pytest.mark.parametrize("drafts_with_tools", [True, False], ids=["own template", "told in words"])
async def test_the_text_is_the_targets_own_whoever_drafts(
    drafts_with_tools: bool, tiny_qwen2: Path, tiny_llama: Path, tmp_path: Path
):
    engine = TransformersEngine(with_tools(tiny_qwen2, tmp_path / "target"))
    drafter = with_tools(tiny_llama, tmp_path / "drafter") if drafts_with_tools else load_tiny(tiny_llama)
    guide = GuideSpec.tool_calls(["add"], several=True)
    async with (
        serving(engine) as (verifier, address),
        drafting(address, ModelDrafter(drafter)),
        Client(address) as client,
    ):
        await drafters(verifier, 1)
        for held in (None, guide):
            for sampling in (SamplingParams(), SamplingParams(temperature=0.9, seed=4)):
                alone, drafted = [
                    await client.complete(SHORT, sampling=sampling, max_tokens=50, guide=held, draft=draft)
                    for draft in (False, True)
                ]
                assert drafted.token_ids == alone.token_ids and alone.tool_format is ToolFormat.HERMES
                assert drafted.shares_of(drafted.shares[0].source)
        parser = tool_parser(ToolFormat.HERMES, {"add"})
        assert parser is not None
        events = parser.feed(drafted.text) + parser.finish()
        assert events[0] == Called("add") and isinstance(events[1], Argued)
        assert list(await client.tokenize(SHORT)) == engine.tokenizer.prompt_ids(SHORT)


@given(
    names=st.lists(st.from_regex(r"[a-z_-]{1,8}", fullmatch=True), min_size=1, max_size=3, unique=True),
    known=st.sampled_from([ToolFormat.HERMES, ToolFormat.LLAMA_JSON]),
)
def test_what_a_grammar_asks_for_the_parser_reads(names: list[str], known: ToolFormat):
    """Both say how a call looks; here they are held together."""
    lark = tool_grammar(GuideSpec.tool_calls(names, several=False), [Tool(name) for name in names], known)
    for number, name in enumerate(names):
        rule = next(line for line in lark.splitlines() if line.startswith(f"call{number}: "))
        head, _, tail = rule.removeprefix(f"call{number}: ").partition(f" args{number} ")
        parser = tool_parser(known, names)
        assert parser is not None
        assert parser.feed(f"{json.loads(head)}{{}}{json.loads(tail)}") == [Called(name), Argued("{}")]
        assert parser.finish() == []


async def test_calls_are_valid_by_schemas_with_definitions():
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        for seed in range(4):
            guide = GuideSpec.tool_calls(["add"], several=False)
            sampling = SamplingParams(temperature=1.0, seed=seed)
            text = (await client.complete(ASKED, sampling=sampling, guide=guide, max_tokens=200)).text
            called = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
            assert called["name"] == "add"
            jsonschema.validate(called["arguments"], SCHEMA)
        for names, tools, words in (
            (["sub"], (TOOL,), "tool_call='sub': is none of the prompt's tools"),
            (["add"], (), "is none of the prompt's tools"),
            (["bad"], (Tool("bad", None, '{"uniqueItems": true}'),), "tool_call='bad': cannot be held to its param"),
        ):
            prompt = dataclasses.replace(ASKED, tools=tools)
            with pytest.raises(InputError, match=words):
                await client.complete(prompt, guide=GuideSpec.tool_calls(names, several=False))


CLOSED = {"properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/one", "$defs": {"one": CLOSED}},
        {"type": ["object", "string"], **CLOSED},
        {"anyOf": [{"type": "string"}, CLOSED]},
    ],
    ids=["elsewhere", "of two kinds", "any of two"],
)
async def test_arguments_are_an_object_whatever_else_a_schema_allows(schema: dict[str, Any]):
    prompt = dataclasses.replace(ASKED, tools=(Tool("add", None, json.dumps(schema)),))
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        for seed in range(6):
            guide = GuideSpec.tool_calls(["add"], several=False)
            sampling = SamplingParams(temperature=1.0, seed=seed)
            completion = await client.complete(prompt, sampling=sampling, guide=guide, max_tokens=200)
            parser = tool_parser(ToolFormat.HERMES, {"add"})
            assert parser is not None
            called, *_ = parser.feed(completion.text) + parser.finish()
            assert called == Called("add")


async def test_arguments_that_can_be_no_object_are_refused():
    prompt = dataclasses.replace(ASKED, tools=(Tool("add", None, '{"type": "string"}'),))
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        with pytest.raises(InputError, match=r"'add': has parameters of type 'string' \(describe an object"):
            await client.complete(prompt, guide=GuideSpec.tool_calls(["add"], several=False))


def test_a_model_whose_calls_are_not_known_cannot_be_held_to_any():
    for known in (None, ToolFormat.TEXT):
        with pytest.raises(UnsupportedFieldError, match="no way of calling tools that is known here"):
            tool_grammar(GuideSpec.tool_calls(["add"], several=True), [TOOL], known)


def test_both_ways_on_the_wire():
    schema = GuideSpec.json_schema(SCHEMA)
    for several, answer in itertools.product((True, False), (None, schema)):
        guide = GuideSpec.tool_calls(["add"], several=several, answer=answer)
        request = GenerationRequest(prompt=ASKED, guide=guide)
        message = pb.GenerateRequest.FromString(request_to_wire(request).SerializeToString())
        assert request_from_wire(message, WireLimits()) == request
    bare = Prompt(messages=ASKED.messages, tools=(Tool("f"), Tool("g", "", "{}")))
    assert prompt_codec.prompt_from_wire(prompt_codec.prompt_to_wire(bare)) == bare
    for known in (None, *ToolFormat):
        event = Started("s", 1, tool_format=known)
        assert event_from_wire(event_to_wire(event)) == event
    newer = pb.GenerateResponse(started=pb.GenerateStarted(session="s"))
    newer.started.tool_format = 77
    told = event_from_wire(newer)
    assert isinstance(told, Started) and told.tool_format is ToolFormat.TEXT


def test_a_verifier_too_old_for_tools_is_left():
    transcript = Transcript(GenerationRequest(prompt=ASKED), on_chunk=lambda chunk: None)
    with pytest.raises(ProtocolError, match="too old to know of tools"):
        transcript.take(Started("s", 1))
    history = Prompt(messages=ASKED.messages)
    with pytest.raises(ProtocolError, match="too old to know of tools"):
        Transcript(GenerationRequest(prompt=history), on_chunk=lambda chunk: None).take(Started("s", 1))
    transcript.take(Started("s", 1, tool_format=ToolFormat.TEXT))
    assert transcript.completion.tool_format is ToolFormat.TEXT
