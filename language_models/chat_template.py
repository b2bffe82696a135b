"""A model's chat template: messages in, a prompt's text out, and which of its special tokens are the template's own.

A template is code: it trims, cuts, compares and repeats what it is given. So it is given the contents themselves, and
then once more with the names marked that they spell, which tells where in the text those names have come to stand.
The marks are characters that neither the contents nor the template use; none of them is left in the text.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from language_models.conversation import Conversation, Message
from language_models.special_names import SpecialNames, Spot
from language_models.template_limits import bounded_time, check_length
from speculation.errors import InputError, ModelError

Render = Callable[[Conversation], str]

#: Words of the conversations that are rendered to see what a template does.
_WORDS = "dragomansays"
SYSTEM, USER, ASSISTANT = ({"role": role, "content": _WORDS} for role in ("system", "user", "assistant"))
#: A template need not take all of them.
CONVERSATIONS = ((SYSTEM, USER, ASSISTANT, USER), (USER, ASSISTANT, USER), (USER,))


@dataclass(frozen=True, slots=True)
class Rendered:
    """``spelled``: characters of ``text`` that come from contents and spell special tokens, or parts of their names."""

    text: str
    spelled: frozenset[int] = frozenset()

    def own_names(self, names: SpecialNames) -> list[Spot]:
        """Where the template itself wrote a name."""
        return [spot for spot in names.spots(self.text) if self.spelled.isdisjoint(range(*spot))]


def render_template(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, answer: bool) -> str:
    """By the tokenizer's own template, in a sandbox. Raises what the template raises, TimeoutError or ValueError if it
    makes too much of the messages."""
    with bounded_time():
        text = tokenizer.apply_chat_template(
            [dict(message) for message in conversation.messages],
            tools=[dict(tool) for tool in conversation.tools] or None,
            tokenize=False,
            add_generation_prompt=answer,
            **conversation.template_kwargs,
        )
    assert isinstance(text, str)
    check_length(text, messages=conversation.length)
    return text


def without_end(error: BaseException) -> ModelError:
    """What a model is refused with whose template ``render_template`` had to stop."""
    return ModelError(f"its chat template cannot be used: {error}")


class ChatTemplate:
    """Renders a conversation as the prompt that a model was trained on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def __bool__(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def text(self, messages: Sequence[Message] | Conversation, *, answer: bool = True) -> str:
        """What a prompt of these messages is, with ``answer`` up to where the answer begins.

        Raises InputError if the template refuses the messages, or makes too much of them.
        """
        given = messages if isinstance(messages, Conversation) else Conversation(messages)
        try:
            known = [{**m, "role": self._known_role(m["role"])} for m in given.messages]
            return render_template(self._tokenizer, dataclasses.replace(given, messages=known), answer=answer)
        except Exception as error:  # templates raise what they like
            roles = [m["role"] for m in given.messages]
            raise InputError("messages", roles, f"the chat template says: {error}") from error

    def _known_role(self, role: str) -> str:
        """Few templates know a developer, and they take that for another name of the system."""
        unknown = role == "developer" and role not in str(self._tokenizer.chat_template)
        return "system" if unknown else role

    def render(self, conversation: Conversation, names: SpecialNames) -> Rendered:
        """The same, and what in it is not the template's own. Raises InputError."""
        if any(names.suspicious(each) for each in conversation.nested_kwargs):
            problem = "spell special tokens within a list or an object"
            raise InputError("chat_template_kwargs", None, problem, remedy="leave them out")
        text = self.text(conversation)
        given = list(conversation.texts)
        spelled = {each: found for each in given if (found := names.suspicious(each))}
        if not spelled:
            return Rendered(text)
        unused = _unused_characters("".join([text, str(self._tokenizer.chat_template), *given]))
        first: Rendered | None = None
        for marking in (_in_disguise, _in_brackets):
            try:
                rendered = marking(conversation, spelled, self.text, unused)
            except InputError:  # it minds the marks
                continue
            if rendered.text == text:
                return rendered
            # The template looked at a name. A disguise at least keeps every name what it is: the contents' own.
            first = first if first is not None or marking is _in_brackets else rendered
        if first is None:
            problem = "spell special tokens that this model's chat template looks at"
            raise InputError("messages", list(spelled), problem, remedy="leave them out")
        return first

    def conversations(self, *, answer: bool) -> Iterator[str]:
        """What it makes of some conversations that it takes. Raises ModelError for a template without an end."""
        for messages in CONVERSATIONS:
            try:
                yield self.text(messages, answer=answer)
            except InputError as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise without_end(error.__cause__) from error


def _unused_characters(text: str) -> list[str]:
    """For private use, and not used in the text: more than names have different characters."""
    used = set(text)
    private = map(chr, itertools.chain(range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE)))
    return list(itertools.islice((character for character in private if character not in used), 4096))


def _in_disguise(
    conversation: Conversation, spelled: Mapping[str, Sequence[Spot]], render: Render, unused: Sequence[str]
) -> Rendered:
    """Every character of a name as another one: all lengths remain, but a template does not recognise the name."""
    plain = {c: None for text, found in spelled.items() for a, b in found for c in text[a:b]}
    disguises = dict(zip(plain, unused, strict=False))
    back = {ord(disguise): character for character, disguise in disguises.items()}
    text = render(_marked(conversation, spelled, lambda name: "".join(disguises[c] for c in name)))
    return Rendered(text.translate(back), frozenset(at for at, c in enumerate(text) if ord(c) in back))


def _in_brackets(
    conversation: Conversation, spelled: Mapping[str, Sequence[Spot]], render: Render, unused: Sequence[str]
) -> Rendered:
    """A mark before and behind every name: a template recognises the name, but contents are longer."""
    left, right = unused[:2]
    marked = {text[a:b] for text, found in spelled.items() for a, b in found}
    text = render(_marked(conversation, spelled, lambda name: f"{left}{name}{right}"))
    pieces: list[str] = []
    places: set[int] = set()
    at = 0
    # A template that cuts at a name leaves single marks, which say nothing about what stands beside them.
    for piece in re.split(f"({left}[^{left}{right}]*{right})", text):
        name = piece[1:-1]
        bracketed = piece == f"{left}{name}{right}" and name in marked
        pieces.append(name if bracketed else piece.replace(left, "").replace(right, ""))
        if bracketed:
            places.update(range(at, at + len(name)))
        at += len(pieces[-1])
    return Rendered("".join(pieces), frozenset(places))


def _marked(
    conversation: Conversation, spelled: Mapping[str, Sequence[Spot]], mark: Callable[[str], str]
) -> Conversation:
    def change(text: str) -> str:
        pieces, at = [], 0
        for start, end in spelled.get(text, ()):
            pieces += [text[at:start], mark(text[start:end])]
            at = end
        return "".join([*pieces, text[at:]])

    return conversation.mapped(change)
