"""Who drafts in a session, as figures name them."""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.sessions.statistics import SessionStats, SourceCounts
from speculation.source import Source, SourceKind
from transport import codec
from verifier_service.drafter_link import DrafterLink


class Contributors:
    """``add`` and ``link_of`` are for the event loop; ``stats`` may be asked for while a step runs."""

    def __init__(self) -> None:
        self._links: dict[Source, DrafterLink] = {}

    def add(self, link: DrafterLink) -> None:
        """The drafter takes part from now on; it is named even after it left."""
        self._links[link.source] = link

    def link_of(self, source: Source) -> DrafterLink | None:
        """The drafter's stream; None for other sources."""
        return self._links.get(source)

    def stats(self, stats: SessionStats) -> list[pb.SourceStats]:
        """All that drafted and all drafters that took part. A drafter that came back is one and the same."""
        counted = dict(stats.by_source)  # at once: the engine's thread may add to it
        entries: dict[tuple[SourceKind, str], pb.SourceStats] = {}
        for source in (*counted, *(source for source in self._links if source not in counted)):
            link = self._links.get(source)
            hello = link.hello if link is not None else pb.Hello()
            which = hello.instance or (f"#{link.number}" if link is not None else "")
            entry = entries.setdefault(
                (source.kind, which),
                pb.SourceStats(
                    source=codec.source_to_wire(source.kind),
                    name=hello.name,
                    model=hello.model,
                    instance=hello.instance,
                ),
            )
            counts = counted.get(source, SourceCounts())
            entry.draft_tokens += counts.draft_tokens
            entry.accepted_tokens += counts.accepted_tokens
        # Readers that keep only some keep those that say most.
        return sorted(entries.values(), key=lambda entry: (-entry.source, -entry.draft_tokens))
