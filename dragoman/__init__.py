"""Dragoman: distributed speculative decoding across vocabularies.

What a program needs is here; the command line is ``dragoman.cli``.
"""

from dragoman.client import Chunk, Client, Completion
from speculation.errors import (
    ConnectionFailedError,
    DragomanError,
    InputError,
    LimitExceededError,
    ModelError,
    ProtocolError,
    SessionError,
    UnknownModelError,
    UnsupportedModelError,
    VersionMismatchError,
    WeightsError,
)
from speculation.messages import ChatMessage, Prompt
from speculation.sampling import Rule, SamplingParams
from speculation.text_stream import TextRun

__all__ = [
    "ChatMessage",
    "Chunk",
    "Client",
    "Completion",
    "ConnectionFailedError",
    "DragomanError",
    "InputError",
    "LimitExceededError",
    "ModelError",
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
