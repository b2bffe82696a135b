"""Calls of tools in texts: what is told depends on the text alone, and nothing is lost or told twice."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.json_scan import ObjectScan
from gateway.tool_parser import Argued, Called, Said, ToolEvent
from gateway.tool_parsers import tool_parser
from speculation.protocol.tools import ToolFormat

NAMES = {"add", "now"}
HERMES, LLAMA = ToolFormat.HERMES, ToolFormat.LLAMA_JSON
ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, "x}"]}}\n</tool_call>'
NOW = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
JSON_ADD = '{"name": "add", "parameters": {"a": 1}}'


def told(known: ToolFormat, *pieces: str) -> list[ToolEvent]:
    """With what belongs together joined, as a client joins it."""
    parser = tool_parser(known, NAMES)
    assert parser is not None
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    joined: list[ToolEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, Said) and isinstance(last, Said):
            joined[-1] = Said(last.text + event.text)
        elif isinstance(event, Argued) and isinstance(last, Argued):
            joined[-1] = Argued(last.text + event.text)
        else:
            joined.append(event)
    return joined


A_CALL: list[ToolEvent] = [Called("add"), Argued('{"a": 1, "b": [2, "x}"]}')]
OTHER = '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>'
CASES: dict[str, tuple[ToolFormat, str, list[ToolEvent]]] = {
    "nothing": (HERMES, "", []),
    "text": (HERMES, " a < b <tool and {} \n", [Said(" a < b <tool and {} \n")]),
    "a call": (HERMES, ADD, A_CALL),
    "words and calls": (
        HERMES,
        f"Let me see.\n\n{ADD}\n{NOW} \n and then ",
        [Said("Let me see."), *A_CALL, Called("now"), Argued("{}"), Said("and then ")],
    ),
    "space alone is not said beside a call": (HERMES, f"\n{ADD}\n", A_CALL),
    "the end is missing": (HERMES, ADD.removesuffix("\n</tool_call>"), A_CALL),
    "half of the end": (HERMES, ADD.removesuffix("call>"), A_CALL),
    "a brace is missing": (HERMES, ADD.replace("}}\n", "}\n"), A_CALL),
    "a brace too many": (HERMES, ADD.replace("}}\n", "}}}\n"), [*A_CALL, Said("}\n</tool_call>")]),
    "no such function": (HERMES, OTHER, [Said(OTHER)]),
    "no JSON": (HERMES, f"<tool_call>add(1, 2)</tool_call>{NOW}", [
        Said("<tool_call>add(1, 2)</tool_call>"), Called("now"), Argued("{}")]),
    "a call in what is none": (HERMES, f'<tool_call>{{"name": {NOW}', [
        Said('<tool_call>{"name":'), Called("now"), Argued("{}")]),
    "a mark in a mark": (HERMES, f"<tool_<tool_call><{NOW}", [
        Said("<tool_<tool_call><"), Called("now"), Argued("{}")]),
    "cut in the name": (HERMES, ADD[:25], [Said(ADD[:25])]),
    "cut in the arguments": (HERMES, ADD[:50], [Called("add"), Argued('{"a": 1, ')]),
    "broken arguments": (HERMES, "<tool_call>{\"name\": \"add\", \"arguments\": {'a': 1}} </tool_call> so", [
        Called("add"), Argued("{'a': 1}}"), Said("so")]),
    "broken arguments without an end": (HERMES, '<tool_call>{"name": "add", "arguments": {1 </tool ', [
        Called("add"), Argued("{1 </tool")]),
    "arguments twice": (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "add", "arguments": {}}</tool_call>', [
        Called("add"), Argued('{"a": 1}')]),
    "arguments after none": (HERMES, '<tool_call>{"name": "add", "arguments": null, "arguments": {"a": 2}}', [
        Called("add"), Argued("{}")]),
    "a number for a name": (HERMES, f'<tool_call>{{"name": {"1" * 5000}, ', [
        Said(f'<tool_call>{{"name": {"1" * 5000}, ')]),
    "a deep list for a name": (HERMES, f'<tool_call>{{"name": {"[" * 3000}{"]" * 3000}, ', [
        Said(f'<tool_call>{{"name": {"[" * 3000}{"]" * 3000}, ')]),
    "long arguments": (HERMES, f'<tool_call>{{"name": "add", "arguments": {{"a": "{"x y" * 4000}"}}}}</tool_call>', [
        Called("add"), Argued(f'{{"a": "{"x y" * 4000}"}}')]),
    "another order": (HERMES, '<tool_call>{"arguments": {"a": 1}, "id": 7, "name": "add"}</tool_call>', [
        Called("add"), Argued('{"a": 1}')]),
    "more members": (HERMES, '<tool_call>{"id": 7, "name": "add", "arguments": {"a": 1}, "x": [{}]}</tool_call>', [
        Called("add"), Argued('{"a": 1}')]),
    "arguments as a string": (HERMES, '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', [
        Called("add"), Argued('{"a": 1}')]),
    "no arguments": (HERMES, '<tool_call>{"name": "now"}</tool_call>', [Called("now"), Argued("{}")]),
    "null for arguments": (HERMES, '<tool_call>{"name": "now", "arguments": null}', [Called("now"), Argued("{}")]),
    "arguments that are none": (HERMES, '<tool_call>{"name": "now", "arguments": 5}', [
        Said('<tool_call>{"name": "now", "arguments": 5}')]),
    "a name that is none": (HERMES, '<tool_call>{"name": 5}', [Said('<tool_call>{"name": 5}')]),
    "an object": (LLAMA, f" {JSON_ADD}\n", [Called("add"), Argued('{"a": 1}')]),
    "objects": (LLAMA, f"{JSON_ADD}; {JSON_ADD}", [
        Called("add"), Argued('{"a": 1}'), Called("add"), Argued('{"a": 1}')]),
    "an object and words": (LLAMA, f"{JSON_ADD} ; so", [Called("add"), Argued('{"a": 1}'), Said("; so")]),
    "words and an object": (LLAMA, f" So: {JSON_ADD}", [Said(f" So: {JSON_ADD}")]),
    "another object": (LLAMA, ' {"a": 1} ', [Said(' {"a": 1} ')]),
    "an object that is cut": (LLAMA, '{"name": "add", "par', [Said('{"name": "add", "par')]),
    "a broken object": (LLAMA, '{"name": "add", "parameters": {1 2 ', [Called("add"), Argued("{1 2")]),
    "a half of two": (LLAMA, f'{JSON_ADD}; {{"name"', [Called("add"), Argued('{"a": 1}'), Said('; {"name"')]),
}  # fmt: skip


@pytest.mark.parametrize("known, text, events", CASES.values(), ids=CASES.keys())
def test_what_a_text_tells(known: ToolFormat, text: str, events: list[ToolEvent]):
    assert told(known, text) == events
    assert told(known, *text) == events


PIECES = st.lists(
    st.sampled_from([
        ADD, NOW, OTHER, JSON_ADD, "<tool_call>", "</tool_call>", "{", "}", '"', '"name": "add"', '"arguments": ',
        '"parameters": ', ", ", ": ", "[", "]", "1", "-", ".5e+1", "true", "nul", "\\u00e9", "\\", " ", "\n", ";", "<",
        "<tool", "a", "猫",
    ]),
    max_size=14,
).map("".join)  # fmt: skip


@given(text=PIECES, cuts=st.lists(st.integers(0, 400), max_size=8), known=st.sampled_from([HERMES, LLAMA]))
def test_any_cut_tells_the_same(text: str, cuts: list[int], known: ToolFormat):
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    assert told(known, *(text[a:b] for a, b in itertools.pairwise(places))) == told(known, text)


@given(text=PIECES, known=st.sampled_from([HERMES, LLAMA]))
def test_nothing_is_lost_or_told_twice(text: str, known: ToolFormat):
    """What is told stands in the text, piece after piece in its order; without a call it is the text."""
    events = told(known, text)
    if not any(isinstance(event, Called) for event in events):
        assert events == ([Said(text)] if text else [])
    at = 0
    for event in events:
        if isinstance(event, Said):
            assert event.text in text[at:]
            at = text.index(event.text, at) + len(event.text)


@given(text=PIECES, cut=st.integers(0, 400))
def test_what_was_told_stays_told(text: str, cut: int):
    """What is told of a beginning is the beginning of what is told."""
    parser = tool_parser(HERMES, NAMES)
    assert parser is not None
    before = "".join(map(repr, _characters(parser.feed(text[:cut]))))
    assert "".join(map(repr, _characters(told(HERMES, text)))).startswith(before)


def _characters(events: list[ToolEvent]) -> list[tuple[str, str]]:
    return [
        (type(event).__name__, c)
        for event in events
        for c in ([event.name] if isinstance(event, Called) else event.text)
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    value=st.dictionaries(st.text(max_size=3), VALUES, max_size=4),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    behind=st.text(max_size=2),
)
def test_the_scan_takes_any_object_and_no_more(value: dict, ascii_only: bool, indent: int | None, behind: str):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    scan = ObjectScan()
    assert all(map(scan.take, text)) and scan.over and scan.text == text
    assert {name: json.loads(member) for name, member in scan.members.items()} == value
    assert not any(scan.take(c) for c in behind[:1])


@given(text=PIECES.map(lambda text: "{" + text))
def test_the_scan_takes_what_json_takes(text: str):
    scan = ObjectScan()
    taken = all(map(scan.take, text)) and scan.over
    try:
        assert isinstance(json.loads(text), dict)
    except ValueError:
        assert not taken
    else:
        assert taken or text != text.strip()
