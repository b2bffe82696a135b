"""Prompts to measure with: built-in ones, or those of a JSONL file, as vLLM's and OpenAI's formats have them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from dragoman.bench.measurement import BenchRequest
from speculation.errors import InputError
from speculation.protocol.messages import ChatMessage, Prompt

#: Where `dragoman gateway` serves if nobody says otherwise.
LOCAL_URL = "http://127.0.0.1:8000"


class Route(StrEnum):
    """As what a prompt is sent: a text to be written on, or a conversation."""

    COMPLETIONS = "/v1/completions"
    CHAT = "/v1/chat/completions"


_REMEDY = 'write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]} in each line'


def read_prompts(path: Path | None) -> list[Prompt]:
    """One of each line that is not empty; None: the built-in ones. Raises InputError naming the file, or its line."""
    if path is None:
        text = (resources.files("dragoman.bench") / "prompts.jsonl").read_text("utf-8")
    else:
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise InputError("dataset", path, problem, remedy="name a JSONL file") from None
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8: {error.reason} at byte {error.start}"
            raise InputError("dataset", path, problem, remedy="save it as UTF-8") from None
    # Not splitlines: it would also cut at line separators within a string.
    lines = enumerate(text.split("\n"), 1)
    prompts = [_prompt_of(line, f"{path}:{number}") for number, line in lines if line.strip()]
    if not prompts:
        raise InputError("dataset", path, "has no prompts", remedy=_REMEDY)
    return prompts


def _prompt_of(line: str, place: str) -> Prompt:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InputError("dataset", place, f"is not JSON: {error}", remedy=_REMEDY) from None
    match entry:
        case {"messages": [_, *_] as messages}:
            return Prompt(messages=tuple(_message_of(message, place) for message in messages))
        case {"prompt": str(text)} if text:
            return Prompt(text=text)
    raise InputError("dataset", place, "is no prompt", remedy=_REMEDY)


def _message_of(message: Any, place: str) -> ChatMessage:
    match message:
        case {"role": str(role), "content": str(content)}:
            return ChatMessage(role, content)
    raise InputError("dataset", place, "has a message without role or content as strings", remedy=_REMEDY)


def route_of(prompts: Sequence[Prompt]) -> Route:
    """For these, if nobody says otherwise: conversations if any is one."""
    return Route.CHAT if any(prompt.messages for prompt in prompts) else Route.COMPLETIONS


def for_route(prompt: Prompt, route: Route) -> Prompt:
    """A text as a user's message, or a user's only message as a text. Raises InputError for a longer conversation."""
    if route is Route.CHAT:
        return prompt if prompt.text is None else Prompt(messages=(ChatMessage("user", prompt.text),))
    if prompt.text is not None:
        return prompt
    if len(prompt.messages) > 1:
        problem = f"takes texts, and a prompt is a conversation of {len(prompt.messages)} messages"
        raise InputError("endpoint", route.value, problem, remedy=f"give --endpoint {Route.CHAT.value}")
    return Prompt(text=prompt.messages[0].content)


def requests_of(prompts: Sequence[Prompt], *, count: int | None, seed: int) -> list[BenchRequest]:
    """So many (None: each prompt once), in an order of the seed; where prompts are too few, all come again. Each
    request has a sampling seed of its own, the same in every run."""
    order = list(prompts)
    random.Random(seed).shuffle(order)
    number = len(order) if count is None else count
    return [BenchRequest(at, order[at % len(order)], seed + at) for at in range(number)]
