"""Dragoman: distributed speculative decoding across vocabularies.

What a program needs is here; the command line is ``dragoman.cli``.
"""

from dragoman.client import Client
from dragoman.completion import Chunk, Completion
from dragoman.fleet_client import FleetClient
from speculation.errors import (
    ConnectionFailedError,
    DivergedError,
    DragomanError,
    DrainingError,
    InputError,
    LimitExceededError,
    ModelError,
    NoVerifierError,
    ProtocolError,
    SessionError,
    UnknownModelError,
    UnsupportedModelError,
    VersionMismatchError,
    WeightsError,
)
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.text_stream import TextRun

__all__ = [
    "ChatMessage",
    "Chunk",
    "Client",
    "Completion",
    "ConnectionFailedError",
    "DivergedError",
    "DragomanError",
    "DrainingError",
    "FleetClient",
    "InputError",
    "LimitExceededError",
    "ModelError",
    "NoVerifierError",
    "Prompt",
    "ProtocolError",
    "Rule",
    "SamplingParams",
    "SessionError",
    "TextRun",
    "UnknownModelError",
    "UnsupportedModelError",
    "VersionMismatchError",
    "WeightsError",
]
