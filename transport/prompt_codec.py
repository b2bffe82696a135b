"""Between wire messages and plain values, both ways: prompts, with the tools that go with them.

Decoding validates as ``transport/codec.py`` does.
"""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, ProtocolError
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.tools import Tool, ToolCall, ToolFormat

_FORMATS = {
    ToolFormat.TEXT: pb.TOOL_FORMAT_TEXT,
    ToolFormat.HERMES: pb.TOOL_FORMAT_HERMES,
    ToolFormat.LLAMA_JSON: pb.TOOL_FORMAT_LLAMA_JSON,
}
_FORMATS_BACK = {value: known for known, value in _FORMATS.items()}


def prompt_to_wire(prompt: Prompt) -> pb.Prompt:
    messages = [
        pb.ChatMessage(
            role=m.role,
            content=m.content,
            tool_calls=[pb.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in m.tool_calls],
            tool_call_id=m.tool_call_id,
        )
        for m in prompt.messages
    ]
    tools = [pb.Tool(name=t.name, description=t.description, parameters=t.parameters) for t in prompt.tools]
    return pb.Prompt(
        text=(prompt.text or "").encode(),
        messages=messages,
        tools=tools,
        template_kwargs=prompt.template_kwargs,
        special_tokens=prompt.special_tokens,
    )


def prompt_from_wire(prompt: pb.Prompt) -> Prompt:
    try:
        text = prompt.text.decode() if prompt.text else None
    except UnicodeDecodeError as error:
        raise InputError("prompt", prompt.text, f"is not UTF-8: {error.reason} at byte {error.start}") from None
    messages, tools = map(_message_from_wire, prompt.messages), map(_tool_from_wire, prompt.tools)
    return Prompt(
        text,
        tuple(messages),
        tuple(tools),
        template_kwargs=prompt.template_kwargs,
        special_tokens=prompt.special_tokens,
    )


def _message_from_wire(message: pb.ChatMessage) -> ChatMessage:
    calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls)
    return ChatMessage(message.role, message.content, tool_calls=calls, tool_call_id=message.tool_call_id)


def _tool_from_wire(tool: pb.Tool) -> Tool:
    return Tool(
        tool.name,
        tool.description if tool.HasField("description") else None,
        tool.parameters if tool.HasField("parameters") else None,
    )


def tool_format_to_wire(known: ToolFormat | None) -> pb.ToolFormat:
    return _FORMATS[known] if known is not None else pb.TOOL_FORMAT_UNSPECIFIED


def tool_format_from_wire(told: pb.ToolFormat) -> ToolFormat | None:
    """None where nothing is told. One that is not known here, of a newer verifier, is text."""
    return None if told == pb.TOOL_FORMAT_UNSPECIFIED else _FORMATS_BACK.get(told, ToolFormat.TEXT)


def check_read(prompt: Prompt, *, template_kwargs: bool, special_tokens: bool) -> None:
    """What a verifier says that it read of a prompt. Raises ProtocolError for one that is too old to know a field."""
    if prompt.template_kwargs and not template_kwargs:
        raise ProtocolError("the verifier is too old to know chat_template_kwargs", remedy="update it")
    if prompt.special_tokens and not special_tokens:
        raise ProtocolError("the verifier is too old to read special tokens in a text", remedy="update it")
