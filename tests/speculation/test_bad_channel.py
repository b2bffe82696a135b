"""The two sessions through a channel that drops, duplicates, reorders, cuts and delays; drafters lie and restart.

Every run ends in the plain autoregressive text.
"""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from speculation.protocol.messages import Resync, Span, SpeculationPlan, Verdict
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.digest import DigestedText
from tests.support.session_drivers import SAMPLINGS, Drafter, Target, plain_text, request
from tests.support.text_models import TARGET_VOCAB


class BadChannel(RuleBasedStateMachine):
    """Messages are dropped, duplicated, reordered, cut and delayed; drafters restart. The text must not care."""

    @initialize(
        sampling=st.sampled_from(SAMPLINGS),
        rule=st.sampled_from(Rule.concrete()),
        plan=st.builds(
            SpeculationPlan,
            width=st.integers(0, 12),
            lookahead=st.integers(1, 12),
            stop_threshold=st.sampled_from([0.0, 0.3, 0.9]),
            span_tokens=st.integers(1, 4),
            patience=st.sampled_from([0.0, 0.1]),
            alternatives=st.integers(0, 3),
            alternative_threshold=st.sampled_from([0.0, 0.7, 1.0]),
            verify_threshold=st.sampled_from([0.0, 0.05, 0.5]),
        ),
        lookup=st.booleans(),
    )
    def start(self, sampling: SamplingParams, rule: Rule, plan: SpeculationPlan, lookup: bool):
        self.sampling, self.rule = sampling, rule
        self.target = Target(request(sampling, rule=rule), plan, lookup=lookup)
        self.expected = plain_text(sampling, 40, rule)
        self.up: list[list[Span | Resync]] = [[], []]
        self.down: list[list[Verdict]] = [[], []]
        self.drafters = [Drafter(self.target.offer(sampling, rule)) for _ in range(2)]

    @property
    def running(self) -> bool:
        return not self.target.finished

    @precondition(lambda self: self.running)
    @rule()
    def target_steps(self):
        for verdict in self.target.step():
            for queue in self.down:
                queue.append(verdict)

    @rule(which=st.integers(0, 1), tokens=st.integers(1, 6))
    def drafter_drafts(self, which: int, tokens: int):
        for _ in range(tokens):
            self.up[which] += self.drafters[which].draft()

    @rule(which=st.integers(0, 1), steps=st.integers(1, 2))
    def verdicts_cross_a_draft(self, which: int, steps: int):
        """The drafting model was asked; verdicts come before it answers."""
        drafter = self.drafters[which]
        asked = drafter.ask() if drafter.session.wants_draft() else []
        for _ in range(steps):
            if self.running:
                self.target_steps()
            self.deliver_down(which, 0, False)
        self.up[which] += drafter.answer(asked)

    @rule(which=st.integers(0, 1), at=st.integers(0, 3), keep=st.booleans())
    def deliver_up(self, which: int, at: int, keep: bool):
        """``at`` > 0 reorders, ``keep`` duplicates."""
        queue = self.up[which]
        if at >= len(queue) or not self.running:
            return
        message = queue[at] if keep else queue.pop(at)
        if isinstance(message, Span):
            self.target.session.on_span(message)
        else:
            verdict = self.target.session.on_resync(message)
            if verdict is not None:
                self.down[which].append(verdict)

    @rule(which=st.integers(0, 1), at=st.integers(0, 3), keep=st.booleans())
    def deliver_down(self, which: int, at: int, keep: bool):
        queue = self.down[which]
        if at < len(queue):
            self.up[which] += self.drafters[which].on_verdict(queue[at] if keep else queue.pop(at))

    @rule(which=st.integers(0, 1), upwards=st.booleans())
    def drop(self, which: int, upwards: bool):
        queue = self.up[which] if upwards else self.down[which]
        if queue:
            queue.pop(0)

    @rule(which=st.integers(0, 1), upwards=st.booleans(), cut=st.integers(0, 5))
    def truncate(self, which: int, upwards: bool, cut: int):
        queue = self.up[which] if upwards else self.down[which]
        if queue and not isinstance(queue[0], Resync):
            queue[0] = dataclasses.replace(queue[0], text=queue[0].text[:cut])  # type: ignore

    @rule(
        text=st.binary(max_size=6),
        offset=st.integers(0, 200),
        digest=st.integers(0, 2**61),
        confidence=st.sampled_from([0.0, 1e-30, 0.3, 1.0]),
    )
    def drafter_lies(self, text: bytes, offset: int, digest: int, confidence: float):
        if self.running:
            self.target.session.on_span(Span(offset, digest, text, ends=digest % 2 == 0, confidence=confidence))

    @rule(text=st.binary(min_size=1, max_size=6), confidence=st.floats(0, 1), alternative=st.integers(0, 3))
    def drafter_guesses_wildly(self, text: bytes, confidence: float, alternative: int):
        """In the right place: it joins the branches of the pool."""
        if self.running:
            at = self.target.session.committed
            span = Span(len(at), DigestedText(at).digest, text, alternative=alternative, confidence=confidence)
            self.target.session.on_span(span)

    @rule(which=st.integers(0, 1))
    def drafter_restarts(self, which: int):
        self.up[which].clear()
        self.down[which].clear()
        self.drafters[which] = Drafter(self.target.offer(self.sampling, self.rule))

    @invariant()
    def text_is_a_prefix_of_the_plain_text(self):
        if hasattr(self, "target"):
            ids = self.target.session.token_ids
            assert ids == self.expected[: len(ids)]
            for drafter in self.drafters:
                root = drafter.source.text  # at a token boundary at or before the committed end
                assert len(root) <= drafter.session.committed_length
                assert TARGET_VOCAB.text(self.expected).startswith(root)

    def settle(self):
        """Deliver everything, and what that brings about, in order."""
        for which in range(2):
            while self.running and (self.up[which] or self.down[which]):
                self.deliver_up(which, 0, False)
                self.deliver_down(which, 0, False)

    def teardown(self):
        if not hasattr(self, "target"):
            return
        # The channel heals: from here on, a drafter must find its way back by itself.
        while self.running:
            for which, drafter in enumerate(self.drafters):
                self.up[which] += drafter.draft()
            self.settle()
            self.target_steps()
            self.settle()
        assert self.target.session.token_ids == self.expected
        assert self.target.shown == TARGET_VOCAB.text(self.expected)


def test_any_channel_gives_the_plain_text():
    run_state_machine_as_test(BadChannel, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
