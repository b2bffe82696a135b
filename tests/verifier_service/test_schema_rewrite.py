"""What of a JSON schema is left out before it is compiled, and what is data, or a name, and left alone."""

from __future__ import annotations

from typing import Any

import pytest

from speculation.protocol.guide_spec import GuideSpec
from tests.support.guides import guide_for
from verifier_service.schema_rewrite import moved, without_annotations

WORD: dict[str, Any] = {"type": "string", "format": "password"}
PLAIN: dict[str, Any] = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "left"),
    [
        (WORD, PLAIN),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"anyOf": [WORD, {"items": WORD}]}, {"anyOf": [PLAIN, {"items": PLAIN}]}),
        ({"properties": {"default": WORD, "enum": WORD}}, {"properties": {"default": PLAIN, "enum": PLAIN}}),
        (
            {"$defs": {"const": {"properties": {"format": WORD}}}},
            {"$defs": {"const": {"properties": {"format": PLAIN}}}},
        ),
        ({"const": WORD, "enum": [WORD], "default": WORD}, {"const": WORD, "enum": [WORD], "default": WORD}),
        ({"type": "array", "uniqueItems": False}, {"type": "array"}),
        ({"type": "array", "uniqueItems": True}, {"type": "array", "uniqueItems": True}),
        ({"propertyNames": True}, {}),
        ({"propertyNames": {"type": "string"}}, {}),
        ({"propertyNames": WORD}, {}),
        ({"propertyNames": False}, {"propertyNames": False}),
        ({"propertyNames": {"enum": ["a"]}}, {"propertyNames": {"enum": ["a"]}}),
        ({"required": ["format"], "format": {"odd": 1}}, {"required": ["format"], "format": {"odd": 1}}),
        (True, True),
    ],
)
async def test_what_restricts_nothing_is_left_out_and_nothing_else(schema: Any, left: Any):
    assert without_annotations(schema) == left


@pytest.mark.parametrize("name", ["default", "const", "enum", "examples", "properties", "$ref", "format"])
async def test_properties_may_have_the_names_of_keywords(name: str):
    schema = {"properties": {name: WORD}, "required": [name], "additionalProperties": False}
    assert await guide_for(GuideSpec.json_schema({"type": "object", **schema}))


def test_what_a_schema_refers_to_in_itself_moves_with_it():
    schema = {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"items": {"$ref": "#"}}, "$ref": {"$ref": "#/$defs/a"}},
        "properties": {"$ref": {"type": "string"}, "default": {"$ref": "#/$defs/a"}},
        "anyOf": [{"$ref": "https://example.com/other"}, {"const": {"$ref": "#/data"}}],
    }
    assert moved(schema, "#/anyOf/3") == {
        "$ref": "#/anyOf/3/$defs/a",
        "$defs": {"a": {"items": {"$ref": "#/anyOf/3"}}, "$ref": {"$ref": "#/anyOf/3/$defs/a"}},
        "properties": {"$ref": {"type": "string"}, "default": {"$ref": "#/anyOf/3/$defs/a"}},
        "anyOf": [{"$ref": "https://example.com/other"}, {"const": {"$ref": "#/data"}}],
    }
    assert moved(True, "#/x") is True
