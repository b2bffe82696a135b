"""Between wire messages and plain values, both ways: requests for completions, their events, a verifier's status.

Decoding validates as ``transport/codec.py`` does.
"""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ProtocolError
from speculation.protocol.generation import (
    Chunk,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    PlanChange,
    SourceStats,
    SpeculationStats,
    Started,
)
from speculation.protocol.status import DrafterStatus, VerifierStatus
from speculation.text.text_stream import TextRun
from transport import codec
from transport.guide_codec import guide_from_wire, guide_to_wire
from transport.limits import PROTOCOL_VERSION, WireLimits
from transport.logprobs_codec import logprobs_from_wire, logprobs_to_wire
from transport.prompt_codec import prompt_from_wire, prompt_to_wire
from transport.request_size import check_request_size
from transport.started_codec import started_from_wire, started_to_wire
from transport.step_codec import step_from_wire, step_to_wire

_FINISH = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}
_FINISH_BACK = {value: reason for reason, value in _FINISH.items()}


def request_to_wire(request: GenerationRequest) -> pb.GenerateRequest:
    """Raises InputError if it does not fit into a message."""
    message = pb.GenerateRequest(
        protocol_version=PROTOCOL_VERSION,
        prompt=prompt_to_wire(request.prompt),
        sampling=codec.sampling_to_wire(request.sampling),
        max_tokens=request.max_tokens,
        stop=request.stop,
        rule=codec.rule_to_wire(request.rule),
        no_draft=not request.draft,
        ignore_end=request.ignore_end,
        received=request.received,
        prediction=request.prediction,
        priority=request.priority,
        tell_steps=request.tell_steps,
        cache_salt=request.cache_salt,
    )
    if request.guide is not None:
        message.guide.CopyFrom(guide_to_wire(request.guide))
    if request.logprobs is not None:
        message.logprobs = request.logprobs
    check_request_size(message)
    return message


def request_from_wire(message: pb.GenerateRequest, limits: WireLimits) -> GenerationRequest:
    """Raises VersionMismatchError, or InputError with the field."""
    codec.check_version(message.protocol_version, who="the client")
    check_request_size(message, limits)
    return GenerationRequest(
        prompt=prompt_from_wire(message.prompt),
        sampling=codec.sampling_from_wire(message.sampling),
        max_tokens=message.max_tokens,
        stop=tuple(message.stop),
        rule=codec.rule_from_wire(message.rule),
        draft=not message.no_draft,
        ignore_end=message.ignore_end,
        prediction=message.prediction,
        received=message.received,
        priority=message.priority,
        guide=guide_from_wire(message.guide) if message.HasField("guide") else None,
        logprobs=message.logprobs if message.HasField("logprobs") else None,
        tell_steps=message.tell_steps,
        cache_salt=message.cache_salt,
    )


def event_to_wire(event: GenerationEvent) -> pb.GenerateResponse:
    match event:
        case Started():
            return pb.GenerateResponse(started=started_to_wire(event))
        case Chunk():
            return pb.GenerateResponse(chunk=_chunk_to_wire(event))
        case Finished():
            return pb.GenerateResponse(finished=_finished_to_wire(event))


def event_from_wire(message: pb.GenerateResponse) -> GenerationEvent | None:
    """None for an event that is not known here: a newer verifier may have more of them."""
    match message.WhichOneof("event"):
        case "started":
            return started_from_wire(message.started)
        case "chunk":
            return _chunk_from_wire(message.chunk)
        case "finished":
            return _finished_from_wire(message.finished)
    return None


def _chunk_to_wire(chunk: Chunk) -> pb.TextChunk:
    runs = [
        pb.TextRun(
            text=run.text,
            drafted=run.drafted,
            source=codec.source_to_wire(run.source) if run.source is not None else pb.DRAFT_SOURCE_UNSPECIFIED,
        )
        for run in chunk.runs
    ]
    step = step_to_wire(chunk.step) if chunk.step is not None else None
    logprobs = map(logprobs_to_wire, chunk.logprobs)
    return pb.TextChunk(runs=runs, token_ids=chunk.token_ids, logprobs=logprobs, step=step)


def _chunk_from_wire(chunk: pb.TextChunk) -> Chunk:
    runs = tuple(TextRun(run.text, run.drafted, codec.source_from_wire(run.source)) for run in chunk.runs)
    step = step_from_wire(chunk.step) if chunk.HasField("step") else None
    logprobs = tuple(map(logprobs_from_wire, chunk.logprobs))
    return Chunk(runs, tuple(chunk.token_ids), logprobs=logprobs, step=step)


def _finished_to_wire(finished: Finished) -> pb.GenerateFinished:
    message = pb.GenerateFinished(
        finish_reason=_FINISH[finished.reason],
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        speculation=_stats_to_wire(finished.stats),
        replayed_tokens=finished.replayed_tokens,
    )
    match finished.stopped_by:
        case bytes() as stop:
            message.stop_string = stop
        case int() as token:
            message.stop_token = token
    return message


