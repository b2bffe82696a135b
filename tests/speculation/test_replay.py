"""A text resumed from its bytes: the same text, whatever the cut, the settings and the drafts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.replay import REPLAY_WIDTH, Replay
from speculation.errors import DivergedError
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.text_stream import TextRun
from tests.support.session_drivers import SAMPLINGS, Drafter, Target, request
from tests.support.text_models import TARGET_VOCAB

STOPS = [(), (b" on the",), ("猫".encode()[:2], b"dog"), (b"too.\nthe", b"zzz")]


def written(
    sampling: SamplingParams, plan: SpeculationPlan | None = None, *, drafted: bool = False, **kwargs
) -> Target:
    """A session run to its end. ``drafted``: a drafter assists from where nothing is left to replay."""
    target = Target(request(sampling, **kwargs), plan or SpeculationPlan(width=0))
    drafter: Drafter | None = None
    while not target.finished:
        if drafted and not target.session.replaying:
            drafter = drafter or Drafter(target.offer(sampling, kwargs.get("rule", Rule.RACE)))
            for message in drafter.draft():
                target.session.on_span(message)  # type: ignore[arg-type]
        for verdict in target.step():
            if drafter is not None:
                drafter.on_verdict(verdict)
    return target


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("rule", [rule for rule in Rule.concrete() if rule.resumable])
def test_every_prefix_of_the_text_resumes_to_the_same_text(
    sampling: SamplingParams, stop: tuple[bytes, ...], rule: Rule
):
    whole = written(sampling, max_tokens=45, stop=stop, rule=rule)
    assert len(whole.shown) > 5
    for cut in range(len(whole.shown) + 1):
        received = whole.shown[:cut]
        again = written(sampling, max_tokens=45, stop=stop, rule=rule, received=received)
        assert received + again.shown == whole.shown
        assert again.session.token_ids == whole.session.token_ids
        assert again.session.finish_reason is whole.session.finish_reason
        assert len(TARGET_VOCAB.text(again.session.token_ids[: again.session.replayed_tokens])) >= cut


@given(
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    penalty=st.sampled_from([1.0, 1.2]),
    stop=st.sampled_from(STOPS),
    share=st.floats(0, 1),
    width=st.integers(0, 12),
    max_tokens=st.integers(1, 120),
)
def test_a_resumed_text_is_the_same_with_a_drafter(
    seed: int,
    temperature: float,
    penalty: float,
    stop: tuple[bytes, ...],
    share: float,
    width: int,
    max_tokens: int,
):
    sampling = SamplingParams(
        temperature=temperature, repetition_penalty=penalty, presence_penalty=penalty - 1, seed=seed
    )
    options: dict[str, Any] = {"max_tokens": max_tokens, "stop": stop, "ignore_end": seed % 2 == 0}
    whole = written(sampling, **options)
    received = whole.shown[: round(share * len(whole.shown))]
    again = written(sampling, SpeculationPlan(width=width), drafted=True, received=received, **options)
    assert received + again.shown == whole.shown
    assert again.session.token_ids == whole.session.token_ids


def test_a_long_text_is_replayed_in_wide_steps_beyond_the_pool():
    sampling = SamplingParams(temperature=0.8, seed=3)
    whole = written(sampling, max_tokens=2500, ignore_end=True)
    assert len(whole.shown) > 4096, "more than the pool holds"
    target = Target(request(sampling, max_tokens=2500, ignore_end=True, received=whole.shown), SpeculationPlan(width=0))
    steps = 0
    while not target.finished:
        before = len(target.session.token_ids)
        target.step()
        steps += 1
        assert len(target.session.token_ids) - before <= REPLAY_WIDTH + 1
    assert target.session.token_ids == whole.session.token_ids and target.shown == b""
    assert steps < 2500 / 5
    assert target.session.stats.draft_tokens == 0, "a replay says nothing about drafters"


def test_what_was_received_is_shown_to_nobody_again_but_its_tokens_are_told():
    sampling = SamplingParams()
    whole = written(sampling, max_tokens=30)
    again = written(sampling, max_tokens=30, received=whole.shown[:20])
    assert again.shown == whole.shown[20:]
    assert again.told == whole.session.token_ids


@pytest.mark.parametrize("at", [0, 1, 7, 15])
def test_bytes_that_the_target_would_not_write_are_refused(at: int):
    sampling = SamplingParams()
    received = bytearray(written(sampling, max_tokens=30).shown)
    received[at] ^= 1
    with pytest.raises(DivergedError, match="differs"):
        written(sampling, max_tokens=30, received=bytes(received))


@pytest.mark.parametrize("stop", [(), (b" on the",)])
def test_more_bytes_than_the_target_writes_are_refused(stop: tuple[bytes, ...]):
    whole = written(SamplingParams(), max_tokens=30, stop=stop)
    for more in (b"x", b" on the mat and on", b" on the"):
        with pytest.raises(DivergedError):
            written(SamplingParams(), max_tokens=30, stop=stop, received=whole.shown + more)


@given(
    received=st.binary(max_size=12),
    pieces=st.lists(st.tuples(st.binary(min_size=1, max_size=4), st.booleans()), max_size=6),
)
def test_unseen_is_what_follows_or_an_error(received: bytes, pieces: list[tuple[bytes, bool]]):
    replay = Replay(received)
    text = b"".join(data for data, _ in pieces)
    runs = [TextRun(data, drafted) for data, drafted in pieces]
    if not text.startswith(received):
        with pytest.raises(DivergedError):
            replay.unseen(runs, finished=True)
        return
    unseen = replay.unseen(runs, finished=True)
    assert received + b"".join(run.text for run in unseen) == text
    assert all(run.text for run in unseen)
