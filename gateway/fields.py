"""Fields of a body that are not taken: those that ask for what is not there are refused, unknown ones are ignored.

A text that was asked for with tools, say, and comes without, is worse than none. An unknown field is ignored, as vLLM
does, and the log says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from gateway.requests import Body
from gateway.response_requests import ResponsesBody
from speculation.errors import UnsupportedFieldError

log = logging.getLogger(__name__)

#: Field -> the values, beside null, with which it asks for nothing. Of OpenAI, then of vLLM.
_REFUSED: Final[Mapping[str, tuple[object, ...]]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "suffix": ("",),
    "tool_choice": ("none",),  # of what is no chat
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
    "add_generation_prompt": (True,),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),  # of a conversation
    "guided_decoding_backend": ("guidance", "auto", "xgrammar", "outlines", "lm-format-enforcer"),  # a hint
    "guided_whitespace_pattern": (),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "min_tokens": (0,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
}
#: The same, of /v1/responses: nothing is kept here from one request to the next.
_REFUSED_IN_RESPONSES: Final[Mapping[str, tuple[object, ...]]] = {
    "background": (False,),
    "context_management": ([],),
    "conversation": (),
    "previous_response_id": (),
    "prompt": (),
    "truncation": ("disabled",),
}
#: Known, and without any effect on a text.
_WITHOUT_EFFECT: Final = frozenset(
    {
        "best_of",  # refused by ``check_best_of`` where it would have one
        "max_tool_calls",
        "messages.name",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
#: Names that are logged, and the length of one: they are the clients' own words.
_NAMES, _NAME_LENGTH = 256, 64


def check_refused(extra: Mapping[str, Any], *, in_responses: bool = False) -> None:
    """``extra``: the fields that the body's model does not have. Raises UnsupportedFieldError."""
    refused = {**_REFUSED, "tool_choice": ("none", "auto"), **_REFUSED_IN_RESPONSES} if in_responses else _REFUSED
    for name, harmless in refused.items():
        value = extra.get(name)
        if value is not None and not any(_same(value, each) for each in harmless):
            raise UnsupportedFieldError(name, value, "is not supported here", remedy="leave it out")


def check_best_of(best_of: object, n: int) -> None:
    """Raises UnsupportedFieldError for more texts than are shown, of which the best would have to be chosen."""
    if best_of is not None and not (type(best_of) is int and best_of <= n):
        raise UnsupportedFieldError("best_of", best_of, f"is more than n={n}", remedy="leave it out")


def _same(value: object, other: object) -> bool:
    """Unlike for ``==``, 0 and False are two things."""
    return type(value) is type(other) and value == other


class UnknownFields:
    """Warns once of each name."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def note(self, body: Body) -> None:
        """Those of a body, and those within its fields."""
        extra = body.model_extra or {}
        known = (
            _REFUSED.keys()
            | _WITHOUT_EFFECT
            | (_REFUSED_IN_RESPONSES.keys() if isinstance(body, ResponsesBody) else set())
        )
        own = extra.keys() - known
        for name in (*own, *(nested for nested in _nested(body) if nested not in _WITHOUT_EFFECT)):
            shown = name[:_NAME_LENGTH]
            if shown not in self._told and len(self._told) < _NAMES:
                self._told.add(shown)
                log.warning("the field %r of a request is not known here and has no effect", shown)


def _nested(model: BaseModel) -> Iterator[str]:
    """Names that are not known within the fields of a body, with a dot: ``stream_options.x``."""
    for name, value in model:
        values = value if isinstance(value, list) else [value]
        if values and isinstance(values[0], BaseModel):
            for each in values:
                yield from (f"{name}.{inner}" for inner, given in (each.model_extra or {}).items() if given is not None)
                yield from (f"{name}.{inner}" for inner in _nested(each))