def _finished_from_wire(finished: pb.GenerateFinished) -> Finished:
    if finished.finish_reason not in _FINISH_BACK:
        raise ProtocolError(f"a completion that finished for an unknown reason, {finished.finish_reason}")
    kind = finished.WhichOneof("stop_reason")
    return Finished(
        reason=_FINISH_BACK[finished.finish_reason],
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        stats=_stats_from_wire(finished.speculation),
        stopped_by=getattr(finished, kind) if kind is not None else None,
        replayed_tokens=finished.replayed_tokens,
    )


# ---- figures ----------------------------------------------------------------------------------------------------


def source_stats_to_wire(entry: SourceStats) -> pb.SourceStats:
    return pb.SourceStats(
        source=codec.source_to_wire(entry.source),
        name=entry.name,
        model=entry.model,
        instance=entry.instance,
        draft_tokens=entry.draft_tokens,
        accepted_tokens=entry.accepted_tokens,
    )


def _source_stats_from_wire(entry: pb.SourceStats) -> SourceStats | None:
    """None for a source that is not known here."""
    kind = codec.source_from_wire(entry.source)
    if kind is None:
        return None
    return SourceStats(
        source=kind,
        name=entry.name,
        model=entry.model,
        instance=entry.instance,
        draft_tokens=entry.draft_tokens,
        accepted_tokens=entry.accepted_tokens,
    )


def _stats_to_wire(stats: SpeculationStats) -> pb.SpeculationStats:
    return pb.SpeculationStats(
        steps=stats.steps,
        draft_tokens=stats.draft_tokens,
        accepted_tokens=stats.accepted_tokens,
        spans=stats.spans,
        stale_spans=stats.stale_spans,
        bytes_up=stats.bytes_up,
        bytes_down=stats.bytes_down,
        accepted_tokens_per_pos=stats.accepted_tokens_per_pos,
        verify_seconds=stats.verify_seconds,
        overhead_p50_seconds=stats.overhead_p50_seconds,
        plans=[
            pb.PlanChange(
                committed_tokens=change.committed_tokens, seconds=change.seconds, plan=codec.plan_to_wire(change.plan)
            )
            for change in stats.plans
        ],
        rule=codec.rule_to_wire(stats.rule),
        sources=[source_stats_to_wire(entry) for entry in stats.sources],
        drafters_connected=stats.drafters_connected,
    )


def _stats_from_wire(stats: pb.SpeculationStats) -> SpeculationStats:
    sources = (_source_stats_from_wire(entry) for entry in stats.sources)
    return SpeculationStats(
        steps=stats.steps,
        draft_tokens=stats.draft_tokens,
        accepted_tokens=stats.accepted_tokens,
        spans=stats.spans,
        stale_spans=stats.stale_spans,
        bytes_up=stats.bytes_up,
        bytes_down=stats.bytes_down,
        accepted_tokens_per_pos=tuple(stats.accepted_tokens_per_pos),
        verify_seconds=stats.verify_seconds,
        overhead_p50_seconds=stats.overhead_p50_seconds,
        plans=tuple(
            PlanChange(change.committed_tokens, change.seconds, codec.plan_from_wire(change.plan))
            for change in stats.plans
        ),
        rule=codec.rule_from_wire(stats.rule),
        sources=tuple(entry for entry in sources if entry is not None),
        drafters_connected=stats.drafters_connected if stats.HasField("drafters_connected") else None,
    )


# ---- a verifier's status ------------------------------------------------------------------------------------------


def status_to_wire(status: VerifierStatus) -> pb.DescribeResponse:
    return pb.DescribeResponse(
        protocol_version=PROTOCOL_VERSION,
        version=status.version,
        model=status.model,
        vocab_size=status.vocab_size,
        vocab_hash=status.vocab_hash,
        context_length=status.context_length,
        dtype=status.dtype,
        device=status.device,
        drafters=[_drafter_to_wire(drafter) for drafter in status.drafters],
        sessions=status.sessions,
        kv_cache_bytes=status.kv_cache_bytes,
        parameter_bytes=status.parameter_bytes,
    )


def status_from_wire(message: pb.DescribeResponse) -> VerifierStatus:
    return VerifierStatus(
        version=message.version,
        model=message.model,
        vocab_size=message.vocab_size,
        vocab_hash=message.vocab_hash,
        context_length=message.context_length,
        dtype=message.dtype,
        device=message.device,
        drafters=tuple(_drafter_from_wire(drafter) for drafter in message.drafters),
        sessions=message.sessions,
        kv_cache_bytes=message.kv_cache_bytes,
        parameter_bytes=message.parameter_bytes,
    )


def _drafter_to_wire(drafter: DrafterStatus) -> pb.DrafterStatus:
    return pb.DrafterStatus(**{name: getattr(drafter, name) for name in DrafterStatus.__slots__})


def _drafter_from_wire(drafter: pb.DrafterStatus) -> DrafterStatus:
    return DrafterStatus(**{name: getattr(drafter, name) for name in DrafterStatus.__slots__})
