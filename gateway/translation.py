"""From a body to the requests that a verifier is sent. Pure: no clock, no network; a seed comes from outside.

Raises InputError with the body's own field names.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.guides import guide_of
from gateway.json_text import json_text
from gateway.requests import MAX_MESSAGES, ChatBody, CompletionBody, Message, TextBody
from gateway.response_requests import ResponsesBody
from gateway.tools import calls_of
from speculation.errors import InputError, UnsupportedFieldError
from speculation.plural import count_of
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.logprobs import MOST_LOGPROBS
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.text_check import check_text
from speculation.protocol.tools import Tool
from speculation.sampling.params import MAX_SEED, Rule, SamplingParams
from speculation.text.text_stream import check_stops
from transport.generation_codec import request_to_wire

#: Tokens of a completion whose length is left open, as OpenAI and vLLM have it.
COMPLETION_TOKENS: Final = 16
_MOST_TOKENS: Final = (1 << 32) - 1
#: Types of text in what /v1/responses is given.
_INPUT_PARTS: Final = ("input_text", "output_text", "text")
_LOWEST_SEED: Final = -(1 << 63)
#: Of a token, as the wire has it.
_LARGEST_ID: Final = (1 << 32) - 1


def seed_of(given: int | None, otherwise: int) -> int:
    """Unsigned, 64 bits. Negative ones, which OpenAI's clients may send, are taken as signed numbers of 64 bits."""
    if given is None:
        return otherwise
    if not _LOWEST_SEED <= given <= MAX_SEED:
        raise InputError("seed", given, "must lie in -2**63..2**64-1", remedy="leave it out for a random one")
    return given % (MAX_SEED + 1)


def seed_of_choice(seed: int, choice: int) -> int:
    """The first of several texts is the one that is written if only one is asked for."""
    if choice == 0:
        return seed
    digest = hashlib.blake2b(f"{seed} {choice}".encode(), digest_size=8, person=b"dragoman choice")
    return int.from_bytes(digest.digest(), "little")


def number_of_choices(body: TextBody, prompts: int, *, most: int) -> int:
    """n; ``most``: texts that a request may ask for."""
    n = body.n if body.n is not None else 1
    if n < 1:
        raise InputError("n", n, "must be at least 1")
    if n * prompts > most:
        problem = f"asks for {n * prompts} texts, with {prompts} prompts" if prompts > 1 else "is too much"
        raise InputError("n", n, problem, remedy=f"{count_of(most, 'text')} in one request at most")
    return n


def sampling_of(body: TextBody, seed: int) -> SamplingParams:
    """What is left out is as OpenAI has it: temperature 1, everything else off."""
    given: dict[str, Any] = {
        name: value
        for name in ("top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
        if (value := getattr(body, name)) is not None
    }
    return SamplingParams(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=0 if body.top_k in (None, -1) else body.top_k or 0,
        logit_bias=_logit_bias(body.logit_bias or {}),
        seed=seed,
        **given,
    )


def _logit_bias(given: Mapping[str, float]) -> dict[int, float]:
    for token in given:
        # Ten digits: more than any id has, and a number that is quickly read.
        if not (token.isascii() and token.isdecimal() and len(token) <= 10 and int(token) <= _LARGEST_ID):
            raise InputError("logit_bias", token, "is no token id", remedy='write ids as strings: {"42": -100}')
    return {int(token): bias for token, bias in given.items()}


def max_tokens_of(body: TextBody) -> int:
    """0: as far as the context reaches, which is what an answer may do that is left open."""
    field, given = "max_tokens", body.max_tokens
    if isinstance(body, ResponsesBody) and body.max_output_tokens is not None:
        field, given = "max_output_tokens", body.max_output_tokens
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        field, given = "max_completion_tokens", body.max_completion_tokens
    if given is None:
        return COMPLETION_TOKENS if isinstance(body, CompletionBody) else 0
    if not 1 <= given <= _MOST_TOKENS:
        raise InputError(field, given, "must be at least 1, and below 2**32")
    return given


def rule_of(given: str | None) -> Rule:
    """What is left out is the rule whose text depends on no drafter."""
    if given is None:
        return Rule.RACE
    if given not in set(Rule):
        raise InputError("rule", given, "is no rule", remedy=f"one of {', '.join(Rule)}")
    return Rule(given)


def text_of_content(
    content: str | Sequence[Mapping[str, Any]] | None, field: str, *, kinds: Sequence[str] = ("text",)
) -> str:
    """Text parts, of these types, are joined by line breaks, as vLLM does."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, part in enumerate(content):
        place = f"{field}[{index}]"
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind not in kinds or not isinstance(part, Mapping):
            raise UnsupportedFieldError(f"{place}.type", kind, "is not supported", remedy="text parts only")
        if not isinstance(part.get("text"), str):
            raise InputError(f"{place}.text", part.get("text"), "must be a string")
        texts.append(part["text"])
    return "\n".join(texts)


def prediction_of(given: str | Mapping[str, Any] | None) -> str:
    """As plain text, or in OpenAI's object."""
    if given is None or isinstance(given, str):
        return given or ""
    if given.get("type") != "content":
        raise UnsupportedFieldError("prediction.type", given.get("type"), "is not supported", remedy="content")
    content = given.get("content")
    if not isinstance(content, str) and not (isinstance(content, list) and all(isinstance(p, dict) for p in content)):
        raise InputError("prediction.content", content, "must be a string or a list of text parts")
    return text_of_content(content, "prediction.content")


def prompt_of(
    messages: Sequence[Message], tools: tuple[Tool, ...] = (), template_kwargs: Mapping[str, Any] | None = None
) -> Prompt:
    """A conversation, with the tools that its answer may call, and what the chat template is told beside."""
    if not messages:
        raise InputError("messages", None, "is empty", remedy="give at least one")
    turns = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if called := (message.model_extra or {}).get("function_call"):
            raise UnsupportedFieldError(f"{place}.function_call", called, "is not supported here", remedy="tool_calls")
        calls = calls_of(message, place)
        if calls and message.role != "assistant":
            raise InputError(f"{place}.tool_calls", message.role, "come from somebody else than the assistant")
        content = text_of_content(message.content, f"{place}.content")
        told = ChatMessage(message.role, content, tool_calls=calls, tool_call_id=message.tool_call_id or "")
        turns.append(told)
    return Prompt(messages=tuple(turns), tools=tools, template_kwargs=template_kwargs_of(template_kwargs))


def template_kwargs_of(given: Mapping[str, Any] | None) -> str:
    """As a prompt has them."""
    return json_text("chat_template_kwargs", given) if given else ""


def prompt_of_input(body: ResponsesBody) -> Prompt:
    """The same, of /v1/responses; ``instructions`` are its first word."""
    given = body.input
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise InputError("input", given, "must be a string or a list of items")
    if not items or given == "":
        raise InputError("input", None, "is empty", remedy="give at least one character")
    if len(items) > MAX_MESSAGES:
        raise InputError("input", len(items), f"has more than {MAX_MESSAGES} items", remedy="leave out the oldest")
    turns = [_turn(item, f"input[{index}]") for index, item in enumerate(items)]
    if body.instructions is not None:
        turns.insert(0, ChatMessage("system", body.instructions))
    return Prompt(messages=tuple(turns))


def _turn(item: object, place: str) -> ChatMessage:
    if not isinstance(item, Mapping):
        raise InputError(place, item, "must be an object")
    kind = item.get("type", "message")
    if kind != "message":
        raise UnsupportedFieldError(f"{place}.type", kind, "is not supported here", remedy="messages only")
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str):
        raise InputError(f"{place}.role", role, "must be a string")
    if not isinstance(content, str | list):
        raise InputError(f"{place}.content", content, "must be a string or a list of text parts")
    # Templates of models know no developers, who took the place of the system.
    role = "system" if role == "developer" else role
    return ChatMessage(role, text_of_content(content, f"{place}.content", kinds=_INPUT_PARTS))


