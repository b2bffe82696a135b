"""Between wire messages and the core's values, both ways.

Decoding validates: what comes out of ``*_from_wire`` satisfies the core's types, or InputError / ProtocolError was
raised. Unset optional numbers mean the field's neutral value.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, LimitExceededError, ProtocolError, VersionMismatchError
from speculation.planning.cost_model import StepCosts
from speculation.planning.plan import PlanLimits
from speculation.plural import count_of
from speculation.protocol.messages import SessionOffer, Span, SpeculationPlan, Verdict
from speculation.protocol.proposal import MAX_PAIRS, Proposal
from speculation.sampling.params import Rule, SamplingParams
from speculation.source import DRAFTER, Source, SourceKind
from transport.limits import PROTOCOL_VERSION, WireLimits
from transport.prompt_codec import prompt_from_wire, prompt_to_wire
from transport.trace_context import checked

_RULES = {
    Rule.RACE: pb.RULE_RACE,
    Rule.EXACT: pb.RULE_EXACT,
    Rule.REJECTION: pb.RULE_REJECTION,
    Rule.STRING_REJECTION: pb.RULE_STRING_REJECTION,
    Rule.AUTO: pb.RULE_AUTO,
}
_RULES_BACK = {value: rule for rule, value in _RULES.items()}
_SOURCES = {
    SourceKind.DRAFTER: pb.DRAFT_SOURCE_DRAFTER,
    SourceKind.PREDICTION: pb.DRAFT_SOURCE_PREDICTION,
    SourceKind.LOOKUP: pb.DRAFT_SOURCE_LOOKUP,
    SourceKind.REPLAY: pb.DRAFT_SOURCE_REPLAY,
    SourceKind.GRAMMAR: pb.DRAFT_SOURCE_GRAMMAR,
    SourceKind.RECYCLED: pb.DRAFT_SOURCE_RECYCLED,
}
_SOURCES_BACK = {value: kind for kind, value in _SOURCES.items()}


def check_version(theirs: int, *, who: str) -> None:
    """Raises VersionMismatchError unless ``who`` speaks this protocol version."""
    if theirs != PROTOCOL_VERSION:
        raise VersionMismatchError(
            f"{who} speaks protocol version {theirs}, this side {PROTOCOL_VERSION}",
            remedy="install the same release of dragoman on both sides",
        )


# ---- sampling -------------------------------------------------------------------------------------------------------


def sampling_to_wire(params: SamplingParams) -> pb.SamplingParams:
    return pb.SamplingParams(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=dict(params.logit_bias),
        seed=params.seed,
    )


def sampling_from_wire(params: pb.SamplingParams) -> SamplingParams:
    return SamplingParams(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p if params.HasField("top_p") else 1.0,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty if params.HasField("repetition_penalty") else 1.0,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=dict(params.logit_bias),
        seed=params.seed,
    )


def rule_to_wire(rule: Rule) -> pb.Rule:
    return _RULES[rule]


def rule_from_wire(rule: pb.Rule) -> Rule:
    if rule == pb.RULE_UNSPECIFIED:
        return Rule.RACE
    if rule not in _RULES_BACK:
        raise InputError("rule", int(rule), "is not known here", remedy=f"use one of {', '.join(Rule)}")
    return _RULES_BACK[rule]


def source_to_wire(kind: SourceKind) -> pb.DraftSource:
    return _SOURCES[kind]


def source_from_wire(source: pb.DraftSource) -> SourceKind | None:
    """None for one that is not named, or not known here: a newer peer may have more of them."""
    return _SOURCES_BACK.get(source)


# ---- plans, offers, spans, verdicts ------------------------------------------------------------------------------


def plan_to_wire(plan: SpeculationPlan) -> pb.SpeculationPlan:
    return pb.SpeculationPlan(
        width=plan.width,
        lookahead=plan.lookahead,
        stop_threshold=plan.stop_threshold,
        span_tokens=plan.span_tokens,
        patience=plan.patience,
        alternatives=plan.alternatives,
        alternative_threshold=plan.alternative_threshold,
        verify_threshold=plan.verify_threshold,
        top_k=plan.top_k,
    )


def plan_from_wire(plan: pb.SpeculationPlan) -> SpeculationPlan:
    return SpeculationPlan(
        width=plan.width,
        lookahead=plan.lookahead,
        stop_threshold=plan.stop_threshold,
        span_tokens=plan.span_tokens,
        patience=plan.patience,
        alternatives=plan.alternatives,
        alternative_threshold=plan.alternative_threshold,
        verify_threshold=plan.verify_threshold,
        top_k=plan.top_k,
    )


def step_costs_to_wire(costs: StepCosts) -> pb.StepCosts:
    return pb.StepCosts(
        step=costs.step,
        step_per_token=costs.step_per_token,
        acceptance=costs.acceptance,
        drafted_steps=costs.drafted_steps,
        alone_share=costs.alone_share,
    )


def plan_limits_to_wire(limits: PlanLimits) -> pb.PlanLimits:
    return pb.PlanLimits(width=limits.width, lookahead=limits.lookahead, alternatives=limits.alternatives)


def plan_limits_from_wire(limits: pb.PlanLimits) -> PlanLimits:
    """Those that are beyond what any plan can have are cut."""
    most = SpeculationPlan.MAX_TOKENS
    alternatives = min(limits.alternatives, SpeculationPlan.MAX_ALTERNATIVES)
    return PlanLimits(min(limits.width, most), min(limits.lookahead, most), alternatives)


def offer_to_wire(offer: SessionOffer) -> pb.SessionOffer:
    return pb.SessionOffer(
        session=offer.session,
        prompt=prompt_to_wire(offer.prompt),
        sampling=sampling_to_wire(offer.sampling),
        rule=rule_to_wire(offer.rule),
        committed=offer.committed,
        zero_width=offer.zero_width,
        plan=plan_to_wire(offer.plan),
        number=offer.number,
        vocab_hash=offer.vocab_hash,
        traceparent=offer.traceparent,
    )


def offer_from_wire(offer: pb.SessionOffer) -> SessionOffer:
    return SessionOffer(
        session=offer.session,
        prompt=prompt_from_wire(offer.prompt),
        sampling=sampling_from_wire(offer.sampling),
        rule=rule_from_wire(offer.rule),
        committed=offer.committed,
        zero_width=offer.zero_width,
        plan=plan_from_wire(offer.plan),
        number=offer.number,
        vocab_hash=offer.vocab_hash,
        traceparent=checked(offer.traceparent).traceparent,
    )


def _drawn_to_wire(proposal: Proposal) -> pb.DrawnToken:
    steps = [after - before for before, after in pairwise((0, *proposal.ids))]
    return pb.DrawnToken(token=proposal.token, id_steps=steps, weights=proposal.weights)


def _drawn_from_wire(drawn: pb.DrawnToken, vocab_size: int) -> Proposal:
    if len(drawn.id_steps) > MAX_PAIRS or len(drawn.weights) > MAX_PAIRS:
        raise LimitExceededError(f"{len(drawn.id_steps)} tokens in one distribution; the limit is {MAX_PAIRS}")
    proposal = Proposal(drawn.token, tuple(accumulate(drawn.id_steps)), tuple(drawn.weights))
    if proposal.ids[-1] >= vocab_size:
        raise InputError("drawn.id_steps", proposal.ids[-1], f"is no token id; the vocabulary has {vocab_size}")
    return proposal


def span_to_wire(session: str, span: Span) -> pb.DraftSpan:
    return pb.DraftSpan(
        session=session,
        base_offset=span.base_offset,
        base_digest=span.base_digest,
        text=span.text,
        ends=span.ends,
        tokens=span.tokens,
        alternative=span.alternative,
        rests=span.rests,
        confidence=span.confidence,
        drawn=[_drawn_to_wire(proposal) for proposal in span.proposals],
        zero_width=span.zero_width,
    )


def span_from_wire(
    span: pb.DraftSpan, limits: WireLimits, *, committed: int, vocab_size: int, source: Source = DRAFTER
) -> Span:
    """A drafter's span, checked. ``committed``: bytes of text committed so far in its session.

    ``vocab_size``: of the target. ``source``: the drafter. Raises LimitExceededError for what is too large,
    ProtocolError for an offset or a chance that no honest drafter names, InputError for a distribution that is none.
    """
    if len(span.drawn) > limits.span_drawn_tokens:
        raise LimitExceededError(f"{len(span.drawn)} drawn tokens in a span; the limit is {limits.span_drawn_tokens}")
    if len(span.text) > limits.span_bytes:
        raise LimitExceededError(f"a span of {len(span.text)} bytes; the limit is {limits.span_bytes}")
    if span.base_offset > committed + limits.pool_bytes:
        there = count_of(committed, "byte is", "bytes are")
        raise ProtocolError(
            f"a span at offset {span.base_offset}; {there} committed and {limits.pool_bytes} may be ahead"
        )
    confidence = span.confidence if span.HasField("confidence") else 1.0
    if not 0 <= confidence <= 1:  # nor NaN
        raise ProtocolError(f"a span with confidence={confidence}")
    return Span(
        base_offset=span.base_offset,
        base_digest=span.base_digest,
        text=span.text,
        ends=span.ends,
        tokens=span.tokens,
        alternative=span.alternative,
        rests=span.rests,
        confidence=confidence,
        proposals=tuple(_drawn_from_wire(drawn, vocab_size) for drawn in span.drawn),
        zero_width=span.zero_width,
        source=source,
    )


def verdict_to_wire(session: str, verdict: Verdict) -> pb.Verdict:
    return pb.Verdict(
        session=session,
        base_offset=verdict.base_offset,
        text=verdict.text,
        digest=verdict.digest,
        zero_width=verdict.zero_width,
        draft_tokens=verdict.draft_tokens,
        accepted_tokens=verdict.accepted_tokens,
        plan=plan_to_wire(verdict.plan) if verdict.plan is not None else None,
    )


def verdict_from_wire(verdict: pb.Verdict) -> Verdict:
    return Verdict(
        base_offset=verdict.base_offset,
        text=verdict.text,
        digest=verdict.digest,
        zero_width=verdict.zero_width,
        draft_tokens=verdict.draft_tokens,
        accepted_tokens=verdict.accepted_tokens,
        plan=plan_from_wire(verdict.plan) if verdict.HasField("plan") else None,
    )


def limits_to_wire(limits: WireLimits) -> pb.Limits:
    return pb.Limits(
        span_bytes=limits.span_bytes,
        pool_bytes=limits.pool_bytes,
        malformed_messages=limits.malformed_messages,
    )


def check_hello(hello: pb.Hello) -> None:
    """Raises VersionMismatchError or InputError for a drafter that cannot be worked with."""
    check_version(hello.protocol_version, who=f"drafter {hello.name!r}")
    if not hello.name or len(hello.name) > 200:
        raise InputError("hello.name", hello.name, "must have 1..200 characters")
    if hello.max_sessions < 1:
        raise InputError("hello.max_sessions", hello.max_sessions, "must be at least 1")
    if not (math.isfinite(hello.seconds_per_token) and hello.seconds_per_token >= 0):
        raise InputError("hello.seconds_per_token", hello.seconds_per_token, "must be finite and not negative")
