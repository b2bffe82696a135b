"""Guides by llguidance: what they allow, what they force, and what cannot be made one."""

from __future__ import annotations

import functools
import random
import re
import sys

import llguidance
import pytest

from speculation.errors import InputError, SessionError, UnsupportedFieldError
from speculation.guide import Forced
from speculation.protocol.guide_spec import GuideSpec
from speculation.text.byte_vocab import ByteVocab
from tests.support.guides import ODD, allowed, guide_for, write
from tests.support.text_models import TARGET_VOCAB
from verifier_service import grammar_guide
from verifier_service.guides import Guides

END = TARGET_VOCAB.end_ids[0]

EXPRESSIONS = [r"(the|a) (cat|dog)s? [0-9]{1,3}", r"[a-c]*x?", r"猫|🐶|the mat\.", r"(the cat|the )+!"]


@pytest.mark.parametrize("expression", EXPRESSIONS)
async def test_a_token_is_allowed_where_some_text_can_come_of_it(expression: str):
    """Against Python's own expressions: every text that is written fits, and what fits can be written."""
    rng = random.Random(expression)
    compiled = re.compile(expression.encode())
    for _ in range(8):
        guide = await guide_for(GuideSpec.regex(expression))
        text = b""
        while True:
            possible = allowed(guide)
            assert (END in possible) == bool(compiled.fullmatch(text)), text
            assert all(TARGET_VOCAB.bytes_of(token) or token == END for token in possible), (
                "no special token, no padding"
            )
            token = rng.choice(sorted(possible))
            if token == END or len(text) > 30:
                break
            guide.advance(token)
            text += TARGET_VOCAB.bytes_of(token)
        assert token != END or compiled.fullmatch(text)


async def test_a_mask_depends_on_the_text_before_it_alone():
    """However the guide came there, whatever other paths were looked at: drafts change no row."""
    rng = random.Random(2)
    schema = {
        "type": "object",
        "properties": {"the cat": {"enum": ["sat on", "sat too", "猫"]}, "n": {"type": "integer"}},
    }
    spec = GuideSpec.json_schema({**schema, "required": ["the cat"], "additionalProperties": False})
    for _ in range(5):
        guide, written = await guide_for(spec), []
        for _ in range(20):
            paths: list[tuple[int, ...]] = [()]
            for _ in range(rng.randrange(6)):
                start = rng.choice(paths)
                paths.append((*start, rng.choice(sorted(allowed(guide, start) - {END} or {0}))))
            rng.shuffle(paths)
            fresh = await guide_for(spec)
            for token in written:
                fresh.advance(token)
            assert guide.masks(paths) == [fresh.masks([path])[0] for path in paths]
            for path in paths:
                assert guide.fits(path) == all(path[at] in allowed(fresh, path[:at]) for at in range(len(path)))
            token = rng.choice(sorted(allowed(guide)))
            if token == END:
                break
            guide.advance(token)
            written.append(token)


async def test_any_spelling_is_allowed_also_of_what_is_forced():
    guide = await guide_for(GuideSpec.choice(["the cat sat"]))
    assert {TARGET_VOCAB.bytes_of(token) for token in allowed(guide)} == {b"t", b"the"}
    assert guide.forced() == Forced(b"the cat sat", True)
    write(guide, "t")
    assert guide.forced() == Forced(b"he cat sat", True)
    assert guide.fits((104, 101, 257)) and not guide.fits((104, 256))


async def test_duplicates_are_allowed_and_what_has_no_bytes_is_not():
    guide = await guide_for(GuideSpec.regex("ab?"), ODD)
    assert allowed(guide, vocab=ODD) == {0, 2, 3}
    assert allowed(guide, (3,), vocab=ODD) == {1, 5, 9} and allowed(guide, (2,), vocab=ODD) == {5, 9}


async def test_after_the_end_there_is_nothing_else():
    guide = await guide_for(GuideSpec.choice(["a", "ab"]))
    assert guide.fits((97, END)) and not guide.fits((END,)) and not guide.fits((98, END))
    assert allowed(guide, (97, END)) == {END}
    write(guide, "a")
    assert allowed(guide) == {98, END} and guide.forced() == Forced()
    guide.advance(END)
    assert allowed(guide) == allowed(guide, (98,)) == {END}
    assert not guide.fits((98,)) and guide.forced() == Forced()
    with pytest.raises(SessionError, match="cannot be held to its guide"):
        guide.advance(98)


async def test_a_token_that_is_not_allowed_loses_the_guide_but_not_as_a_draft():
    guide = await guide_for(GuideSpec.choice(["the cat"]))
    assert not guide.fits((98,)) and guide.masks([(98, 98), ()])[1] == guide.masks([()])[0]
    with pytest.raises(SessionError):
        guide.advance(98)


async def test_json_is_written_as_python_writes_it():
    guide = await guide_for(GuideSpec.json_schema({"const": {"a": [1, 2], "b": "é"}}))
    assert guide.forced() == Forced('{"a": [1, 2], "b": "é"}'.encode(), True)
    schema = {"const": [1, 2], "x-guidance": {"item_separator": ","}}
    assert (await guide_for(GuideSpec.json_schema(schema))).forced() == Forced(b"[1,2]", True)


