"""A guide that has a text be calls of tools: in the model's own way of writing them, with arguments that are valid by
the tools' parameters. Or, where the model may choose, JSON that fits a schema in the place of calls."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from speculation.errors import InputError, UnsupportedFieldError
from speculation.guide import Guide
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.guide_spec import MAX_GUIDE_BYTES, GuideKind, GuideSpec
from speculation.protocol.tools import Tool, ToolFormat
from verifier_service.engine import Tokenizer
from verifier_service.guides import Guides, json_rule
from verifier_service.schema_rewrite import moved

#: What stands before a function's name, between it and the arguments, after them, and between two calls.
_AROUND: Final = {
    ToolFormat.HERMES: ('<tool_call>\n{"name": ', ', "arguments": ', "}\n</tool_call>", "\n"),
    ToolFormat.LLAMA_JSON: ('{"name": ', ', "parameters": ', "}", ""),
}

#: Which tool is at fault is looked for only where all of them took no longer to be refused.
_SOON_SECONDS: Final = 1.0


async def compiled(guides: Guides, request: GenerationRequest, tokenizer: Tokenizer) -> Guide | None:
    """What the request's text is held to; None: nothing. Raises InputError, and what ``Guides.compile`` raises."""
    spec = request.guide
    if spec is None or not spec.kind.calls_tools:
        return await guides.compile(spec) if spec is not None else None
    tools = _called(spec, request.prompt.tools)
    lark = tool_grammar(spec, tools, tokenizer.tool_format)
    began = time.monotonic()
    try:
        return await guides.compile(spec, lark=lark)
    except UnsupportedFieldError:
        raise
    except InputError as error:
        if time.monotonic() - began > _SOON_SECONDS:
            raise
        raise await _of_one_tool(guides, spec, tools) or error from error


def tool_grammar(spec: GuideSpec, tools: Sequence[Tool], known: ToolFormat | None) -> str:
    """In Lark's notation. Raises InputError for a model whose way of calling is not known, and for what is too
    large."""
    around = _AROUND.get(known) if known is not None else None
    if around is None:
        why = "cannot be had: this model's chat template shows no way of calling tools that is known here"
        remedy = "let the model choose" if spec.answer is None else "leave the schema or the tools out"
        raise UnsupportedFieldError(spec.name, None, why, remedy=remedy)
    if spec.answer is None:
        rules = ["start: calls", *_call_rules(spec, tools, *around)]
    else:
        schema = spec.answer.schema
        answer = json_rule(schema, spec.answer)  # of what nothing fits it raises, also where another rule is used
        if known is ToolFormat.LLAMA_JSON:
            rules = [f"start: {json_rule(_call_or_answer(spec, schema, tools), spec)}"]
        else:
            rules = ["start: calls | answer", *_call_rules(spec, tools, *around), f"answer: {answer}"]
    lark = "\n".join(rules)
    if (size := len(lark.encode())) > MAX_GUIDE_BYTES:
        problem = f"has parameters of {size} bytes; the limit is {MAX_GUIDE_BYTES} bytes"
        raise InputError(spec.name, spec.texts, problem, remedy="give fewer tools, or name one of them")
    return lark


def _call_rules(
    spec: GuideSpec, tools: Sequence[Tool], before: str, between: str, after: str, apart: str
) -> Iterator[str]:
    """For ``calls``. The last four: see ``_AROUND``."""
    several = spec.kind is GuideKind.TOOL_CALLS and bool(apart)  # else the model knows one call at a time only
    yield f"calls: call ({json.dumps(apart)} call)*" if several else "calls: call"
    yield f"call: {' | '.join(f'call{number}' for number in range(len(tools)))}"
    for number, tool in enumerate(tools):
        head, tail = (json.dumps(text) for text in (f"{before}{json.dumps(tool.name)}{between}", after))
        yield f"call{number}: {head} args{number} {tail}"
        yield f"args{number}: {json_rule(_arguments(tool, spec.name), spec)}"


def _call_or_answer(spec: GuideSpec, answer: dict[str, Any] | bool, tools: Sequence[Tool]) -> dict[str, Any]:
    """A schema of a call as Llama writes it, or of the answer: JSON both, which may begin alike. Rules of a grammar
    would take the longest piece of text that one of them knows, and what begins like a call could not be an answer."""
    arguments = [_arguments(tool, spec.name) for tool in tools]
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                "parameters": moved(schema, f"#/anyOf/{number}/properties/parameters"),
            },
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }
        for number, (tool, schema) in enumerate(zip(tools, arguments, strict=True))
    ]
    return {"anyOf": [*calls, moved(answer, f"#/anyOf/{len(calls)}")], "x-guidance": _style(answer, arguments)}


def _style(answer: dict[str, Any] | bool, arguments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the parts tell llguidance of reading and writing them, of which it takes the root's alone."""
    told = [schema.get("x-guidance") if isinstance(schema, dict) else None for schema in (answer, *arguments)]
    of_answer, *others = [style if isinstance(style, dict) else {} for style in told]
    lenient = any(style.get("lenient") is True for style in (of_answer, *others))
    return {**of_answer, **({"lenient": True} if lenient else {})}


def _called(spec: GuideSpec, tools: Sequence[Tool]) -> list[Tool]:
    by_name = {tool.name: tool for tool in tools}
    for name in spec.texts:
        if name not in by_name:
            raise InputError(spec.name, name, "is none of the prompt's tools")
    return [by_name[name] for name in spec.texts]


def _arguments(tool: Tool, field: str) -> dict[str, Any]:
    """Arguments are an object, whether the schema says so or not; a tool without parameters takes none.

    Raises InputError for a schema of anything else.
    """
    if tool.parameters is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    kinds = tool.schema.get("type", "object")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        raise InputError(field, tool.name, f"has parameters of type {kinds!r}", remedy="describe an object")
    return {**tool.schema, "type": "object"}


async def _of_one_tool(guides: Guides, spec: GuideSpec, tools: Sequence[Tool]) -> InputError | None:
    """What is wrong with the first of them, or the answer, that cannot be compiled by itself."""
    for tool in tools:
        try:
            await guides.compile(GuideSpec.json_schema(_arguments(tool, spec.name), field=spec.name))
        except InputError as error:
            problem = f"cannot be held to its parameters: {error.problem}"
            return InputError(spec.name, tool.name, problem, remedy=error.remedy)
    if spec.answer is not None:
        try:
            await guides.compile(spec.answer)
        except InputError as error:
            return error
    return None
