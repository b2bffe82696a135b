"""`dragoman generate`: one prompt, one answer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dragoman.dialling import Destination
from dragoman.logprob_table import show_logprobs
from dragoman.terminal import LiveText, show_summary
from dragoman.transcript import check_max_tokens
from dragoman.waiting_line import WaitingLine
from speculation.errors import DragomanError, InputError
from speculation.protocol.completion import Completion
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.sampling.params import Rule, SamplingParams


def read_prompt(
    prompt: str | None,
    prompt_file: Path | None,
    messages: str | None,
    *,
    template_kwargs: str = "",
    special_tokens: bool = False,
) -> Prompt:
    """The prompt from whichever option was given. Raises InputError naming the option."""
    given = [name for name, value in _named(prompt, prompt_file, messages) if value is not None]
    if len(given) != 1:
        raise InputError(
            "prompt", " ".join(given), "give exactly one", remedy="--prompt TEXT, --prompt-file FILE or --messages JSON"
        )
    text = _read(prompt_file, field="prompt-file") if prompt_file is not None else prompt
    turns = _parse_messages(messages) if messages is not None else ()
    return Prompt(text, turns, template_kwargs=template_kwargs, special_tokens=special_tokens)


def _named(
    prompt: str | None, prompt_file: Path | None, messages: str | None
) -> tuple[tuple[str, str | Path | None], ...]:
    return ("--prompt", prompt), ("--prompt-file", prompt_file), ("--messages", messages)


def read_guide(
    json_schema: Path | None, regex: str | None, choice: Sequence[str] | None, grammar: Path | None
) -> GuideSpec | None:
    """What the text is held to, from whichever option was given; None if none was. Raises InputError."""
    found = []
    if json_schema is not None:
        found.append(GuideSpec.json_schema(_read(json_schema, field="json-schema"), field="json-schema"))
    if regex is not None:
        found.append(GuideSpec.regex(regex, field="regex"))
    if choice:
        found.append(GuideSpec.choice(choice, field="choice"))
    if grammar is not None:
        found.append(GuideSpec.grammar(_read(grammar, field="grammar"), field="grammar"))
    if len(found) > 1:
        given = " ".join(f"--{spec.name}" for spec in found)
        raise InputError(found[0].name, given, "a text is held to one of these", remedy="give one")
    return found[0] if found else None


def _read(path: Path, *, field: str) -> str:
    """A file, or standard input for ``-``."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InputError(field, str(path), f"cannot be read: {error.strerror}", remedy="check the path") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            field, str(path), f"is not UTF-8: {error.reason} at byte {error.start}", remedy="save it as UTF-8"
        ) from error
    if not text:
        raise InputError(field, str(path), "is empty", remedy="give at least one character")
    return text


def _parse_messages(messages: str) -> tuple[ChatMessage, ...]:
    inline = messages.lstrip().startswith(("[", "{", '"'))  # a file's name that begins so can be given as ./NAME
    text = messages if inline else _read(Path(messages), field="messages")
    remedy = 'write [{"role": "user", "content": "..."}]'
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise InputError("messages", messages, f"is not JSON: {error}", remedy=remedy) from error
    if not isinstance(entries, list):
        kind = "one message, not a list of them" if isinstance(entries, dict) else "no list of messages"
        raise InputError("messages", messages, f"is {kind}", remedy=remedy)
    try:
        turns = tuple(ChatMessage(entry["role"], entry["content"]) for entry in entries)
    except (TypeError, KeyError, IndexError) as error:
        raise InputError("messages", messages, "is no list of {role, content}", remedy=remedy) from error
    if not all(isinstance(turn.role, str) and isinstance(turn.content, str) for turn in turns):
        raise InputError("messages", messages, "has a role or content that is no string", remedy=remedy)
    return turns


def run_generate(
    destination: Destination,
    prompt: Prompt,
    sampling: SamplingParams,
    *,
    max_tokens: int,
    stop: tuple[str, ...],
    rule: Rule,
    draft: bool,
    as_json: bool,
    priority: int = 0,
    prediction_file: Path | None = None,
    guide: GuideSpec | None = None,
    logprobs: int | None = None,
) -> None:
    """Ask, and show the text live and what was asked for about it, or one JSON object at the end."""
    check_max_tokens(max_tokens)
    prediction = _read(prediction_file, field="prediction-file") if prediction_file is not None else ""
    live = LiveText(Console())
    notes = Console(stderr=True)

    async def ask() -> Completion:
        async with destination.connect() as client, WaitingLine(notes, quiet=as_json) as waiting:
            return await client.complete(
                prompt,
                sampling=sampling,
                max_tokens=max_tokens,
                stop=stop,
                rule=rule,
                draft=draft,
                prediction=prediction,
                priority=priority,
                guide=guide,
                logprobs=logprobs,
                on_started=waiting.started,
                on_chunk=(lambda chunk: None) if as_json else waiting.before(live.show),
            )

    try:
        completion = asyncio.run(ask())
    except (DragomanError, KeyboardInterrupt):
        live.break_off()
        raise
    if as_json:
        print(json.dumps(completion.to_json()))
        return
    live.end()
    show_logprobs(completion.logprobs, notes)
    show_summary(completion, notes)