async def test_choices_are_taken_as_they_are():
    choices = ['say "hi"', "a\nb", "back\\slash", "/x/", "猫"]
    guide = await guide_for(GuideSpec.choice(choices))
    assert {TARGET_VOCAB.bytes_of(token)[:1] for token in allowed(guide)} == {each.encode()[:1] for each in choices}
    for choice in choices:
        guide = await guide_for(GuideSpec.choice([choice]))
        assert guide.forced() == Forced(choice.encode(), True)


async def test_formats_that_say_nothing_of_a_text_are_annotations():
    """As pydantic writes them for secrets, paths and numbers. Data that looks like one is data."""
    secret = {"type": "string", "format": "password", "minLength": 2, "maxLength": 2}
    schema = {
        "type": "object",
        "properties": {"format": secret, "mode": {"const": {"format": "path"}}},
        "required": ["format", "mode"],
        "additionalProperties": False,
    }
    guide = await guide_for(GuideSpec.json_schema(schema))
    assert guide.forced() == Forced(b'{"format": "', False)
    write(guide, '{"format": "ab')
    assert guide.forced() == Forced(b'", "mode": {"format": "path"}}', True)


@pytest.mark.parametrize(
    "grammar", ['start: "the " noun\nnoun: "cat" | "dog"', 'root ::= "the " noun\nnoun ::= "cat" | "dog"']
)
async def test_grammars_of_both_notations(grammar: str):
    guide = await guide_for(GuideSpec.grammar(grammar))
    assert guide.forced() == Forced(b"the ", False)
    write(guide, "the d")
    assert guide.forced() == Forced(b"og", True)


@pytest.mark.parametrize(
    "spec, words",
    [
        (GuideSpec.regex("(a"), r"regex='\(a': cannot be compiled: .*unclosed group"),
        (GuideSpec.regex("(?=a)b", field="guided_regex"), "guided_regex='.*look-around.* is not supported"),
        (GuideSpec.json_schema({"type": "objec"}), "json_schema='.*Invalid type: objec"),
        (GuideSpec.json_schema({"type": "array", "uniqueItems": True}), r'Unimplemented keys: \["uniqueItems"\]'),
        (GuideSpec.json_schema({"$ref": "#/nowhere"}), "'/nowhere' does not exist"),
        (GuideSpec.json_schema({"type": "integer", "minimum": 3, "maximum": 2}), "Unsatisfiable schema"),
        (GuideSpec.json_schema(False), "json_schema='false': cannot be compiled: nothing fits it"),
        (GuideSpec.grammar("start: foo"), r'grammar=.*at 1\(8\): unknown name: "foo"'),
        (GuideSpec.grammar("start: <pause>"), "unknown special token"),
        (GuideSpec.grammar("no grammar"), "grammar='no grammar': cannot be compiled"),
        (GuideSpec.grammar("start: " + "(" * 5000 + '"a"' + ")" * 5000), "too deeply nested"),
    ],
)
async def test_what_cannot_be_compiled_is_named_in_one_line(spec: GuideSpec, words: str):
    with pytest.raises(InputError, match=words) as caught:
        await guide_for(spec)
    assert "\n" not in str(caught.value) and "no_forcing" not in str(caught.value) and len(str(caught.value)) < 500


async def test_limits(monkeypatch: pytest.MonkeyPatch):
    made = Guides(TARGET_VOCAB)
    guide = await made.compile(GuideSpec.regex("a{3}"))
    monkeypatch.setattr(grammar_guide, "MASK_SECONDS", -1.0)
    with pytest.raises(SessionError, match="the guide takes longer than"):
        guide.masks([()])
    monkeypatch.setattr(grammar_guide, "FORCED_BYTES", 2)
    assert guide.forced() == Forced(b"aa", False)
    monkeypatch.setattr(grammar_guide, "FORCED_SECONDS", -1.0)
    assert guide.forced() == Forced()
    monkeypatch.undo()
    assert guide.forced() == Forced(), "it is not asked again"
    guide.advance(97)
    made.close()


async def test_a_parser_that_reaches_its_limit_does_not_end_the_text(monkeypatch: pytest.MonkeyPatch):
    """It would allow the end token then, and nothing else."""
    small = functools.partial(llguidance.LLParserLimits, step_max_items=1)
    monkeypatch.setattr(llguidance, "LLParserLimits", small)
    with pytest.raises(InputError, match=r"cannot be held to its guide any more: .*limit 1"):
        await guide_for(GuideSpec.grammar('start: x\nx: "a" x | "b" x x | "c"'))


async def test_without_the_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UnsupportedFieldError, match=r"regex: needs llguidance \(.*pip install dragoman\[guided\]"):
        await guide_for(GuideSpec.regex("a"))


async def test_a_model_without_an_end_token_has_no_guides():
    with pytest.raises(UnsupportedFieldError, match="has no end token"):
        await guide_for(GuideSpec.regex("a"), ByteVocab((b"a", b"b")))
