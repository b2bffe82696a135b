"""Requests and texts in the words of OpenTelemetry's conventions for generative AI.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/, as of July 2026; none of it is stable yet. Prompts,
texts and stop strings are left out. So is the seed: under some rules a drafter must not know it, and who runs one may
read traces.
"""

from __future__ import annotations

import enum
from typing import Final

from speculation.protocol.generation import GenerationRequest
from transport.tracing import Attribute

PROVIDER: Final = "dragoman"


class Operation(enum.Enum):
    """gen_ai.operation.name."""

    CHAT = "chat"
    TEXT_COMPLETION = "text_completion"


def request_attributes(request: GenerationRequest, *, operation: Operation, model: str) -> dict[str, Attribute]:
    """What is asked for. ``model``: the one that writes."""
    sampling = request.sampling
    found: dict[str, Attribute] = {
        "gen_ai.operation.name": operation.value,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.output.type": "json" if request.guide is not None and request.guide.kind == "json_schema" else "text",
    }
    if request.max_tokens:  # else as far as the context reaches
        found["gen_ai.request.max_tokens"] = request.max_tokens
    if sampling.top_k:
        found["gen_ai.request.top_k"] = sampling.top_k
    return found
