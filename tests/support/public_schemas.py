"""Schemas of the kinds that programs ask for in public: configurations, calls, records, answers, documents.

Written for the tests, after the kinds of JSONSchemaBench (arXiv 2501.10868), whose own files have licences of
their own. Strings and lists are short, so that a model that babbles comes to an end.
"""

from __future__ import annotations

from typing import Any, Final

from tests.support.schemas import DIGIT, SHORT, closed_object

Schema = dict[str, Any]

_FLAG: Final = {"type": "boolean"}
_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 3}
_PORT: Final = {"type": "integer", "minimum": 1, "maximum": 65535}


def _list_of(items: Schema, at_least: int = 0, at_most: int = 2) -> Schema:
    return {"type": "array", "items": items, "minItems": at_least, "maxItems": at_most}


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _optional(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_POINT: Final = {"type": "array", "prefixItems": [DIGIT, DIGIT], "items": False, "minItems": 2}

_CONFIGURATIONS: Final[dict[str, Schema]] = {
    "package": closed_object(["name"], name=_text("[a-z]{1,4}"), version=_text(r"\d\.\d\.\d"), private=_FLAG),
    "compiler options": closed_object([], strict=_FLAG, target={"enum": ["es5", "es2022"]}, lib=_list_of(SHORT)),
    "workflow trigger": closed_object(on={"enum": ["push", "pull_request"]}, branches=_list_of(_NAME, 1)),
    "probe": closed_object(grpc=closed_object(["port"], port=_PORT, service=SHORT), periodSeconds=DIGIT),
    "resources": closed_object(limits=closed_object(cpu=_text(r"\d{1,3}m"), memory=_text(r"\d{1,2}(Mi|Gi)"))),
    "toleration": closed_object(["key", "operator"], key=_NAME, operator={"enum": ["Exists", "Equal"]}, value=SHORT),
    "service of a compose file": closed_object(["image"], image=_text("[a-z]{2,5}:[0-9]"), ports=_list_of(_PORT)),
    "log settings": closed_object(level={"enum": ["debug", "info", "error"]}, json=_FLAG, file=_optional(SHORT)),
    "feature flag": closed_object(flag=_text("[a-z]{2}_[a-z]{2}"), enabled=_FLAG, rollout=_SHARE),
    "linter rule": {
        "oneOf": [
            {"enum": ["off", "warn"]},
            {"type": "array", "prefixItems": [{"const": "error"}], "items": False, "minItems": 1},
        ]
    },
    "policy": closed_object(effect={"enum": ["Allow", "Deny"]}, actions=_list_of(_text("[a-z]{2}:[A-Z]{2}"), 1)),
    "cron": closed_object(schedule=_text(r"[0-5]?\d [01]?\d \* \* [0-6]"), suspend=_FLAG),
    "alert": closed_object(alert=_text("[A-Z][a-z]{1,4}"), expr={"const": "up == 0"}, **{"for": _text(r"\d[smh]")}),
    "network": closed_object(
        cidr=_text(r"10\.\d\.\d\.0/(16|24)"), gateway=_optional({"type": "string", "format": "ipv4"})
    ),
    "font": closed_object(family={"enum": ["serif", "mono"]}, size={"type": "integer", "minimum": 6, "maximum": 72}),
    "theme": closed_object(primary=_text("#[0-9a-f]{6}"), dark=_FLAG),
}

_CALLS: Final[dict[str, Schema]] = {
    "search": closed_object(name={"const": "search"}, arguments=closed_object(query=_NAME, limit=DIGIT)),
    "calculator": closed_object(a=DIGIT, b=DIGIT, operator={"enum": ["+", "-", "*", "/"]}),
    "one of two tools": {
        "anyOf": [
            closed_object(name={"const": "wait"}, arguments=closed_object(seconds=DIGIT)),
            closed_object(name={"const": "stop"}, arguments=closed_object()),
        ]
    },
    "calls in parallel": _list_of(closed_object(name={"enum": ["left", "right"]}, steps=DIGIT), 1, 3),
    "remote procedure": closed_object(
        ["jsonrpc", "method"], jsonrpc={"const": "2.0"}, method=_NAME, id=_optional(DIGIT)
    ),
    "patch": _list_of(closed_object(op={"enum": ["add", "remove"]}, path=_text("/[a-z]{1,3}")), 1),
    "filter": closed_object(
        field=_NAME,
        op={"enum": ["eq", "lt", "in"]},
        value={"type": ["integer", "boolean"], "minimum": 0, "maximum": 99},
    ),
    "page of a list": closed_object(["limit"], limit={"type": "integer", "minimum": 1, "maximum": 100}, cursor=SHORT),
    "robot": closed_object(
        move={"enum": ["north", "south"]}, distance={"type": "integer", "multipleOf": 10, "minimum": 0, "maximum": 90}
    ),
    "e-mail": closed_object(to=_text("[a-z]{1,3}@[a-z]{1,3}\\.org"), subject=SHORT, urgent=_FLAG),
    "calendar event": closed_object(day={"type": "string", "format": "date"}, start=_text(r"([01]\d|2[0-3]):[0-5]\d")),
    "chess move": closed_object(move=_text("([KQRBN]?[a-h][1-8]|O-O)"), check=_FLAG),
}

_ANSWERS: Final[dict[str, Schema]] = {
    "sentiment": closed_object(label={"enum": ["positive", "neutral", "negative"]}, confidence=_SHARE),
    "entities": _list_of(closed_object(text=_NAME, type={"enum": ["person", "place"]}), 0, 2),
    "multiple choice": closed_object(answer={"enum": ["A", "B", "C", "D"]}, sure=_FLAG),
    "steps and result": closed_object(
        steps=_list_of(SHORT, 1), result={"type": "integer", "minimum": 0, "maximum": 999}
    ),
    "translation": closed_object(source={"enum": ["en", "de"]}, target={"enum": ["fr", "猫"]}, text=SHORT),
    "review": closed_object(
        stars={"type": "integer", "minimum": 1, "maximum": 5}, text=SHORT, recommend=_optional(_FLAG)
    ),
    "topics": {"type": "array", "items": {"enum": ["art", "law", "sea"]}, "minItems": 1, "maxItems": 3},
    "extracted date": {"anyOf": [{"type": "string", "format": "date"}, {"const": "unknown"}]},
    "score by name": {"type": "object", "additionalProperties": DIGIT, "maxProperties": 2, "properties": {}},
    "yes, no, and why": {"oneOf": [closed_object(yes={"const": True}), closed_object(yes={"const": False}, why=SHORT)]},
    "matrix": _list_of(_list_of(DIGIT, 2, 2), 2, 2),
    "code review": closed_object(
        line={"type": "integer", "minimum": 1, "maximum": 999}, kind={"enum": ["bug", "style"]}
    ),
    "judge": closed_object(
        winner={"enum": ["first", "second", "tie"]}, scores=closed_object(first=DIGIT, second=DIGIT)
    ),
    "keywords": closed_object(keywords=_list_of(_text("[a-z]{2,5}"), 1, 3)),
}

_RECORDS: Final[dict[str, Schema]] = {
    "person": closed_object(
        ["name"], name=_NAME, born={"type": "integer", "minimum": 1900, "maximum": 2026}, pet=SHORT
    ),
    "address": closed_object(
        street=_NAME, number=DIGIT, postcode=_text(r"\d{5}"), country={"enum": ["NO", "JP", "KE"]}
    ),
    "order line": closed_object(
        sku=_text("[A-Z]{3}-[0-9]{2}"),
        quantity=DIGIT,
        price={"type": "number", "minimum": 0, "maximum": 9, "multipleOf": 0.5},
    ),
    "invoice": closed_object(number=_text("R-[0-9]{4}"), paid=_FLAG, lines=_list_of(closed_object(amount=DIGIT), 1)),
    "money": closed_object(amount=_text(r"\d{1,3}\.\d{2}"), currency={"enum": ["EUR", "JPY"]}),
    "flight": closed_object(**{"from": _text("[A-Z]{3}"), "to": _text("[A-Z]{3}"), "stops": DIGIT}),
    "booking": closed_object(nights={"type": "integer", "minimum": 1, "maximum": 30}, breakfast=_optional(_FLAG)),
    "dose": closed_object(mg={"type": "integer", "minimum": 0, "maximum": 500, "multipleOf": 50}, times_a_day=DIGIT),
    "element": closed_object(symbol=_text("[A-Z][a-z]?"), number={"type": "integer", "minimum": 1, "maximum": 118}),
    "reading": closed_object(
        sensor=_text("s[0-9]"), value={"type": "number", "minimum": -8, "maximum": 8, "multipleOf": 0.5}, ok=_FLAG
    ),
    "track": closed_object(
        title=SHORT, seconds={"type": "integer", "minimum": 1, "maximum": 600}, liked=_optional(_FLAG)
    ),
    "result of a game": closed_object(home=DIGIT, away=DIGIT, decided={"enum": ["regular", "overtime"]}),
    "identifiers": closed_object(uuid={"type": "string", "format": "uuid"}),
    "plate": _text("[A-Z]{1,2}-[A-Z]{2} [0-9]{1,3}"),
    "version": _text(r"(0|[1-9]\d?)\.(0|[1-9]\d?)\.(0|[1-9]\d?)(-rc\d)?"),
}

_DOCUMENTS: Final[dict[str, Schema]] = {
    "point on a map": closed_object(type={"const": "Point"}, coordinates=_POINT),
    "line on a map": closed_object(type={"const": "LineString"}, coordinates=_list_of(_POINT, 2, 3)),
    "event envelope": closed_object(
        specversion={"const": "1.0"}, type=_text("[a-z]{2}\\.[a-z]{2}"), data=_optional(DIGIT)
    ),
    "error envelope": closed_object(error=closed_object(code={"enum": [400, 404, 500]}, message=SHORT)),
    "linked list": {
        "$defs": {
            "cell": closed_object(head=DIGIT, tail={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/last"}]}),
            "last": closed_object(head=DIGIT, tail={"type": "null"}),
        },
        "$ref": "#/$defs/cell",
    },
    "graph": closed_object(nodes=_list_of(DIGIT, 1, 3), edges=_list_of(_POINT)),
    "button or text": {
        "oneOf": [
            closed_object(kind={"const": "button"}, label=SHORT, disabled=_FLAG),
            closed_object(kind={"const": "text"}, value=SHORT),
        ]
    },
}

#: By name; no name is one of ``tests.support.schemas.SCHEMAS``.
PUBLIC_SCHEMAS: Final[dict[str, Schema]] = _CONFIGURATIONS | _CALLS | _ANSWERS | _RECORDS | _DOCUMENTS
