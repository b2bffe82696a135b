"""Which drafters draft for which sessions.

Looked for is the assignment of the highest sum of log(speed of a session over its target alone), so that sessions
share what drafters there are: the second session at an idle drafter gains more than it takes from the first. From
the present assignment, the best single change is made as long as one is worth it, and only a few at a time. Each
change raises the sum by more than a margin, so the search ends, and an assignment that it ended with is left alone
until the figures change.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

#: A second drafter is taken to add this share of what it would add alone: the two often guess the same.
SECOND_DRAFTER: Final = 0.25
#: Changes per call. What is left follows at the next one; the whole fleet is never turned over at once.
CHANGES: Final = 16


class SessionKey(NamedTuple):
    """Verifiers make up the names of sessions, so only both together are unique."""

    verifier: str
    session: str


@dataclass(frozen=True, slots=True, order=True)
class Seat:
    """A drafter's stream to one verifier. ``drafter``: the instance whose capacity it uses."""

    verifier: str
    link: int
    drafter: str


@dataclass(frozen=True, slots=True)
class Applicant:
    """A session that may be drafted for.

    ``seats``: those that neither declined nor ended. ``current``: where it sits, first drafter first. ``pinned``: it
    came there only just.
    """

    key: SessionKey
    seats: tuple[Seat, ...]
    current: tuple[Seat, ...] = ()
    pinned: bool = False


#: The speed of a session over its target alone, if this seat drafts for it while its drafter serves so many sessions.
Value = Callable[[SessionKey, Seat, int], float]
Assignment = dict[SessionKey, tuple[Seat, ...]]


def place(
    applicants: Iterable[Applicant],
    capacity: Mapping[str, int],
    value: Value,
    *,
    drafters_per_session: int = 1,
    margin: float = 0.15,
    changes: int = CHANGES,
) -> Assignment:
    """The seats of each applicant, first drafter first.

    ``capacity``: sessions per drafter, never exceeded. ``margin``: the share of speed that a move must gain.
    """
    ordered = sorted(applicants, key=lambda applicant: applicant.key)
    board = _Board(ordered, capacity, value)
    for applicant in ordered:
        for seat in (seat for seat in applicant.current if seat in applicant.seats):
            if not board.seats[applicant.key] and board.room(seat.drafter):
                board.change({applicant.key: (seat,)})
    # First drafters are settled as if there were no second ones, which therefore never keep a session waiting.
    for _ in range(changes):
        best = max(_first_drafter_changes(board, math.log1p(margin)), key=lambda found: found.gain, default=None)
        if best is None:
            break
        board.change(best.seats)
    if drafters_per_session > 1:
        _seat_second_drafters(board, drafters_per_session)
    return board.seats


class _Change(NamedTuple):
    gain: float
    seats: dict[SessionKey, tuple[Seat, ...]]


class _Board:
    """An assignment in the making."""

    def __init__(self, applicants: list[Applicant], capacity: Mapping[str, int], value: Value) -> None:
        self.applicants = {applicant.key: applicant for applicant in applicants}
        self.seats: Assignment = {applicant.key: () for applicant in applicants}
        self.served: dict[str, set[SessionKey]] = defaultdict(set)  # by drafter
        self._capacity = capacity
        self._value = value
        self._known: dict[tuple[SessionKey, Seat, int], float] = {}

    def room(self, drafter: str) -> bool:
        return len(self.served[drafter]) < self._capacity.get(drafter, 0)

    def change(self, seats: dict[SessionKey, tuple[Seat, ...]]) -> None:
        for key in seats:
            for seat in self.seats[key]:
                self.served[seat.drafter].discard(key)
        for key, new in seats.items():
            self.seats[key] = new
            for seat in new:
                self.served[seat.drafter].add(key)

    def weigh(self, seats: dict[SessionKey, tuple[Seat, ...]]) -> _Change:
        """What a change gains, for the sessions that move and for those that share a drafter with them."""
        before = {key: self.seats[key] for key in seats}
        touched = {seat.drafter for moved in (before, seats) for found in moved.values() for seat in found}
        affected = set(seats).union(*(self.served[drafter] for drafter in touched))
        worth = self._worth(affected)
        self.change(seats)
        gain = self._worth(affected) - worth
        self.change(before)
        return _Change(gain, seats)

    def _worth(self, keys: set[SessionKey]) -> float:
        return math.fsum(math.log(max(self.speed(key), 1e-3)) for key in keys)

    def speed(self, key: SessionKey) -> float:
        seats = self.seats[key]
        if len(seats) < 2:
            return self._speed_at(key, seats[0]) if seats else 1.0
        first, *others = sorted((self._speed_at(key, seat) for seat in seats), reverse=True)
        return first + SECOND_DRAFTER * sum(max(speed - 1, 0.0) for speed in others)

    def _speed_at(self, key: SessionKey, seat: Seat) -> float:
        question = (key, seat, len(self.served[seat.drafter]))
        if question not in self._known:
            self._known[question] = self._value(*question)
        return self._known[question]


