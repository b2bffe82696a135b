"""Between wire messages and plain values, both ways: what a text is held to."""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from speculation.protocol.guide_spec import GuideKind, GuideSpec


def guide_to_wire(spec: GuideSpec) -> pb.Guide:
    if spec.answer is not None:
        several, [schema] = spec.kind is GuideKind.TOOL_CALLS, spec.answer.texts
        return pb.Guide(calls_or_json=pb.CallsOrJson(names=spec.texts, several=several, json_schema=schema))
    match spec.kind:
        case GuideKind.JSON_SCHEMA:
            return pb.Guide(json_schema=spec.texts[0])
        case GuideKind.REGEX:
            return pb.Guide(regex=spec.texts[0])
        case GuideKind.CHOICE:
            return pb.Guide(choice=pb.Choices(texts=spec.texts))
        case GuideKind.GRAMMAR:
            return pb.Guide(grammar=spec.texts[0])
        case GuideKind.TOOL_CALL:
            return pb.Guide(tool_call=pb.ToolNames(names=spec.texts))
        case GuideKind.TOOL_CALLS:
            return pb.Guide(tool_calls=pb.ToolNames(names=spec.texts))


def guide_from_wire(message: pb.Guide) -> GuideSpec:
    """Raises InputError, also for a kind that is not known here."""
    match message.WhichOneof("kind"):
        case "json_schema":
            return GuideSpec.json_schema(message.json_schema)
        case "regex":
            return GuideSpec.regex(message.regex)
        case "choice":
            return GuideSpec.choice(message.choice.texts)
        case "grammar":
            return GuideSpec.grammar(message.grammar)
        case "tool_call":
            return GuideSpec.tool_calls(message.tool_call.names, several=False)
        case "tool_calls":
            return GuideSpec.tool_calls(message.tool_calls.names, several=True)
        case "calls_or_json":
            either = message.calls_or_json
            answer = GuideSpec.json_schema(either.json_schema)
            return GuideSpec.tool_calls(either.names, several=either.several, answer=answer)
    raise InputError("guide", None, "is of a kind that this verifier does not know", remedy="update it")
