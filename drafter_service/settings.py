"""The settings of a drafter: one model for the command line, the fleet file and the actor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from transport.settings import Device, MemorySize, Settings, Threads

DrafterDtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


class DrafterSettings(Settings):
    """What drafts, and for how many. Whom it dials is the business of whoever starts it."""

    model: str = Field(min_length=1)
    device: Device = "auto"
    dtype: DrafterDtype = "auto"
    threads: Threads = None
    trust_remote_code: bool = Field(default=False, description="Run the Python code that the model brings")
    engine: Literal["auto", "paged", "transformers"] = Field(
        default="auto", description="paged: a GPU in 16 bits, one CUDA graph a step; auto: paged where it works"
    )
    prefix_memory: MemorySize = Field(
        default="256MiB",
        description="On a CPU, for keys and values of texts that ended: their next turn, or link, begins with them",
    )
    max_sessions: int = Field(default=4, ge=1, le=100_000, description="Texts to draft for at once, at most")
