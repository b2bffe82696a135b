"""`dragoman chat`: a conversation in the terminal, or over a pipe."""

from __future__ import annotations

import asyncio
import sys

from rich.console import Console

from dragoman.completion import Completion
from dragoman.dialling import Destination
from dragoman.terminal import LiveText, show_error, show_summary
from dragoman.transcript import check_max_tokens
from speculation.errors import DragomanError
from speculation.messages import ChatMessage, Prompt
from speculation.sampling import Rule, SamplingParams


class Conversation:
    """The turns so far; a turn that failed is not one."""

    def __init__(self, system: str | None) -> None:
        self._opening = (ChatMessage("system", system),) if system else ()
        self._turns: tuple[ChatMessage, ...] = self._opening

    def reset(self) -> None:
        self._turns = self._opening

    def asking(self, words: str) -> Prompt:
        return Prompt(messages=(*self._turns, ChatMessage("user", words)))

    def answered(self, words: str, answer: str) -> None:
        self._turns = (*self._turns, ChatMessage("user", words), ChatMessage("assistant", answer))


def run_chat(
    destination: Destination,
    sampling: SamplingParams,
    *,
    system: str | None,
    max_tokens: int,
    rule: Rule,
    draft: bool,
) -> None:
    """Read, ask, show, until /exit or the end of input. Raises DragomanError if nobody answers at the start."""
    asyncio.run(_chat(destination, sampling, Conversation(system), max_tokens=max_tokens, rule=rule, draft=draft))


async def _chat(
    destination: Destination,
    sampling: SamplingParams,
    conversation: Conversation,
    *,
    max_tokens: int,
    rule: Rule,
    draft: bool,
) -> None:
    check_max_tokens(max_tokens)
    out, notes = Console(), Console(stderr=True)
    async with destination.connect() as client:
        described = await client.describe()
        drafters = ", ".join(d.model for d in described.drafters) or "no drafter"
        notes.print(f"{described.model}, {drafters}. /reset forgets, /exit leaves.", style="dim", highlight=False)
        while (words := await _next_line(notes)) is not None:
            if words == "/exit":
                return
            if words == "/reset":
                conversation.reset()
                continue
            if not words:
                continue
            live = LiveText(out)
            try:
                completion: Completion = await client.complete(
                    conversation.asking(words),
                    sampling=sampling,
                    max_tokens=max_tokens,
                    rule=rule,
                    draft=draft,
                    on_chunk=live.show,
                )
            except DragomanError as error:
                live.break_off()
                show_error(error, notes)
                continue
            live.end()
            show_summary(completion, notes)
            conversation.answered(words, completion.text)


async def _next_line(notes: Console) -> str | None:
    """A line of input without its end; None when there is no more."""
    if not sys.stdin.isatty():
        line = await asyncio.to_thread(sys.stdin.readline)
        return line.strip() if line else None
    notes.print("> ", end="", style="bold")
    # No thread that reads: Ctrl-C would wait for it. A terminal is readable when it has a whole line.
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    loop.add_reader(sys.stdin, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    line = sys.stdin.readline()
    return line.strip() if line else None
