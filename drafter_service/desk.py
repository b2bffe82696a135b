"""The drafter's desk: the sessions it works on, and whose turn is next.

It joins each sans-IO ``DrafterSession`` with its ``DraftSource``. Verdicts may come while the worker thread drafts:
moves queue up here and are carried out by the thread, in order, before it drafts again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from drafter_service.draft_source import Answer, Drafter, DraftSource, DraftsTogether, Expansion
from drafter_service.draft_trace import DraftTrace
from speculation.errors import DragomanError, SessionError
from speculation.protocol.messages import Resync, SessionOffer, Span, Verdict
from speculation.sampling.params import Rule
from speculation.sessions.drafter_session import DrafterSession, DraftToken, Expand, Instruction, Move
from transport.session_log import SessionLog

log = logging.getLogger(__name__)

_REASON_LENGTH = 500
Message = Span | Resync
#: Node numbers of the session's tree, each with the choices after it.
Draft = list[tuple[int, list[DraftToken]]]


@dataclass(frozen=True, slots=True)
class DraftJob:
    """A batch of one session: its moves so far, then the places of its tree that are to be continued."""

    session: DeskSession
    moves: Sequence[Move]
    expansions: Sequence[Expand]
    zero_width: int
    choices: int

    def begin(self) -> Expansion | Exception:
        """What its source is to be asked, or why it cannot be."""
        try:
            source = self.session.source_after(self.moves)
        except Exception as error:
            return error
        paths = [each.path for each in self.expansions]
        return Expansion(source, paths, zero_width=self.zero_width, choices=self.choices)

    def alone(self) -> Draft:
        """Carried out by itself. Raises DragomanError."""
        begun = self.begin()
        draft = self.draft(begun if isinstance(begun, Exception) else begun.alone())
        if isinstance(draft, DragomanError):
            raise draft
        return draft

    def draft(self, answer: Answer) -> Draft | DragomanError:
        """What nobody foresaw, no GPU memory left say, costs this session its drafts, and not all their drafter."""
        if not isinstance(answer, Exception):
            return [(place.number, tokens) for place, tokens in zip(self.expansions, answer, strict=True)]
        if isinstance(answer, DragomanError):
            return answer
        SessionLog(log, self.session.name).error("drafting failed", exc_info=answer)
        return SessionError(f"drafting failed: {type(answer).__name__}: {answer}"[:_REASON_LENGTH])


def carry_out(drafter: Drafter, jobs: Sequence[DraftJob]) -> list[Draft | DragomanError]:
    """Of each what it drafted, or what it failed of; in the worker thread, in as few passes as the drafter can."""
    begun = [job.begin() for job in jobs]
    asked = [one for one in begun if not isinstance(one, Exception)]
    if isinstance(drafter, DraftsTogether):
        answers = iter(drafter.expand_together(asked))
    else:
        answers = iter([expansion.alone() for expansion in asked])
    return [
        job.draft(one if isinstance(one, Exception) else next(answers)) for job, one in zip(jobs, begun, strict=True)
    ]


class DeskSession:
    """One session on the desk. ``source_after`` and ``close`` run in the worker thread, all else in the event loop."""

    def __init__(self, drafter: Drafter, offer: SessionOffer) -> None:
        self.name = offer.session
        self._drafter = drafter
        self._offer = offer
        self._session = DrafterSession(offer)
        self._source: DraftSource | None = None
        self._moves: deque[Move] = deque()
        self.trace = DraftTrace(offer, model=drafter.model_name)

    @property
    def is_typical_batch(self) -> bool:
        """Whether its coming batch takes what the model's usually do.

        Its first has the prompt to read besides, and the enumeration of psi takes many times as long.
        """
        return self._source is not None and self._offer.rule is not Rule.STRING_REJECTION

    def wants_draft(self) -> bool:
        return self._session.wants_draft()

    def on_verdict(self, verdict: Verdict) -> list[Message]:
        self.trace.verdict(verdict)
        return self._messages(self._session.on_verdict(verdict))

    def prepare(self) -> DraftJob:
        """The work of drafting one batch of tokens, for the worker thread."""
        moves = tuple(self._moves)
        self._moves.clear()
        return DraftJob(
            session=self,
            moves=moves,
            expansions=self._session.next_expansions(),
            zero_width=self._session.next_zero_width(),
            choices=1 + self._session.plan.alternatives,
        )

    def source_after(self, moves: Sequence[Move]) -> DraftSource:
        """In the worker thread: opened if it was not, and where these lead. Raises DragomanError."""
        if self._source is None:
            self._source = self._drafter.open(self._offer)
        for move in moves:
            self._source.move(move.path, move.keep, move.text)
        return self._source

    def take(self, draft: Draft) -> list[Message]:
        """What the worker drafted."""
        return self._messages(self._session.on_draft(draft))

    def close(self) -> None:
        """In the worker thread, after any drafting."""
        self.trace.end()
        if self._source is not None:
            self._source.close()

    def _messages(self, instructions: list[Instruction]) -> list[Message]:
        messages: list[Message] = []
        for instruction in instructions:
            if isinstance(instruction, Move):
                self._moves.append(instruction)
                continue
            if isinstance(instruction, Span):
                self.trace.sent(instruction)
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

    def next_turns(self, most: int) -> list[DeskSession]:
        """The next sessions that want a token, one that takes its time alone; they go to the end of the queue."""
        wanting = [session for session in self._sessions.values() if session.wants_draft()]
        typical = [session for session in wanting if session.is_typical_batch]
        chosen = typical[:most] if wanting[:1] == typical[:1] else wanting[:1]
        for session in chosen:
            del self._sessions[session.name]
            self._sessions[session.name] = session
        return chosen
