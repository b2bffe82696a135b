"""What a client is told: of its session when it begins and when it ends, and of the verifier."""

from __future__ import annotations

from collections.abc import Iterable

from speculation.protocol.generation import Finished, FinishReason, Started
from speculation.protocol.status import VerifierStatus
from speculation.protocol.tools import ToolFormat
from transport.version import VERSION
from verifier_service.drafter_link import DrafterLink
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
        guided=opened.session.guided,
        logprobs=opened.tells_logprobs,
        tool_format=(engine.tokenizer.tool_format or ToolFormat.TEXT) if opened.prompt.uses_tools else None,
        template_kwargs=bool(opened.prompt.template_kwargs),
        special_tokens=opened.prompt.special_tokens,
        cache_salt=bool(request.cache_salt),
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


def described(engine: Engine, links: Iterable[DrafterLink], *, sessions: int) -> VerifierStatus:
    """How the verifier of ``engine`` stands, with its drafters and so many sessions."""
    return VerifierStatus(
        version=VERSION,
        model=engine.name,
        vocab_size=engine.vocab_size,
        vocab_hash=engine.tokenizer.vocab.content_hash,
        context_length=engine.context_length,
        dtype=engine.dtype_name,
        device=engine.device_name,
        drafters=tuple(link.status() for link in links),
        sessions=sessions,
        kv_cache_bytes=engine.kv_cache_bytes,
        parameter_bytes=engine.parameter_bytes,
    )