def prompts_of(body: CompletionBody) -> list[str | list[int]]:
    """One or several, each as text or token ids. Empty ones are refused."""
    several: list[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
    if several and isinstance(several[0], int):
        several = [several]
    if not all(several):
        several = []
    if not several:
        raise InputError("prompt", None, "is empty", remedy="give at least one character, or one token")
    return several


def stops_of(given: str | Sequence[str] | None) -> tuple[bytes, ...]:
    """UTF-8, as the verifier takes them."""
    stops = [given] if isinstance(given, str) else given or ()
    for stop in stops:
        check_text("stop", stop)
    encoded = tuple(stop.encode() for stop in stops)
    check_stops(encoded)
    return encoded


def logprobs_of(body: TextBody) -> int | None:
    """How many of the likeliest tokens are told at each place; None: nothing is."""
    if isinstance(body, CompletionBody):
        if body.logprobs is not None and body.echo:
            raise UnsupportedFieldError(
                "logprobs", body.logprobs, "cannot go with echo", remedy="leave one of them out"
            )
        return body.logprobs
    if not isinstance(body, ChatBody | ResponsesBody):
        return None
    top, wanted = body.top_logprobs or 0, body.wants_logprobs
    if top and not wanted:
        problem = f"comes without {body.logprobs_field}"
        raise InputError("top_logprobs", top, problem, remedy="add that, or leave it out")
    if not 0 <= top <= MOST_LOGPROBS:
        raise InputError("top_logprobs", top, f"must lie in 0..{MOST_LOGPROBS}", remedy="ask for fewer")
    return top if wanted else None


def asks(body: TextBody, option: str) -> bool:
    """Whether an option of the stream is on."""
    return body.stream_options is not None and bool(getattr(body.stream_options, option))


def request_of(body: TextBody, prompt: Prompt, *, seed: int) -> GenerationRequest:
    """The first choice of a prompt."""
    prediction, guide = prediction_of(body.prediction), guide_of(body)
    if guide is not None and body.ignore_eos:
        problem = f"cannot go with {guide.asked}: where the text must end, nothing else is allowed"
        raise InputError("ignore_eos", True, problem, remedy="leave one of them out")
    check_text("prediction", prediction)
    request = GenerationRequest(
        prompt=prompt,
        sampling=sampling_of(body, seed),
        max_tokens=max_tokens_of(body),
        stop=stops_of(body.stop),
        rule=rule_of(body.rule),
        draft=body.draft is not False,
        ignore_end=bool(body.ignore_eos),
        prediction=prediction.encode(),
        priority=body.priority or 0,
        guide=guide,
        logprobs=logprobs_of(body),
        tell_steps=asks(body, "include_speculation"),
        cache_salt=body.cache_salt or "",
    )
    request_to_wire(request)  # raises for what no verifier could be sent
    return request


def choices_of(request: GenerationRequest, n: int) -> list[GenerationRequest]:
    """The same, n times, with a seed for each."""
    sampling = request.sampling
    seeds = (seed_of_choice(sampling.seed, choice) for choice in range(n))
    return [dataclasses.replace(request, sampling=dataclasses.replace(sampling, seed=seed)) for seed in seeds]
