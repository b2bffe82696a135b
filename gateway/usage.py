"""What a request's texts took together: tokens, and what drafts did for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from speculation.protocol.completion import Completion
from speculation.protocol.generation import SourceStats, SpeculationStats
from speculation.source import SourceKind


def usage_of(completions: Sequence[Completion], *, choices_each: int, predicted: bool) -> dict[str, Any]:
    """OpenAI's "usage". ``choices_each``: of a prompt, whose tokens count once. ``predicted``: the client gave a draft
    of its own, and is told what became of it."""
    prompt_tokens = sum(completion.prompt_tokens for completion in completions[::choices_each])
    completion_tokens = sum(completion.completion_tokens for completion in completions)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if predicted:
        shares = [share for completion in completions for share in completion.shares_of(SourceKind.PREDICTION)]
        accepted = sum(share.accepted_tokens for share in shares)
        drafted = sum(share.draft_tokens for share in shares)
        usage["completion_tokens_details"] = {
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": drafted - accepted,
        }
    return usage


def speculation_of(completions: Sequence[Completion]) -> dict[str, Any]:
    """The block of ``Completion.to_json``, over all texts."""
    together = Completion(stats=_sum([completion.stats for completion in completions]))
    for completion in completions:
        together.token_ids += completion.token_ids
        together.replayed_tokens += completion.replayed_tokens
    return together.speculation_json()


def _sum(stats: Sequence[SpeculationStats]) -> SpeculationStats:
    """Counts of several sessions. The rule, and how many drafters are connected, is that of the last."""
    sources: dict[tuple[SourceKind, str, str, str], SourceStats] = {}
    for share in (share for each in stats for share in each.sources):
        key = (share.source, share.name, share.model, share.instance)
        before = sources.get(key) or dataclasses.replace(share, draft_tokens=0, accepted_tokens=0)
        sources[key] = dataclasses.replace(
            before,
            draft_tokens=before.draft_tokens + share.draft_tokens,
            accepted_tokens=before.accepted_tokens + share.accepted_tokens,
        )
    names = ("steps", "draft_tokens", "accepted_tokens", "spans", "stale_spans", "bytes_up", "bytes_down")
    positions = zip_longest(*(each.accepted_tokens_per_pos for each in stats), fillvalue=0)
    return SpeculationStats(
        **{name: sum(getattr(each, name) for each in stats) for name in names},
        accepted_tokens_per_pos=tuple(sum(counts) for counts in positions),
        verify_seconds=sum(each.verify_seconds for each in stats),
        rule=stats[-1].rule,
        sources=tuple(sources.values()),
        drafters_connected=stats[-1].drafters_connected,
    )
