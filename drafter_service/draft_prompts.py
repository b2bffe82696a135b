"""How a drafter reads a conversation: by its own chat template, or as near to that as the template lets it.

A target whose template refuses the messages says so to the client. A drafter's template concerns nobody but the
drafter: some refuse a system message, or two turns of one side, or have no tools, and a draft from nearly the right
prompt is better than none.
"""

from __future__ import annotations

from collections.abc import Sequence

from drafter_service.told_tools import told_tools
from language_models.conversation import Conversation
from language_models.tokenizer import TextTokenizer
from speculation.errors import InputError
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.template_kwargs import parse_template_kwargs

_SYSTEM, _USER, _ASSISTANT = (ChatMessage(role, "Hello") for role in ("system", "user", "assistant"))


def draft_prompt_ids(tokenizer: TextTokenizer, prompt: Prompt) -> list[int]:
    """The prompt in the drafter's own tokens. Raises InputError if it needs tokens that the model does not have."""
    if prompt.text is not None:
        return tokenizer.encode_prompt(prompt.text, special=prompt.special_tokens)
    plain = told_tools(prompt) if prompt.uses_tools else prompt.messages
    told = parse_template_kwargs(prompt.template_kwargs)
    ways = [Conversation(_plain(messages), template_kwargs=told) for messages in (plain, folded(plain))]
    if prompt.uses_tools and tokenizer.tool_format is not None:
        ways.insert(0, Conversation.of(prompt))
    for conversation in ways:
        try:
            return tokenizer.encode_conversation(conversation)
        except InputError:
            continue
    return tokenizer.encode_transcript(_plain(plain))


def folded(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The same words by user and assistant in turn: a system message begins the user's turn that follows it."""
    turns: list[ChatMessage] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1].role == role:
            turns[-1] = ChatMessage(role, f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(ChatMessage(role, message.content))
    return turns


def template_notes(tokenizer: TextTokenizer) -> list[str]:
    """What becomes of usual conversations that the drafter's template does not take; empty if it takes them all."""
    if not tokenizer.has_chat_template or _takes(tokenizer, (_SYSTEM, _USER, _ASSISTANT, _USER)):
        return []
    if not _takes(tokenizer, (_USER, _ASSISTANT, _USER)):
        return ["the drafter's template takes no conversation: read as a plain transcript"]
    return ["the drafter's template refuses system messages: folded into the first turn"]


def _takes(tokenizer: TextTokenizer, messages: Sequence[ChatMessage]) -> bool:
    try:
        tokenizer.encode_chat(_plain(messages))
    except InputError:
        return False
    return True


def _plain(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
