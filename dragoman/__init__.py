"""Dragoman: distributed speculative decoding across vocabularies.

What a program needs is here; the command line is ``dragoman.cli``.
"""

import dragoman.grpc_log  # noqa: F401, before anything that imports grpc
from dragoman.client import Client
from dragoman.fleet_client import FleetClient
from dragoman.huggingface import RemoteDrafting
from dragoman.in_process import Dragoman
from dragoman.sync import SyncClient, SyncCompletionStream, SyncDragoman, SyncFleetClient
from dragoman.text_client import CompletionStream
from dragoman.transcript import TextOptions
from speculation.errors import (
    AccessError,
    ConnectionFailedError,
    DivergedError,
    DragomanError,
    DrainingError,
    InputError,
    LimitExceededError,
    LoadingError,
    ModelError,
    ModelTooLargeError,
    NoVerifierError,
    ProtocolError,
    SessionError,
    UnknownModelError,
    UnsupportedModelError,
    VersionMismatchError,
    WeightsError,
    WrongServiceError,
)
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, FinishReason, PlanChange, SourceStats, SpeculationStats
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.logprobs import TokenLogprob, TokenLogprobs
from speculation.protocol.messages import ChatMessage, Prompt, SpeculationPlan
from speculation.protocol.status import DrafterStatus, VerifierStatus
from speculation.protocol.tools import Tool, ToolCall
from speculation.sampling.params import Rule, SamplingParams
from speculation.source import SourceKind
from speculation.text.text_stream import TextRun
from transport.security import Security

__all__ = [
    "AccessError",
    "ChatMessage",
    "Chunk",
    "Client",
    "Completion",
    "CompletionStream",
    "ConnectionFailedError",
    "DivergedError",
    "DrafterStatus",
    "Dragoman",
    "DragomanError",
    "DrainingError",
    "FinishReason",
    "FleetClient",
    "GuideSpec",
    "InputError",
    "LimitExceededError",
    "LoadingError",
    "ModelError",
    "ModelTooLargeError",
    "NoVerifierError",
    "PlanChange",
    "Prompt",
    "ProtocolError",
    "RemoteDrafting",
    "Rule",
    "SamplingParams",
    "Security",
    "SessionError",
    "SourceKind",
    "SourceStats",
    "SpeculationPlan",
    "SpeculationStats",
    "SyncClient",
    "SyncCompletionStream",
    "SyncDragoman",
    "SyncFleetClient",
    "TextOptions",
    "TextRun",
    "TokenLogprob",
    "TokenLogprobs",
    "Tool",
    "ToolCall",
    "UnknownModelError",
    "UnsupportedModelError",
    "VerifierStatus",
    "VersionMismatchError",
    "WeightsError",
    "WrongServiceError",
]
