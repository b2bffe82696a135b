"""The texts of one request, written together: what happens to each, in the order in which it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from gateway.admission import Places
from gateway.backend import Backend
from speculation.errors import InputError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, GenerationRequest
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.tools import ToolFormat


@dataclass(frozen=True, slots=True)
class ChoiceStarted:
    """A verifier has taken the text on. ``tool_format``: see ``Started``."""

    index: int
    tool_format: ToolFormat | None = None


@dataclass(frozen=True, slots=True)
class ChoiceGrew:
    """By a chunk."""

    index: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class ChoiceEnded:
    """The text is whole."""

    index: int
    completion: Completion


ChoiceEvent = ChoiceStarted | ChoiceGrew | ChoiceEnded
_Events = asyncio.Queue[ChoiceEvent | BaseException]


async def written(
    backend: Backend, model: str, requests: list[GenerationRequest], places: Places, *, may_restart: bool
) -> AsyncGenerator[ChoiceEvent, None]:
    """All events of all texts. The first that fails ends the others, and what it failed with is raised.

    ``may_restart``: a text may begin anew, and its chunks so far are void (whoever shows them cannot take them back).
    Closing the generator ends the sessions at the verifiers.
    """
    events = _Events()
    waiting = iter(enumerate(requests))
    workers = [
        asyncio.create_task(_work(backend, model, waiting, events, places=places, may_restart=may_restart))
        for _ in range(min(places.count, len(requests)))
    ]
    try:
        left = len(requests)
        while left:
            event = await events.get()
            if isinstance(event, BaseException):
                raise event
            left -= isinstance(event, ChoiceEnded)
            yield event
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _work(
    backend: Backend,
    model: str,
    waiting: Iterator[tuple[int, GenerationRequest]],
    events: _Events,
    *,
    places: Places,
    may_restart: bool,
) -> None:
    """Write one text after the other, until none waits."""
    try:
        for index, request in waiting:
            await _write(backend, model, request, index, events, may_restart=may_restart)
    except Exception as error:
        events.put_nowait(error)
    finally:
        places.give_back()


async def _write(
    backend: Backend, model: str, request: GenerationRequest, index: int, events: _Events, *, may_restart: bool
) -> None:
    try:
        completion = await backend.write(
            model,
            request,
            on_chunk=lambda chunk: events.put_nowait(ChoiceGrew(index, chunk)),
            on_started=lambda started: events.put_nowait(ChoiceStarted(index, started.tool_format)),
            on_restart=(lambda: None) if may_restart else None,
        )
    except InputError as error:
        raise _in_the_words_of(request.guide, error) from error
    events.put_nowait(ChoiceEnded(index, completion))


def _in_the_words_of(guide: GuideSpec | None, error: InputError) -> InputError:
    """A verifier that cannot compile a guide names it by its kind, the body by the field that has it."""
    while guide is not None and error.field != guide.kind:
        guide = guide.answer
    return error if guide is None else InputError.relayed(str(error).replace(guide.kind, guide.name, 1))
