"""Which rule a session runs whose request leaves it open: what has served these drafters best.

Rejection sampling accepts more draft tokens than the race, by some per cent, and takes many times its bytes. So it has
to earn them: both are tried, then the one with more accepted of its draft tokens is taken, rejection only within a
limit of bytes. The other is tried again now and then. The choice rests on sessions that are over, so it cannot lean
on the coming text; but the text then depends on it, which is why nobody gets it without asking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from speculation.sampling import Rule
from verifier_service.drafter_link import DrafterLink
from verifier_service.open_session import OpenSession

#: Draft tokens, or sessions, after which a rule counts as tried; and draft tokens at which the counts are halved.
TRIED, TRIED_SESSIONS, REMEMBERED = 64, 8, 4096
#: Rejection must accept so many times what the race does.
WORTHWHILE = 1.02
#: Bytes per committed token, both ways, beyond which it is not taken.
MOST_BYTES = 1000.0
#: The other rule gets every n-th session.
RETRY_EVERY = 16

#: The drafters of a session: content hashes of their vocabularies.
Pair = frozenset[str]


@dataclass(slots=True)
class _Record:
    sessions: float = 0.0
    draft_tokens: float = 0.0
    accepted_tokens: float = 0.0
    committed_tokens: float = 0.0
    wire_bytes: float = 0.0

    def add(self, draft_tokens: int, accepted_tokens: int, committed_tokens: int, wire_bytes: int) -> None:
        if self.draft_tokens > REMEMBERED:
            for name in self.__slots__:
                setattr(self, name, getattr(self, name) / 2)
        self.sessions += 1
        self.draft_tokens += draft_tokens
        self.accepted_tokens += accepted_tokens
        self.committed_tokens += committed_tokens
        self.wire_bytes += wire_bytes

    @property
    def tried(self) -> bool:
        return self.draft_tokens >= TRIED or self.sessions >= TRIED_SESSIONS

    @property
    def acceptance(self) -> float:
        return self.accepted_tokens / self.draft_tokens if self.draft_tokens else 0.0

    @property
    def bytes_per_token(self) -> float:
        return self.wire_bytes / self.committed_tokens if self.committed_tokens else 0.0


class RuleChoice:
    """See the module."""

    def __init__(self) -> None:
        self._records: dict[tuple[Pair, Rule], _Record] = {}
        self._sessions: Counter[Pair] = Counter()

    def choose(self, links: Iterable[DrafterLink]) -> Rule:
        """For a session that these drafters may assist."""
        pair = frozenset(link.hello.vocab_hash for link in links if link.hello.vocab_hash)
        if not pair:
            return Rule.RACE  # nobody drafts with a model
        self._sessions[pair] += 1
        race, rejection = (self._record(pair, rule) for rule in (Rule.RACE, Rule.REJECTION))
        if not (race.tried and rejection.tried):
            return Rule.REJECTION if race.tried else Rule.RACE
        pays = rejection.acceptance >= WORTHWHILE * race.acceptance and rejection.bytes_per_token <= MOST_BYTES
        retry = self._sessions[pair] % RETRY_EVERY == 0
        return Rule.REJECTION if pays != retry else Rule.RACE

    def observe(self, opened: OpenSession) -> None:
        """A session is over."""
        stats, rule = opened.session.stats, opened.session.request.rule
        pair = frozenset(link.hello.vocab_hash for link in opened.links if link.hello.vocab_hash)
        committed, wire_bytes = len(opened.session.token_ids), opened.bytes_up + opened.bytes_down
        self._record(pair, rule).add(stats.draft_tokens, stats.accepted_tokens, committed, wire_bytes)

    def _record(self, pair: Pair, rule: Rule) -> _Record:
        return self._records.setdefault((pair, rule), _Record())
