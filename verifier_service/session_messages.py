"""What a client is told of its session when it begins and when it ends."""

from __future__ import annotations

from speculation.protocol.generation import Finished, FinishReason, Started
from verifier_service.engine import Engine
from verifier_service.open_session import OpenSession


def started(opened: OpenSession, engine: Engine) -> Started:
    """It is admitted, nothing has run yet."""
    request = opened.session.request
    return Started(
        session=opened.name,
        prompt_tokens=len(request.prompt_ids),
        drafters=len(opened.drafters),
        received_bytes=len(request.received),
        model=engine.name,
        vocab_hash=engine.tokenizer.vocab.content_hash,
        dtype=engine.dtype_name,
        rule=request.rule,
    )


def finished(opened: OpenSession, reason: FinishReason, *, drafters_connected: int) -> Finished:
    """``drafters_connected``: to the verifier."""
    session = opened.session
    return Finished(
        reason=reason,
        prompt_tokens=len(session.request.prompt_ids),
        completion_tokens=len(session.token_ids),
        stats=opened.stats(drafters_connected=drafters_connected),
        stopped_by=session.stopped_by,
        replayed_tokens=session.replayed_tokens,
    )
