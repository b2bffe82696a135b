"""From a client's request to a session: everything that can be wrong with a request is found here."""

from __future__ import annotations

from collections.abc import Callable

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule
from speculation.sessions.target_session import TargetSession
from transport import codec
from transport.limits import WireLimits
from transport.request_size import check_request_size
from verifier_service.engine import Engine


def admit(
    request: pb.GenerateRequest,
    engine: Engine,
    *,
    plan: SpeculationPlan,
    limits: WireLimits,
    lookup: bool,
    auto: Callable[[], Rule],
) -> tuple[Prompt, TargetSession]:
    """``auto`` says which rule to run where the request leaves it open. Raises InputError or VersionMismatchError."""
    codec.check_version(request.protocol_version, who="the client")
    check_request_size(request, limits)
    prompt = codec.prompt_from_wire(request.prompt)
    sampling = codec.sampling_from_wire(request.sampling)
    wild = [token for token in sampling.logit_bias if token >= engine.vocab_size]
    if wild:
        raise InputError("logit_bias", wild[0], f"is no token id; the vocabulary has {engine.vocab_size}")
    rule = codec.rule_from_wire(request.rule)
    if request.received and rule is Rule.AUTO:
        problem = "cannot be resumed under: the text was begun under one rule"
        raise InputError("rule", rule, problem, remedy="give the rule that the first verifier named")
    session = TargetSession(
        SessionRequest(
            tuple(engine.tokenizer.prompt_ids(prompt)),
            sampling,
            request.max_tokens or engine.context_length,
            engine.context_length,
            tuple(request.stop),
            auto() if rule is Rule.AUTO else rule,
            request.ignore_end,
            request.received,
        ),
        engine.tokenizer.vocab,
        engine.tokenizer.encode,
        plan=plan,
        pool_bytes=limits.pool_bytes,
        lookup=lookup and plan.width > 0 and not request.no_draft,
        prediction=request.prediction,
        free=engine.free_draft_tokens,
        widest=engine.max_draft_tokens,
    )
    return prompt, session
