"""A conversation as chat templates take it: messages, and the tools that go with them, in the shapes that they know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speculation.protocol.messages import Prompt
from speculation.protocol.template_kwargs import parse_template_kwargs

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """``messages``: {role, content}, and {tool_calls}, or {tool_call_id, name}, where there are any.

    ``tools``: {type: function, function: {name, description, parameters}}. ``template_kwargs``: by name, what else the
    template is told.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, prompt: Prompt) -> Conversation:
        """Of a prompt that has messages. Raises InputError for arguments that are no JSON objects."""
        names: dict[str, str] = {}  # of the function that each call called
        messages: list[Message] = []
        for turn in prompt.messages:
            message: dict[str, Any] = {"role": turn.role, "content": turn.content}
            if turn.tool_calls:
                names.update((call.id, call.name) for call in turn.tool_calls)
                message["tool_calls"] = [
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.parsed}}
                    for call in turn.tool_calls
                ]
            if turn.tool_call_id:
                message["tool_call_id"] = turn.tool_call_id
                if turn.tool_call_id in names:
                    message["name"] = names[turn.tool_call_id]
            messages.append(message)
        tools = []
        for tool in prompt.tools:
            function = {"name": tool.name}
            if tool.description is not None:
                function["description"] = tool.description
            schema = tool.schema or {"type": "object", "properties": {}}
            tools.append({"type": "function", "function": {**function, "parameters": schema}})
        return cls(messages, tools, parse_template_kwargs(prompt.template_kwargs))

    @property
    def texts(self) -> Iterator[str]:
        """All that is not the template's own."""
        for message in self.messages:
            given = {name: value for name, value in message.items() if name not in _STRUCTURE}
            yield from _texts(given)
        yield from _texts([*self.tools, *self.template_kwargs.values()])

    @property
    def nested_kwargs(self) -> Iterator[str]:
        """Texts within lists and objects of ``template_kwargs``, which a template may write as Python would."""
        yield from _texts([value for value in self.template_kwargs.values() if not isinstance(value, str)])

    @property
    def length(self) -> int:
        """Characters of ``texts``."""
        return sum(map(len, self.texts))

    def mapped(self, change: Callable[[str], str]) -> Conversation:
        """The same with other ``texts``."""
        return Conversation(
            [
                {name: value if name in _STRUCTURE else _mapped(value, change) for name, value in message.items()}
                for message in self.messages
            ],
            [_mapped(tool, change) for tool in self.tools],
            {name: _mapped(value, change) for name, value in self.template_kwargs.items()},
        )


#: Keys of a message whose values decide what the template does.
_STRUCTURE = frozenset({"role"})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _mapped(inner, change) for name, inner in value.items()}
    if isinstance(value, Sequence):
        return [_mapped(inner, change) for inner in value]
    return value
