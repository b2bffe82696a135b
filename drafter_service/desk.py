"""The drafter's desk: the sessions it works on, and whose turn is next.

It joins each sans-IO ``DrafterSession`` with its ``DraftSource``. Verdicts may come while the worker thread drafts:
moves queue up here and are carried out by the thread, in order, before it drafts again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from drafter_service.draft_source import Drafter, DraftSource
from speculation.errors import DragomanError, SessionError
from speculation.protocol.messages import Resync, SessionOffer, Span, Verdict
from speculation.sampling.params import Rule
from speculation.sessions.drafter_session import DrafterSession, DraftToken, Instruction, Move

log = logging.getLogger(__name__)

_REASON_LENGTH = 500
Message = Span | Resync
#: Node numbers of the session's tree, each with the choices after it.
Draft = list[tuple[int, list[DraftToken]]]


class DeskSession:
    """One session on the desk. ``draft`` runs in the worker thread, all else in the event loop."""

    def __init__(self, drafter: Drafter, offer: SessionOffer) -> None:
        self.name = offer.session
        self._drafter = drafter
        self._offer = offer
        self._session = DrafterSession(offer)
        self._source: DraftSource | None = None
        self._moves: deque[Move] = deque()

    @property
    def is_typical_batch(self) -> bool:
        """Whether its coming batch takes what the model's usually do.

        Its first has the prompt to read besides, and the enumeration of psi takes many times as long.
        """
        return self._source is not None and self._offer.rule is not Rule.STRING_REJECTION

    def wants_draft(self) -> bool:
        return self._session.wants_draft()

    def on_verdict(self, verdict: Verdict) -> list[Message]:
        return self._messages(self._session.on_verdict(verdict))

    def prepare(self) -> Callable[[], Draft]:
        """The work of drafting one batch of tokens, for the worker thread.

        It raises DragomanError only: what nobody foresaw, no GPU memory left say, costs this session its drafts, and
        not all sessions their drafter.
        """
        moves = tuple(self._moves)
        self._moves.clear()
        zero_width = self._session.next_zero_width()
        choices = 1 + self._session.plan.alternatives
        expansions = self._session.next_expansions()

        def carry_out() -> Draft:
            if self._source is None:
                self._source = self._drafter.open(self._offer)
            for move in moves:
                self._source.move(move.path, move.keep, move.text)
            paths = [expansion.path for expansion in expansions]
            drafted = self._source.expand(paths, zero_width=zero_width, choices=choices)
            return [(expansion.number, tokens) for expansion, tokens in zip(expansions, drafted, strict=True)]

        def draft() -> Draft:
            try:
                return carry_out()
            except DragomanError:
                raise
            except Exception as error:
                log.exception("session %s: drafting failed", self.name)
                raise SessionError(f"drafting failed: {type(error).__name__}: {error}"[:_REASON_LENGTH]) from error

        return draft

    def take(self, draft: Draft) -> list[Message]:
        """What the worker drafted."""
        return [
            message for number, tokens in draft for message in self._messages(self._session.on_choices(number, tokens))
        ]

    def close(self) -> None:
        """In the worker thread, after any drafting."""
        if self._source is not None:
            self._source.close()

    def _messages(self, instructions: list[Instruction]) -> list[Message]:
        messages: list[Message] = []
        for instruction in instructions:
            if isinstance(instruction, Move):
                self._moves.append(instruction)
            else:
                messages.append(instruction)
        return messages


class Desk:
    """All sessions of one connection; turns go round."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self._sessions: dict[str, DeskSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, offer: SessionOffer) -> DeskSession | None:
        """Take a session on. Returns one of that name that this offer replaces."""
        replaced = self._sessions.pop(offer.session, None)
        self._sessions[offer.session] = DeskSession(self._drafter, offer)
        return replaced

    def get(self, name: str) -> DeskSession | None:
        return self._sessions.get(name)

    def close(self, name: str) -> DeskSession | None:
        return self._sessions.pop(name, None)

    def pop_any(self) -> DeskSession | None:
        """Take some session off the desk, None when it is empty."""
        return self._sessions.popitem()[1] if self._sessions else None

    def next_turn(self) -> DeskSession | None:
        """The next session that wants a token; it goes to the end of the queue."""
        for name, session in self._sessions.items():
            if session.wants_draft():
                del self._sessions[name]
                self._sessions[name] = session
                return session
        return None
