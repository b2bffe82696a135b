"""A completion as a verifier serves it: what is asked, and the events that answer it, as plain values.

The wire carries exactly these; a caller in the verifier's own process uses them as they are.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from speculation.errors import InputError
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.logprobs import MOST_LOGPROBS, TokenLogprobs
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.protocol.text_check import check_text
from speculation.protocol.tools import ToolFormat
from speculation.sampling.params import Rule, SamplingParams
from speculation.source import SourceKind
from speculation.text.text_stream import TextRun


class FinishReason(enum.StrEnum):
    """Why a completion ended: an end token or a stop string, or ``max_tokens`` or the context's end."""

    STOP = "stop"
    LENGTH = "length"


#: Of requests.
PRIORITIES: Final = range(-1000, 1001)
#: Characters of a salt.
MOST_SALT: Final = 256


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a verifier is asked to write.

    ``max_tokens``: 0 is as far as the context reaches. ``stop``: the completion ends before the first of these, UTF-8.
    ``draft``: whether drafters may be offered it. ``ignore_end``: go on after the end token. ``prediction``: a draft of
    the client. ``received``: what the client was shown of the answer to this very request; only what follows is sent.
    ``priority``: lower ones get KV memory first where it is short. ``guide``: what the text is held to.
    ``logprobs``: tell those of each token, and of so many of the likeliest at its place; None: of none.
    ``tell_steps``: chunks tell what was tried for them. ``cache_salt``: the text shares nothing, neither cached prompts
    nor drafts, with texts of another salt.

    Raises InputError for a number out of its range, and for a guide with what cannot go with it.
    """

    prompt: Prompt
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int = 0
    stop: tuple[bytes, ...] = ()
    rule: Rule = Rule.RACE
    draft: bool = True
    ignore_end: bool = False
    prediction: bytes = b""
    received: bytes = b""
    priority: int = 0
    guide: GuideSpec | None = None
    logprobs: int | None = None
    tell_steps: bool = False
    cache_salt: str = ""

    def __post_init__(self) -> None:
        if self.guide is not None:
            self._check_guided(self.guide)
        if self.priority not in PRIORITIES:
            lowest, highest = PRIORITIES[0], PRIORITIES[-1]
            raise InputError("priority", self.priority, f"must lie in {lowest}..{highest}", remedy="lower comes first")
        check_text("cache_salt", self.cache_salt)
        if len(self.cache_salt) > MOST_SALT:
            problem = f"is longer than {MOST_SALT} characters"
            raise InputError("cache_salt", self.cache_salt, problem, remedy="give a shorter one")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise InputError("logprobs", self.logprobs, f"must lie in 0..{MOST_LOGPROBS}", remedy="ask for fewer")

    def _check_guided(self, guide: GuideSpec) -> None:
        if self.rule.proposes:
            why = f"cannot go with {guide.asked}: drafters draw from a distribution that knows nothing of it"
            raise InputError("rule", self.rule, why, remedy=f"use {Rule.RACE} or {Rule.EXACT}")
        if self.ignore_end:
            why = f"cannot go with {guide.asked}: where the text must end, nothing else is allowed"
            raise InputError("ignore_end", self.ignore_end, why, remedy="leave one of them out")


@dataclass(frozen=True, slots=True)
class Started:
    """The verifier has taken the request on. ``drafters``: that the session was offered to so far.

    ``received_bytes``: how much it takes as received. Only where ``model``, ``vocab_hash`` and ``dtype`` are equal can
    a completion be resumed. ``rule``: which it runs; None from a verifier that does not say. ``guided``: the text is
    held to the request's guide. ``logprobs``: chunks tell those that were asked for. ``tool_format``: how the model
    writes calls, where the prompt has tools or calls; None from a verifier that does not say. ``template_kwargs``,
    ``special_tokens``: those of the prompt were read. ``cache_salt``: the request's is heeded.
    """

    session: str
    prompt_tokens: int
    drafters: int = 0
    received_bytes: int = 0
    model: str = ""
    vocab_hash: str = ""
    dtype: str = ""
    rule: Rule | None = None
    guided: bool = False
    logprobs: bool = False
    tool_format: ToolFormat | None = None
    template_kwargs: bool = False
    special_tokens: bool = False
    cache_salt: bool = False


@dataclass(frozen=True, slots=True)
class VerifyStep:
    """What a verify step tried, for whoever watches.

    ``draft_tokens``: verified, on all branches; the chunk begins with the ``accepted_tokens`` of them. ``positions``:
    draft tokens in a row on the longest branch. ``rejected``: what the likeliest branch would have gone on with after
    the accepted ones, any bytes, and ``rejected_source`` whose guess that was. ``plan``: that the step was made by.
    ``round_trip``: seconds, to the nearest drafter that takes part; None: there is none, or it is not measured yet.
    """

    draft_tokens: int
    accepted_tokens: int
    positions: int
    plan: SpeculationPlan
    rejected: bytes = b""
    rejected_source: SourceKind | None = None
    round_trip: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one verify step committed. ``runs`` are cut at whole characters; joined they are the text.

    ``logprobs``: of each token, if they were asked for. ``step``: what was tried for it, if the request asked for that
    and the verifier tells.
    """

    runs: tuple[TextRun, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    step: VerifyStep | None = None

    @property
    def data(self) -> bytes:
        """The bytes of the runs."""
        return b"".join(run.text for run in self.runs)

    @property
    def text(self) -> str:
        """The same as characters. Only the last chunk may end inside one, where ``max_tokens`` cut it."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class SourceStats:
    """Draft tokens that one source guessed, ``SpeculationStats`` has the meanings. ``name``, ``model`` and ``instance``
    are those of a drafter, else empty."""

    source: SourceKind
    name: str = ""
    model: str = ""
    instance: str = ""
    draft_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def acceptance_rate(self) -> float | None:
        """None if none of its draft tokens were verified."""
        return self.accepted_tokens / self.draft_tokens if self.draft_tokens else None


@dataclass(frozen=True, slots=True)
class PlanChange:
    """``plan`` was followed from so many tokens on, ``seconds`` after the session was opened."""

    committed_tokens: int
    seconds: float
    plan: SpeculationPlan


@dataclass(frozen=True, slots=True)
class SpeculationStats:
    """Counts of one session, in vLLM's meanings: draft tokens are those that a step verified.

    ``accepted_tokens_per_pos``: how often the draft token at each position of a step was accepted. ``bytes_up``,
    ``bytes_down``: of serialised messages from and to drafters. ``verify_seconds``: in forward passes.
    ``overhead_p50_seconds``: median of the time between forward passes. ``drafters_connected``: to the verifier at the
    end; None from a verifier that does not tell sources apart.
    """

    steps: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    spans: int = 0
    stale_spans: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    accepted_tokens_per_pos: tuple[int, ...] = ()
    verify_seconds: float = 0.0
    overhead_p50_seconds: float = 0.0
    plans: tuple[PlanChange, ...] = ()
    rule: Rule = Rule.RACE
    sources: tuple[SourceStats, ...] = ()
    drafters_connected: int | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The completion is whole. ``stopped_by``: the stop string or the end token's id, if one of them ended it.

    ``completion_tokens``: all of them, those that were replayed included.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    stats: SpeculationStats = field(default_factory=SpeculationStats)
    stopped_by: bytes | int | None = None
    replayed_tokens: int = 0


GenerationEvent = Started | Chunk | Finished