def _first_drafter_changes(board: _Board, threshold: float) -> Iterator[_Change]:
    """Those that are worth it."""
    for key, applicant in board.applicants.items():
        if applicant.pinned and board.seats[key]:
            continue
        for seat in applicant.seats:
            if seat not in board.seats[key]:
                yield from _changes_to(board, key, seat, threshold)
    yield from _departures(board, threshold)


def _changes_to(board: _Board, key: SessionKey, seat: Seat, threshold: float) -> Iterator[_Change]:
    """The session takes the seat: a free one, or that of another session, which takes what is left, if it can."""
    sitting = board.seats[key]
    if board.room(seat.drafter) or any(seat.drafter == other.drafter for other in sitting):
        change = board.weigh({key: (seat,)})
        # An idle drafter is worth a try even where it promises nothing: acceptance has to be found out.
        if change.gain > threshold or (not sitting and change.gain >= 0):
            yield change
        return
    for other in board.served[seat.drafter] - {key}:
        if not board.applicants[other].pinned:
            change = board.weigh({key: (seat,), other: _place_left(board, other, sitting)})
            if change.gain > threshold:
                yield change


def _departures(board: _Board, threshold: float) -> Iterator[_Change]:
    """One less at a drafter may gain nothing where three less gain much, so all numbers are tried."""
    for served in list(board.served.values()):
        leaving = sorted((board.speed(key), key) for key in served if not board.applicants[key].pinned)
        for count in range(1, len(leaving) + 1):
            change = board.weigh({key: () for _, key in leaving[:count]})
            if change.gain > threshold:
                yield change


def _place_left(board: _Board, key: SessionKey, left: tuple[Seat, ...]) -> tuple[Seat, ...]:
    """The seat that a session thrown out finds at the drafter that its successor leaves."""
    drafters = {seat.drafter for seat in left}
    return tuple(seat for seat in board.applicants[key].seats if seat.drafter in drafters)[:1]


def _seat_second_drafters(board: _Board, limit: int) -> None:
    """Those that are there stay while there is room; more join where they gain."""
    for key, applicant in board.applicants.items():
        for seat in (seat for seat in applicant.current if seat in applicant.seats):
            if _may_join(board, key, seat, limit):
                board.change({key: (*board.seats[key], seat)})
    while True:
        joining = (
            board.weigh({key: (*board.seats[key], seat)})
            for key, applicant in board.applicants.items()
            for seat in applicant.seats
            if _may_join(board, key, seat, limit)
        )
        best = max(joining, key=lambda found: found.gain, default=None)
        if best is None or best.gain <= 0:
            return
        board.change(best.seats)


def _may_join(board: _Board, key: SessionKey, seat: Seat, limit: int) -> bool:
    sitting = board.seats[key]
    is_new = all(seat.drafter != other.drafter for other in sitting)
    return bool(sitting) and len(sitting) < limit and is_new and board.room(seat.drafter)
