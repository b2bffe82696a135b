"""What a caller in the verifier's own process gives beside a request, which no message could carry."""

from __future__ import annotations

from dataclasses import dataclass

from speculation.sampling.sampler import LogitsProcessor


@dataclass(frozen=True, slots=True)
class LocalText:
    """``prompt_ids``: the prompt as the target reads it; that of the request is what drafters are told.

    ``processor``: does what the request's sampling settings ask for, all but the draw; called in the engine's thread.
    Rows behind a stop of the caller's own may be asked for too, so it had better keep an error until its turn.
    """

    prompt_ids: tuple[int, ...]
    processor: LogitsProcessor
