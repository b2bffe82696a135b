"""The pool keeps a node for each run of bytes, not for each byte: nothing that it says may depend on the cuts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.draft_pool import DraftPool
from speculation.source import LOOKUP, Source
from tests.support.draft_pools import ANN, BOB, after, paths

_WORDS = st.tuples(
    st.sampled_from([ANN, BOB, LOOKUP]), st.text("ab", max_size=6), st.integers(0, 2), st.sampled_from([1.0, 0.5, 0.3])
)


@given(st.lists(_WORDS, max_size=8), st.lists(st.text("ab", max_size=6), max_size=20), st.integers(1, 9))
def test_where_runs_are_cut_changes_nothing(guesses: list[tuple[Source, str, int, float]], cuts: list[str], limit: int):
    """Places that somebody asked for split runs of bytes: branches, chances, order and guesses are the same."""
    whole, cut = DraftPool(), DraftPool()
    trust = {ANN: 0.5, LOOKUP: 1.2}
    for number, (source, text, alternative, confidence) in enumerate(guesses):
        ends = number % 5 == 4
        span = after(b"", text.encode(), source, alternative=alternative, confidence=confidence, ends=ends)
        assert whole.add_span(span) == cut.add_span(span)
        for text in cuts[number::8]:
            cut.root.follow(text.encode())
    assert paths(whole, limit, trust=trust) == paths(cut, limit, trust=trust)
    assert whole.size == cut.size
    for source in (ANN, BOB, LOOKUP):
        assert whole.guesses(source) == cut.guesses(source)
