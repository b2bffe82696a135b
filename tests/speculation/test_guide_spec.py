"""What a text is asked to be held to: checked where it is made, in words that name the field."""

from __future__ import annotations

import dataclasses
import json

import pytest

from speculation.errors import InputError
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.guide_spec import ANY_OBJECT, MAX_GUIDE_BYTES, MAX_SCHEMA_DEPTH, GuideKind, GuideSpec
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule


def test_kinds_hold_their_texts():
    schema = {"type": "object", "properties": {"é": {"type": "string"}, "a": True}}
    spec = GuideSpec.json_schema(schema)
    assert (
        spec.kind is GuideKind.JSON_SCHEMA and spec.schema == schema and list(spec.schema["properties"]) == ["é", "a"]
    )
    assert spec == GuideSpec.json_schema(json.dumps(schema, ensure_ascii=False), field="response_format")
    assert GuideSpec.json_schema(True).schema is True
    assert GuideSpec.json_object().texts == (ANY_OBJECT,) and json.loads(ANY_OBJECT) == {"type": "object"}
    assert GuideSpec.regex("a+") == GuideSpec(GuideKind.REGEX, ("a+",))
    assert GuideSpec.choice(iter(["a", "b"])) == GuideSpec(GuideKind.CHOICE, ("a", "b"))
    assert GuideSpec.grammar("start: /a/").kind is GuideKind.GRAMMAR
    assert GuideSpec.tool_calls(iter(["f", "g"]), several=True) == GuideSpec(GuideKind.TOOL_CALLS, ("f", "g"))
    assert GuideSpec.tool_calls(["f"], several=False, field="tool_choice").kind is GuideKind.TOOL_CALL
    assert [kind.value for kind in GuideKind if not kind.calls_tools] == ["json_schema", "regex", "choice", "grammar"]
    assert [kind.value for kind in GuideKind if kind.calls_tools] == ["tool_call", "tool_calls"]


def test_in_the_place_of_calls_may_stand_an_answer_and_in_no_other():
    schema = GuideSpec.json_schema({"type": "integer"}, field="response_format")
    assert GuideSpec.tool_calls(["f"], several=True, answer=schema).answer == schema
    for kind, answer in (
        (GuideKind.TOOL_CALL, GuideSpec.regex("a")),
        (GuideKind.TOOL_CALLS, GuideSpec.tool_calls(["f"], several=False)),
        (GuideKind.REGEX, schema),
        (GuideKind.JSON_SCHEMA, schema),
    ):
        with pytest.raises(InputError, match=f"^{answer.name}.*no JSON schema beside calls"):
            GuideSpec(kind, ("{}",), answer=answer)
    half = GuideSpec.json_schema({"const": "x" * (MAX_GUIDE_BYTES // 2)})
    assert GuideSpec.tool_calls(["f"], several=True, answer=half)
    with pytest.raises(InputError, match=f"the limit is {MAX_GUIDE_BYTES} bytes"):
        GuideSpec.tool_calls(["f" * (MAX_GUIDE_BYTES // 2)], several=True, answer=half)


def test_a_schema_is_as_deep_as_it_may_be_on_any_python():
    lists = "[" * (MAX_SCHEMA_DEPTH - 1)
    assert GuideSpec.json_schema('{"enum": ' + lists + "]" * len(lists) + "}").schema
    for deeper in (MAX_SCHEMA_DEPTH, 5 * MAX_SCHEMA_DEPTH):
        with pytest.raises(InputError, match=f"^guided_json: has more than {MAX_SCHEMA_DEPTH} objects and lists"):
            GuideSpec.json_schema('{"enum": ' + "[" * deeper + "]" * deeper + "}", field="guided_json")


def test_a_guide_names_the_field_that_it_came_from():
    assert GuideSpec.regex("a").name == "regex"
    assert GuideSpec.regex("a", field="guided_regex").name == "guided_regex"
    with pytest.raises(InputError, match=r"^structured_outputs.json='{a': is not JSON"):
        GuideSpec.json_schema("{a", field="structured_outputs.json")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: GuideSpec.regex(""), "regex='': is empty"),
        (lambda: GuideSpec.choice([]), "choice=[]: must be one text; of choices or tools one or more"),
        (lambda: GuideSpec.choice(["a", ""]), "choice='': is empty"),
        (lambda: GuideSpec(GuideKind.REGEX, ("a", "b")), "regex=['a', 'b']: must be one text"),
        (lambda: GuideSpec.grammar("\ud800"), r"grammar='\ud800': is not UTF-8"),
        (lambda: GuideSpec.json_schema("[1]"), "json_schema='[1]': is no JSON schema"),
        (lambda: GuideSpec.json_schema("nope"), "json_schema='nope': is not JSON"),
        (lambda: GuideSpec.json_schema("[" * 9999), "is not JSON: maximum recursion"),
        (lambda: GuideSpec.json_schema({"enum": {1}}), "json_schema: cannot be written as JSON"),
        (lambda: GuideSpec.regex("é" * (MAX_GUIDE_BYTES // 2) + "a"), "regex='65537 bytes': is too long; the limit is"),
    ],
)
def test_mistakes_name_field_and_value(make, words: str):
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)


def test_as_long_as_the_limit_is_not_too_long():
    assert len(GuideSpec.choice(["a" * (MAX_GUIDE_BYTES - 1), "b"]).texts) == 2
    with pytest.raises(InputError, match="65537 bytes"):
        GuideSpec.choice(["a" * MAX_GUIDE_BYTES, "b"])


def test_what_cannot_go_with_a_guide_is_refused_with_the_reason():
    request = GenerationRequest(Prompt(text="x"), guide=GuideSpec.regex("a"))
    for rule in Rule:
        if rule.proposes:
            with pytest.raises(InputError, match=f"rule='{rule}': cannot go with regex: .* \\(use race or exact\\)"):
                dataclasses.replace(request, rule=rule)
            assert dataclasses.replace(request, rule=rule, guide=None).rule is rule
        else:
            assert dataclasses.replace(request, rule=rule).guide == request.guide
    with pytest.raises(InputError, match="ignore_end=True: cannot go with regex"):
        dataclasses.replace(request, ignore_end=True)
