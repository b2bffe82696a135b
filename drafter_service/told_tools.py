"""Tools in plain words, for a drafter whose chat template has none.

In the words of Hermes and Qwen, which most models that know tools have seen: a draft from nearly the right prompt is
better than none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from language_models.conversation import Conversation
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.tools import ToolCall


def told_tools(prompt: Prompt) -> list[ChatMessage]:
    """The same conversation without tools and calls: tools stand in the system's words, calls in the assistant's, and
    what a tool answered is said by the user."""
    messages = [_told(message) for message in prompt.messages]
    if prompt.tools:
        words = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in Conversation.of(prompt).tools)
        words = f"# Tools\n\nYou may call functions:\n<tools>\n{words}\n</tools>"
        first = messages[0] if messages[0].role == "system" else ChatMessage("system", "")
        told = ChatMessage("system", _joined([first.content, words], "\n\n"))
        messages = [told, *(messages[1:] if messages[0].role == "system" else messages)]
    return messages


def _told(message: ChatMessage) -> ChatMessage:
    if message.role == "tool":
        return ChatMessage("user", f"<tool_response>\n{message.content}\n</tool_response>")
    calls = [_told_call(call) for call in message.tool_calls]
    return ChatMessage(message.role, _joined([message.content, *calls], "\n"))


def _told_call(call: ToolCall) -> str:
    name = json.dumps(call.name, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {call.arguments}}}\n</tool_call>'


def _joined(texts: Sequence[str], between: str) -> str:
    return between.join(text for text in texts if text)
