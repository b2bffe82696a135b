"""`dragoman chat`: a conversation in the terminal, or over a pipe."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from rich.console import Console

from dragoman.chat_commands import carry_out, is_command
from dragoman.chat_input import chat_input
from dragoman.client import Client
from dragoman.conversation import Conversation
from dragoman.dialling import Destination
from dragoman.fleet_client import FleetClient
from dragoman.terminal import LiveText, show_error, show_summary
from dragoman.transcript import TextOptions, check_max_tokens
from dragoman.waiting_line import WaitingLine
from language_models.weights import home
from speculation.errors import DragomanError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk
from speculation.sampling.params import Rule, SamplingParams


def run_chat(
    destination: Destination,
    sampling: SamplingParams,
    *,
    system: str | None,
    template_kwargs: str,
    max_tokens: int,
    rule: Rule,
    draft: bool,
    history: bool,
) -> None:
    """Read, ask, show, until /exit or the end of input. Raises DragomanError if nobody answers at the start.

    ``history``: whether what is typed at a terminal is kept for later chats.
    """
    check_max_tokens(max_tokens)
    options = TextOptions(sampling=sampling, max_tokens=max_tokens, rule=rule, draft=draft)
    conversation = Conversation(system or "", template_kwargs=template_kwargs)
    asyncio.run(_chat(destination, conversation, options, history=history))


async def _chat(destination: Destination, conversation: Conversation, options: TextOptions, *, history: bool) -> None:
    notes = Console(stderr=True)
    async with destination.connect() as client:
        described = await client.describe()
        drafters = ", ".join(d.model for d in described.drafters) or "no drafter"
        greeting = f"{described.model}, {drafters}. /help lists the commands, Ctrl-D leaves."
        notes.print(greeting, style="dim", highlight=False)
        typed = chat_input(notes, home() / "chat_history" if history else None)
        talk = _Talk(client=client, conversation=conversation, options=options, notes=notes)
        goes_on = True
        while goes_on:
            try:
                goes_on = await _turn(await typed.read(), talk, conversation, notes)
            except DragomanError as error:
                show_error(error, notes)


async def _turn(words: str | None, talk: _Talk, conversation: Conversation, notes: Console) -> bool:
    """A question or a command; whether another may follow. Raises DragomanError."""
    if words is None or words == "/exit":
        return False
    if is_command(words):
        notes.print(carry_out(words, conversation), style="dim")
    elif words:
        await talk.ask(words.removeprefix("/") if words.startswith("//") else words)
    return True


class _Talk:
    """Questions and their answers."""

    def __init__(
        self, client: Client | FleetClient, conversation: Conversation, options: TextOptions, notes: Console
    ) -> None:
        self._client = client
        self._conversation = conversation
        self._options = options
        self._notes = notes

    async def ask(self, words: str) -> None:
        """Show the answer as it is written. Ctrl-C ends it; what was shown of it stays in the conversation, as it
        stays on the screen. Raises DragomanError."""
        live = LiveText(Console())
        shown: list[bytes] = []

        def show(chunk: Chunk) -> None:
            shown.extend(run.text for run in chunk.runs)
            live.show(chunk)

        completion: Completion | None = None
        try:
            async with WaitingLine(self._notes) as waiting:
                writing = self._client.complete(
                    self._conversation.asking(words),
                    on_started=waiting.started,
                    on_chunk=waiting.before(show),
                    **self._options,
                )
                completion = await _unless_interrupted(writing)
        finally:
            if shown or completion is not None:
                live.end()
        if completion is not None:
            show_summary(completion, self._notes)
        else:
            kept = "what is shown stays in the conversation" if shown else "the question is dropped"
            self._notes.print(f"ended by Ctrl-C; {kept}", style="dim", highlight=False)
        if completion is not None or shown:
            self._conversation.answered(words, b"".join(shown).decode(errors="replace"))


async def _unless_interrupted(writing: Coroutine[Any, Any, Completion]) -> Completion | None:
    """The answer, or None if somebody who sits at a terminal ended it with Ctrl-C. Elsewhere that ends the program."""
    if not sys.stdin.isatty():
        return await writing
    loop, task, before = asyncio.get_running_loop(), asyncio.ensure_future(writing), signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await asyncio.wait((task,))
        return None if task.cancelled() else task.result()
    finally:
        task.cancel()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
