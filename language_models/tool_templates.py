"""What a chat template does with tools: whether it has any, and how the model that it is for writes calls.

A conversation with a call in it is rendered, and how the call stands there is looked up in a table: models write as
their templates do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from language_models.chat_template import SYSTEM, USER, ChatTemplate
from language_models.conversation import Conversation, Message
from speculation.errors import InputError
from speculation.protocol.tools import ToolFormat

_NAME, _KEY, _WORD = "dragoman_function", "dragoman_key", "dragoman"
_ID = "call00000"  # of nine characters, as Mistral's templates want it
_TOOL: Final[Mapping[str, Any]] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": _WORD,
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string", "description": _WORD}}},
    },
}
_CALL: Final[Message] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": _ID, "type": "function", "function": {"name": _NAME, "arguments": {_KEY: _WORD}}}],
}
_ANSWER: Final[Message] = {"role": "tool", "content": _WORD, "tool_call_id": _ID, "name": _NAME}
#: A template need not take all of them.
_ASKED: Final[Sequence[Sequence[Message]]] = ((USER,), (SYSTEM, USER))
_CALLED: Final[Sequence[Sequence[Message]]] = ((USER, _CALL), (USER, _CALL, _ANSWER), (SYSTEM, USER, _CALL, _ANSWER))


def _written(before: str, key: str, after: str) -> re.Pattern[str]:
    return re.compile(
        rf'{before}\{{\s*"name":\s*"{_NAME}",\s*"{key}":\s*\{{\s*"{_KEY}":\s*"{_WORD}"\s*\}}\s*\}}{after}'
    )


#: How the call above stands in a template's text, the more particular one first.
_FORMATS: Final[Mapping[ToolFormat, re.Pattern[str]]] = {
    ToolFormat.HERMES: _written(r"<tool_call>\s*", "arguments", r"\s*</tool_call>"),
    ToolFormat.LLAMA_JSON: _written("", "parameters", ""),
}
#: Words without which a format is none: where they are special tokens, a text does not have them.
_MARKS: Final = {ToolFormat.HERMES: ("<tool_call>", "</tool_call>")}


def tool_format_of(template: ChatTemplate, special: Sequence[str]) -> ToolFormat | None:
    """None: it has no tools. ``special``: names of tokens that are not text."""
    if not has_tools(template):
        return None
    for text in _rendered(template, _CALLED):
        for known, pattern in _FORMATS.items():
            if pattern.search(text) and not set(_MARKS.get(known, ())) & set(special):
                return known
    return ToolFormat.TEXT


def has_tools(template: ChatTemplate) -> bool:
    """Whether it has a place for them."""
    return bool(template) and any(_NAME in text for text in _rendered(template, _ASKED))


def tool_texts(template: ChatTemplate) -> list[str]:
    """Conversations with tools, calls and answers, as far as it takes such."""
    return _rendered(template, (*_ASKED, *_CALLED)) if has_tools(template) else []


def _rendered(template: ChatTemplate, conversations: Sequence[Sequence[Message]]) -> list[str]:
    """With the tool; without those that the template refuses."""
    texts = []
    for messages in conversations:
        try:
            texts.append(template.text(Conversation(messages, (_TOOL,))))
        except InputError:
            continue
    return texts
