"""Pools of drafts for tests: two drafters, spans by the text that they follow, the branches as a list."""

from __future__ import annotations

from typing import Any

from speculation.drafts.draft_path import DraftPath
from speculation.drafts.draft_pool import DraftPool
from speculation.protocol.messages import Span
from speculation.source import Source, SourceKind
from speculation.text.digest import EMPTY_DIGEST, extend_digest

ANN, BOB = Source(SourceKind.DRAFTER), Source(SourceKind.DRAFTER)


def after(before: bytes, text: bytes, source: Source = ANN, **options: Any) -> Span:
    """A span that follows ``before``, the generated text."""
    return Span(len(before), extend_digest(EMPTY_DIGEST, before), text, source=source, **options)


def pool(*spans: Span) -> DraftPool:
    """A pool at the beginning of a text that holds these."""
    made = DraftPool()
    for span in spans:
        made.add_span(span)
    return made


def paths(drafts: DraftPool, limit: int = 99, **options: Any) -> list[DraftPath]:
    """All branches, at most ``limit`` bytes of each."""
    return list(drafts.branches(limit=limit, **options))
