"""The bodies of requests, as OpenAI has them, with vLLM's further fields and a few of our own.

They hold what a field's type is; what its value may be is for ``translation.py``. A field that is null is one that was
left out. Nothing is converted in silence: "5" is no number. Long lists are looked at once, in the event loop, and all
that is wrong with them is one error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation

from speculation.protocol.tools import MAX_TOOLS
from transport.limits import MAX_TOKEN_IDS

#: Turns of one conversation.
MAX_MESSAGES: Final = 4096


def _shaped(words: str, *shapes: Callable[[Any], bool]) -> BeforeValidator:
    """A check of a field that may have several shapes, so that one error says which, instead of one for each. In place
    of pydantic's, which would try one after the other."""

    def check(value: Any) -> Any:
        if any(fits(value) for fits in shapes):
            return value
        raise ValueError(f"must be {words}")

    return BeforeValidator(check)


def _at_most(most: int, things: str) -> BeforeValidator:
    """A check of a list, or of the lists in it, before anything else looks at it."""

    def check(value: Any) -> Any:
        if isinstance(value, list):
            inner = [len(each) for each in value[: most + 1] if isinstance(each, list)]
            if (count := max(len(value), sum(inner))) > most:
                raise ValueError(f"has {count} {things}; the limit is {most}: send them in parts")
        return value

    return BeforeValidator(check)


def _is_nothing(value: Any) -> bool:
    return value is None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def _is_id_lists(value: Any) -> bool:
    return isinstance(value, list) and all(_is_ids(each) for each in value)


def _is_id_list(value: Any) -> bool:
    return value == [] or _is_ids(value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(type(each) in (int, float) for each in value.values())


def _is_parts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


#: One prompt or several, as text or token ids.
PromptField = Annotated[
    SkipValidation[str | list[str] | list[int] | list[list[int]]],
    _shaped(
        "a string, a list of strings, a list of token ids, or a list of such lists",
        *(_is_text, _is_texts, _is_ids, _is_id_lists),
    ),
    _at_most(MAX_TOKEN_IDS, "entries"),
]
TokenIds = Annotated[
    SkipValidation[list[int]], _shaped("a list of token ids", _is_id_list), _at_most(MAX_TOKEN_IDS, "token ids")
]
Content = Annotated[
    SkipValidation[str | list[dict[str, Any]] | None],
    _shaped("a string or a list of content parts", _is_nothing, _is_text, _is_parts),
]
LogitBias = Annotated[
    SkipValidation[dict[str, float] | None], _shaped("an object of token ids and numbers", _is_nothing, _is_numbers)
]
Stop = Annotated[
    SkipValidation[str | list[str] | None],
    _shaped("a string or a list of strings", _is_nothing, _is_text, _is_texts),
]
Prediction = Annotated[
    SkipValidation[str | dict[str, Any] | None],
    _shaped('a string, or {"type": "content", "content": ...}', _is_nothing, _is_text, _is_object),
]
Object = Annotated[dict[str, Any] | None, _shaped("an object", _is_nothing, _is_object)]


class Body(BaseModel):
    """Base of all. Unknown fields are kept, for ``fields.py`` to look at."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = None


class StreamOptions(BaseModel):
    """``include_usage``: the last chunk tells the usage. ``include_speculation``, which is Dragoman's own: every chunk
    tells what was tried for it."""

    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = None
    include_speculation: bool | None = None


class TextBody(Body):
    """What both ways of asking for a text have in common. ``rule`` and ``draft`` are Dragoman's own."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    stop: Stop = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: LogitBias = None
    ignore_eos: bool | None = None
    priority: int | None = None
    cache_salt: str | None = None
    prediction: Prediction = None
    response_format: Object = None
    structured_outputs: Object = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    rule: str | None = Field(default=None, description="How drafts are verified: race, exact, rejection, ...")
    draft: bool | None = Field(default=None, description="Whether drafters may help")


class CompletionBody(TextBody):
    """Of /v1/completions."""

    prompt: PromptField
    logprobs: int | None = None
    echo: bool | None = None


class CalledFunction(BaseModel):
    """Which function an assistant called. ``arguments``: JSON."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    arguments: str | None = None


class CallBody(BaseModel):
    """An assistant's call of a tool."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: str | None = None
    type: str | None = None
    function: CalledFunction


class Message(BaseModel):
    """A turn of a conversation. ``tool_call_id``: of the call that a tool answers."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str
    content: Content = None
    tool_calls: Annotated[list[CallBody] | None, _at_most(MAX_TOOLS, "calls")] = None
    tool_call_id: str | None = None


class FunctionBody(BaseModel):
    """A function that may be called. ``parameters``: a JSON schema."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    description: str | None = None
    parameters: Object = None
    strict: bool | None = None


class ToolBody(BaseModel):
    """A tool: a function, as nothing else is known here."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    function: FunctionBody | None = None


Tools = Annotated[list[ToolBody] | None, _at_most(MAX_TOOLS, "tools")]
ToolChoice = Annotated[
    SkipValidation[str | dict[str, Any] | None],
    _shaped('a string, or {"type": "function", "function": {"name": ...}}', _is_nothing, _is_text, _is_object),
]
Messages = Annotated[list[Message], _at_most(MAX_MESSAGES, "messages")]


class ChatBody(TextBody):
    """Of /v1/chat/completions. ``max_completion_tokens`` counts before ``max_tokens``, its older name."""

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: int | None = None
    max_completion_tokens: int | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: Object = None

    #: What asks for log-probabilities.
    logprobs_field: ClassVar[str] = "logprobs: true"

    @property
    def wants_logprobs(self) -> bool:
        """Whether those of the tokens are asked for."""
        return bool(self.logprobs)


class TokenizeBody(Body):
    """Of /tokenize: one of ``prompt`` and ``messages``."""

    prompt: str | None = None
    messages: Messages | None = None
    tools: Tools = None
    chat_template_kwargs: Object = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """Of /detokenize."""

    tokens: TokenIds
