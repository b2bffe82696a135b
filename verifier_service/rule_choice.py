"""Which rule a session runs whose request leaves it open: what has served these drafters fastest.

Rejection sampling accepts more draft tokens than the race, by some per cent; but where a draft comes late the race
still agrees with it as often, and rejection only by chance, and it takes many times the bytes. Acceptance says nothing
about that, nor do tokens per step, so both rules are tried, and then the one that was measured to be faster is taken,
rejection only within a limit of bytes. The other is tried again now and then. The choice rests on sessions that are
over, so it cannot lean on the coming text; but the text then depends on it, which is why nobody gets it without asking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from speculation.sampling.params import Rule
from verifier_service.drafter_link import DrafterLink
from verifier_service.open_session import OpenSession

#: Draft tokens, or sessions, after which a rule counts as tried; and draft tokens at which the counts are halved.
TRIED, TRIED_SESSIONS, REMEMBERED = 64, 8, 4096
#: Rejection must be so many times as fast as the race.
CLEARLY_FASTER = 1.02
#: Bytes per committed token, both ways, beyond which it is not taken.
MOST_BYTES = 1000.0
#: The other rule gets every n-th session.
RETRY_EVERY = 16


@dataclass(slots=True)
class _Record:
    sessions: float = 0.0
    draft_tokens: float = 0.0
    decode_seconds: float = 0.0
    decode_tokens: float = 0.0
    committed_tokens: float = 0.0
    wire_bytes: float = 0.0

    def merge(self, other: _Record) -> None:
        """Sessions that are over; older ones count less and less."""
        if self.draft_tokens > REMEMBERED:
            for name in self.__slots__:
                setattr(self, name, getattr(self, name) / 2)
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def tried(self) -> bool:
        return self.draft_tokens >= TRIED or self.sessions >= TRIED_SESSIONS

    @property
    def tokens_per_second(self) -> float:
        """Of decoding, the waiting for drafts and the other sessions' turns included."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def bytes_per_token(self) -> float:
        return self.wire_bytes / self.committed_tokens if self.committed_tokens else 0.0


class RuleChoice:
    """The rule for requests under ``auto``. What is known is kept by the drafters' vocabularies."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, Rule], _Record] = {}
        self._sessions: Counter[frozenset[str]] = Counter()

    def choose(self, links: Iterable[DrafterLink]) -> Rule:
        """For a session that some of these drafters will assist."""
        vocabularies = frozenset(link.hello.vocab_hash for link in links if link.hello.vocab_hash)
        if not vocabularies:
            return Rule.RACE  # nobody drafts with a model
        self._sessions[vocabularies] += 1
        race, rejection = (self._known(vocabularies, rule) for rule in (Rule.RACE, Rule.REJECTION))
        if not (race.tried and rejection.tried):
            return Rule.REJECTION if race.tried else Rule.RACE
        faster = rejection.tokens_per_second >= CLEARLY_FASTER * race.tokens_per_second
        pays = faster and rejection.bytes_per_token <= MOST_BYTES
        retry = self._sessions[vocabularies] % RETRY_EVERY == 0
        return Rule.REJECTION if pays != retry else Rule.RACE

    def observe_session(self, opened: OpenSession) -> None:
        """A session is over. It counts for the vocabularies of all drafters that it had at some time."""
        stats, rule = opened.session.stats, opened.session.request.rule
        figures = opened.figures
        wire_bytes = figures.bytes_up + figures.bytes_down
        seconds, tokens = figures.decode_seconds, figures.decode_tokens
        session = _Record(
            sessions=1,
            draft_tokens=stats.draft_tokens,
            decode_seconds=seconds,
            decode_tokens=tokens,
            committed_tokens=opened.new_tokens,
            wire_bytes=wire_bytes,
        )
        for vocabulary in opened.drafters.vocabularies - {""}:
            self._records.setdefault((vocabulary, rule), _Record()).merge(session)

    def _known(self, vocabularies: frozenset[str], rule: Rule) -> _Record:
        total = _Record()
        for vocabulary in vocabularies:
            total.merge(self._records.get((vocabulary, rule), _Record()))
        return total
