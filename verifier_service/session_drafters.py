"""Who drafts in one session: whom it was offered to, who declined, whose order placed them, and how figures name them.

The only owner of this: what a link knows of its sessions is changed here as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from speculation.protocol.generation import SourceStats, VerifyStep
from speculation.sessions.statistics import SessionStats, SourceCounts
from speculation.source import Source, SourceKind
from verifier_service.drafter_link import DrafterLink


class SessionDrafters:
    """For the event loop; ``stats`` may be asked for while a step runs.

    ``wanted``: whether drafters may be offered the session. ``replaying``: they are of no use to a replay, so not yet.
    """

    def __init__(self, session: str, *, wanted: bool, replaying: bool) -> None:
        self._session = session
        self._links: dict[DrafterLink, None] = {}  # in the order in which they came
        self._declined: set[DrafterLink] = set()
        self._by_source: dict[Source, DrafterLink] = {}  # those that left, too
        self._placed_until = 0.0
        self.open = wanted and not replaying
        self._opens_later = wanted and replaying
        #: Vocabularies of the drafters that were offered it; "" is that of one without a model.
        self.vocabularies: set[str] = set()

    def __iter__(self) -> Iterator[DrafterLink]:
        return iter(tuple(self._links))

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, link: DrafterLink) -> bool:
        return link in self._links

    @property
    def declined(self) -> frozenset[DrafterLink]:
        """Those that would not draft for it, or may not."""
        return frozenset(self._declined)

    def takes(self, link: DrafterLink) -> bool:
        """Whether the drafter may be offered the session now."""
        return self.open and link.has_room and link not in self._links and link not in self._declined

    def join(self, link: DrafterLink) -> None:
        """The drafter takes part from now on; figures name it even after it left."""
        self._links[link] = None
        self._by_source[link.source] = link
        self.vocabularies.add(link.hello.vocab_hash)
        link.sessions.add(self._session)

    def leave(self, link: DrafterLink) -> None:
        """The drafter takes part no more."""
        self._links.pop(link, None)
        link.sessions.discard(self._session)
        link.former.append(self._session)

    def exclude(self, link: DrafterLink) -> None:
        """The drafter is never offered it."""
        self._declined.add(link)

    def decline(self, link: DrafterLink) -> None:
        """The drafter will not draft for it, now or later."""
        self._declined.add(link)
        self.leave(link)

    def replay_ended(self) -> bool:
        """Whether the session may be offered to drafters from now on, and might not be before."""
        begins, self._opens_later = self._opens_later, False
        self.open = self.open or begins
        return begins

    def close(self) -> None:
        """No drafter joins any more."""
        self.open = self._opens_later = False

    def place(self, until: float) -> None:
        """The coordinator says who drafts; its order stands ``until``, by the steady clock."""
        self._placed_until = until

    def is_placed(self, now: float) -> bool:
        """Whether an order of the coordinator stands."""
        return now < self._placed_until

    # ---- figures ----------------------------------------------------------------------------------------------

    def link_of(self, source: Source) -> DrafterLink | None:
        """The drafter's stream; None for other sources."""
        return self._by_source.get(source)

    def with_round_trip(self, step: VerifyStep | None) -> VerifyStep | None:
        """What is told of a step, with how far the nearest drafter is."""
        measured = [link.round_trip.mean for link in self if link.round_trip.mean is not None]
        return dataclasses.replace(step, round_trip=min(measured)) if step is not None and measured else step

    def stats(self, stats: SessionStats) -> tuple[SourceStats, ...]:
        """All that drafted and all drafters that took part. A drafter that came back is one and the same."""
        counted = dict(stats.by_source)  # at once: the engine's thread may add to it
        sums: dict[tuple[SourceKind, str], SourceStats] = {}
        for source in (*counted, *(source for source in self._by_source if source not in counted)):
            link, counts = self._by_source.get(source), counted.get(source, SourceCounts())
            which = "" if link is None else link.hello.instance or f"#{link.number}"
            before = sums.get((source.kind, which))
            sums[source.kind, which] = SourceStats(
                source.kind,
                name=link.hello.name if link is not None else "",
                model=link.hello.model if link is not None else "",
                instance=link.hello.instance if link is not None else "",
                draft_tokens=counts.draft_tokens + (before.draft_tokens if before else 0),
                accepted_tokens=counts.accepted_tokens + (before.accepted_tokens if before else 0),
            )
        # Readers that keep only some keep those that say most.
        return tuple(sorted(sums.values(), key=lambda entry: (-entry.source, -entry.draft_tokens)))
