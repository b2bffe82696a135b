"""The settings of a verifier: one model for the command line, the fleet file and the actor."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import Field

from speculation.errors import InputError
from speculation.planning.plan import START
from speculation.protocol.messages import SpeculationPlan
from transport.settings import Device, Duration, MemorySize, Settings, Share, Threads
from verifier_service.drafter_trust import DrafterTrust, PromptsTo

#: int8 is not among them: a target's text would depend on the drafts.
TargetDtype = Literal["auto", "float32", "bfloat16", "float16"]


def check_target_dtype(dtype: str) -> None:
    """Raises InputError for int8: its activations are scaled by all rows of a step, so drafts would change the text."""
    if dtype == "int8":
        raise InputError("dtype", dtype, "is for drafters: a target's text would depend on the drafts", remedy="auto")


class PlanSettings(Settings):
    """A ``SpeculationPlan``: where a target begins, and with ``adaptive: false`` where it stays."""

    width: int = Field(
        default=START.width,
        ge=0,
        le=SpeculationPlan.MAX_TOKENS,
        description="Draft tokens per verify step; 0 turns speculation off",
    )
    lookahead: int = Field(
        default=START.lookahead,
        ge=0,
        le=SpeculationPlan.MAX_TOKENS,
        description="Tokens that a drafter may run ahead of the text",
    )
    stop_threshold: Share = Field(
        default=START.stop_threshold, description="A drafter rests when its confidence falls below this"
    )
    span_tokens: int = Field(
        default=START.span_tokens,
        ge=1,
        le=SpeculationPlan.MAX_TOKENS,
        description="A drafter ships a span at least every so many tokens",
    )
    patience: float = Field(
        default=0.0,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Seconds that a step may wait for a draft; pays only where processors are shared",
    )
    alternatives: int = Field(
        default=START.alternatives,
        ge=0,
        le=SpeculationPlan.MAX_ALTERNATIVES,
        description="Further choices that a drafter continues where it is unsure",
    )
    alternative_threshold: Share = Field(
        default=START.alternative_threshold, description="Unsure is below this confidence"
    )
    verify_threshold: Share = Field(
        default=START.verify_threshold, description="Candidates less likely than this are not verified"
    )
    draft_top_k: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Probabilities sent with a draft token, if the rule needs any; 0 leaves it to the rule",
    )

    @classmethod
    def of(cls, plan: SpeculationPlan) -> PlanSettings:
        """A plan as settings."""
        values = dataclasses.asdict(plan)
        return cls(draft_top_k=values.pop("top_k"), **values)

    def plan(self) -> SpeculationPlan:
        """As the core takes it."""
        values = self.model_dump()
        return SpeculationPlan(top_k=values.pop("draft_top_k"), **values)


class VerifierSettings(Settings):
    """What a verifier serves, and how. Where it listens and whom it joins is the business of whoever starts it."""

    model: str = Field(min_length=1)
    device: Device = "auto"
    dtype: TargetDtype = "auto"
    threads: Threads = None
    trust_remote_code: bool = Field(default=False, description="Run the Python code that the model brings")
    engine: Literal["auto", "paged", "transformers"] = Field(
        default="auto", description="paged: a GPU in 16 bits, one CUDA graph a step; auto: paged where it works"
    )
    kv_memory: MemorySize = Field(
        default=None, description="For the paged engine's KV cache, 8GiB say  [default: what is free and useful]"
    )
    tensor_parallel: int = Field(
        default=1, ge=1, le=64, description="GPUs of this host that hold the model together (experimental)"
    )
    prefix_caching: bool = Field(
        default=True, description="In the paged engine prompts that begin alike share what was computed for it"
    )
    trusted_drafters: list[str] = Field(
        default=[],
        description="By the names of certificates or tokens, edge-* say: only these draft under the rejection rules",
    )
    prompts_to: Literal["all", "trusted"] = Field(
        default="all", description="Drafters that see prompts; trusted: only those named by --trusted-drafters"
    )
    exact: bool = Field(
        default=True,
        description="In the paged engine all steps have the same rows: texts depend on neither drafts nor company",
    )
    adaptive: bool = Field(default=True, description="Adapt all of this to what is measured, or keep it")
    lookup: bool = Field(default=True, description="Beside the drafters, look up in prompt and text how it goes on")
    recycling: Literal["client", "text", "none"] = Field(
        default="client",
        description="With the lookup: draft what the target nearly said in this client's texts, in the text",
    )
    max_sessions: int = Field(default=64, ge=1, le=100_000, description="Texts written at once, at most")
    max_sessions_each: int | None = Field(
        default=None, ge=1, le=100_000, description="Of one client, by its certificate or token  [default: no bound]"
    )
    grace: Duration = Field(default=1.0, description="When stopped, texts may end for this long, then are handed over")
    plan: PlanSettings = PlanSettings()

    @property
    def trust(self) -> DrafterTrust:
        """As the verifier takes it."""
        return DrafterTrust(self.trusted_drafters, PromptsTo(self.prompts_to))
