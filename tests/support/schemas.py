"""JSON schemas of every kind that people ask for, small enough that a model that babbles comes to an end."""

from __future__ import annotations

from typing import Any, Final


def closed_object(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    """Of exactly these properties, all of them required if nothing else is said."""
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


#: Strings end soon, whatever a model babbles.
SHORT: Final = {"type": "string", "maxLength": 3}
DIGIT: Final = {"type": "integer", "minimum": 0, "maximum": 9}

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "empty object": {"type": "object", "properties": {}, "additionalProperties": False},
    "constant": {"const": {"a": [1, "b", None]}},
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "enum of strings": {"enum": ["red", "green", "blue"]},
    "enum of kinds": {"enum": [1, "one", None, True, [2]]},
    "short string": SHORT,
    "string of a length": {"type": "string", "minLength": 2, "maxLength": 4},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "pattern of choices": {"type": "string", "pattern": "^(cat|dog|bird)s?$"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time", "maxLength": 14},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "bounded integer": {"type": "integer", "minimum": -12, "maximum": 345},
    "exclusive bounds": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 6},
    "bounded number": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    "multiple": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 25},
    "array of booleans": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    "array of a length": {"type": "array", "items": DIGIT, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [DIGIT, {"type": "boolean"}], "items": False, "minItems": 2},
    "array of objects": {"type": "array", "items": closed_object(on={"type": "boolean"}), "minItems": 1, "maxItems": 2},
    "flat object": closed_object(name=SHORT, age=DIGIT, member={"type": "boolean"}),
    "optional properties": closed_object(["a"], a=DIGIT, b=DIGIT, c=SHORT),
    "nested": closed_object(outer=closed_object(inner=closed_object(value=DIGIT))),
    "long names": closed_object(
        first_property_with_a_rather_long_name=DIGIT, second_property_with_a_rather_long_name={"type": "null"}
    ),
    "unicode": closed_object(naïve={"enum": ["é", "猫", "🐶"]}, größe=DIGIT),
    "escapes": closed_object(**{'a "quoted" name': {"const": 'tab\tand "quote" \\ back'}}),
    "additional properties": {
        "type": "object",
        "properties": {"a": DIGIT},
        "required": ["a"],
        "additionalProperties": {"type": "boolean"},
        "maxProperties": 2,
    },
    "any of": {"anyOf": [closed_object(cat=DIGIT), closed_object(dog={"type": "boolean"}), {"type": "null"}]},
    "any of kinds": {"type": ["integer", "boolean", "null"], "minimum": 0, "maximum": 20},
    "one of constants": {"oneOf": [{"const": "a"}, {"const": "b"}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 17}]},
    "definitions": {
        "$defs": {"point": closed_object(x=DIGIT, y=DIGIT)},
        **closed_object(start={"$ref": "#/$defs/point"}, end={"$ref": "#/$defs/point"}),
    },
    "a tree": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]}, "value": DIGIT},
                "required": ["left", "value"],
                "additionalProperties": False,
            },
            "leaf": closed_object(value=DIGIT),
        },
        "$ref": "#/$defs/node",
    },
    "a call": closed_object(
        tool={"const": "weather"}, arguments=closed_object(city={"enum": ["Oslo", "Kyoto"]}, days={"enum": [1, 3, 7]})
    ),
}
