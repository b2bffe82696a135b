"""From a request to a session of the target: what can be wrong with a request for this model is found here."""

from __future__ import annotations

from collections.abc import Callable

from speculation.drafts.recycling import Recycling
from speculation.errors import InputError, LimitExceededError
from speculation.guide import Guide
from speculation.plural import count_of
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.messages import SpeculationPlan
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule
from speculation.sessions.target_session import TargetSession
from transport.roles import caller
from verifier_service.engine import Engine
from verifier_service.local_text import LocalText
from verifier_service.recycled_texts import RecycledTexts


def admit(
    request: GenerationRequest,
    engine: Engine,
    *,
    plan: SpeculationPlan,
    pool_bytes: int,
    lookup: bool,
    recycled: RecycledTexts,
    auto: Callable[[], Rule],
    guide: Guide | None = None,
    local: LocalText | None = None,
) -> TargetSession:
    """Of the caller. ``lookup``: whether the target drafts by itself, what followed before and what it nearly said;
    ``recycled``: in which texts that may be. ``auto`` says which rule to run where the request leaves it open; with a
    ``guide`` it is the race. ``local``: see ``Verifier.generate``. Raises InputError."""
    _check(request, engine)
    rule = request.rule
    if rule is Rule.AUTO:
        rule = auto() if guide is None else Rule.RACE
    speculates = plan.width > 0 and request.draft
    lookup = lookup and speculates
    asked = SessionRequest(
        prompt_ids=tuple(engine.tokenizer.prompt_ids(request.prompt)) if local is None else local.prompt_ids,
        sampling=request.sampling,
        max_tokens=request.max_tokens or engine.context_length,
        context_length=engine.context_length,
        stop=request.stop,
        rule=rule,
        ignore_end=request.ignore_end,
        received=request.received,
        tell_steps=request.tell_steps,
        cache_salt=request.cache_salt,
    )
    return TargetSession(
        asked,
        engine.tokenizer.vocab,
        engine.tokenizer.encode,
        plan=plan,
        pool_bytes=pool_bytes,
        lookup=lookup,
        prediction=request.prediction,
        guide=guide,
        jumps=speculates,
        recycling=_recycling(asked, engine, recycled) if lookup else None,
        free=engine.free_draft_tokens,
        widest=engine.max_draft_tokens,
    )


def _check(request: GenerationRequest, engine: Engine) -> None:
    beyond = [token for token in request.sampling.logit_bias if token >= engine.vocab_size]
    if beyond:
        raise InputError("logit_bias", beyond[0], f"is no token id; the vocabulary has {engine.vocab_size}")
    if request.received and request.rule is Rule.AUTO:
        problem = "cannot be resumed under: the text was begun under one rule"
        raise InputError("rule", request.rule, problem, remedy="give the rule that the first verifier named")


def _recycling(asked: SessionRequest, engine: Engine, recycled: RecycledTexts) -> Recycling | None:
    """Of the caller. Not where drafters draw tokens: what is tried must not depend on what was drawn."""
    if asked.rule.proposes or (tokens := recycled.of(caller(), asked.cache_salt)) is None:
        return None
    width = engine.free_draft_tokens if recycled.fills else 0
    return Recycling.of(asked, engine.tokenizer.vocab, tokens, width=width)


def check_room(sessions: int, *, most: int) -> None:
    """Raises LimitExceededError if no further session may be open."""
    if sessions >= most:
        raise LimitExceededError(
            f"no room for another text: {sessions} of at most {count_of(most, 'session')}", remedy="try again later"
        )


def check_width(width: int, engine: Engine) -> None:
    """Raises InputError for more draft tokens than leave the text as it is."""
    if width > engine.max_draft_tokens:
        raise InputError(
            "width",
            width,
            f"is too much for {engine.dtype_name} on {engine.device_name}: the text would depend on the drafts",
            remedy=f"{engine.max_draft_tokens} at most",
        )
