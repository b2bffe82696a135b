"""A session that is being served: the sans-IO ``TargetSession`` with a slot in the engine and an inbox.

``step`` and ``close`` run in the engine's thread; between steps the event loop may read the inbox as well. While one
runs, it only puts into the inbox, and afterwards reads what ``step`` returned.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import statistics
import time
from dataclasses import dataclass, field

import torch

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.drafts.draft_pool import SpanFate
from speculation.planning.patience import Patience
from speculation.planning.trial import Trial
from speculation.protocol.messages import Prompt, Resync, SessionOffer, Span, Verdict
from speculation.sessions.instructions import Emit, Finish, FinishReason, Instruction, Keep, SendVerdict
from speculation.sessions.target_session import TargetSession
from speculation.text.text_stream import TextRun
from speculation.verification.draft_verifier import DraftVerifier
from speculation.verification.step import Step
from transport import codec
from verifier_service.contributors import Contributors
from verifier_service.drafter_link import DrafterLink
from verifier_service.engine import Engine, Slot
from verifier_service.inbox import Event, Inbox, Join
from verifier_service.session_log import SessionLog
from verifier_service.session_planner import SessionPlanner

log = logging.getLogger(__name__)


@dataclass(slots=True)
class StepReport:
    """What one step brought: text for the client, messages for drafters (None: for all attached)."""

    runs: tuple[TextRun, ...] = ()
    token_ids: tuple[int, ...] = ()
    messages: list[tuple[DrafterLink | None, pb.AssistResponse]] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class OpenSession:
    """See the module."""

    #: Changes of the plan that are remembered for the statistics.
    PLAN_CHANGES = 500

    def __init__(
        self,
        name: str,
        prompt: Prompt,
        session: TargetSession,
        verifier: DraftVerifier,
        engine: Engine,
        planner: SessionPlanner,
        patience: Patience,
        pays: Trial | None = None,
        *,
        assisted: bool,
    ) -> None:
        self.name = name
        self.log = SessionLog(log, name)
        #: Whether drafters may be offered it. They are of no use to a replay.
        self.assisted = assisted and not session.replaying
        self._assisted_later = assisted and session.replaying
        self.session = session
        self._verifier = verifier
        self.links: set[DrafterLink] = set()
        self.contributors = Contributors()
        self.declined: set[DrafterLink] = set()
        self.placed_until = 0.0  # till then, by the steady clock, its drafters are those of the coordinator's order
        #: Vocabularies of the drafters that were offered it; "" is that of one without a model.
        self.vocabularies: set[str] = set()
        self._inbox = Inbox()
        self.planner = planner
        self._patience = patience
        self._pays = pays  # whether drafting does, under this rule
        self.decode_seconds = 0.0  # from the end of the first step on
        self.decode_tokens = 0
        self._came = asyncio.Event()
        self._report = StepReport()  # of the coming step
        self._held = 0.0  # seconds that the coming step was held back
        self._unanswered = False
        self._opened_at = time.monotonic()
        self._plans = [pb.PlanChange(plan=codec.plan_to_wire(planner.plan))]
        self.bytes_up = 0
        self.bytes_down = 0
        self.verify_seconds = 0.0
        self._offers = 0
        self._prompt = prompt
        self._engine = engine
        self._slot: Slot | None = None
        self._forward_ended: float | None = None
        self._forward_seconds = 0.0
        self._step_ended: float | None = None
        self._overheads: list[float] = []

    # ---- in the event loop ------------------------------------------------------------------------------------

    def put(self, link: DrafterLink, event: Event) -> None:
        """A drafter's event, for the next step to take in."""
        asks_for = self.session.committed_length - event.offset if isinstance(event, Resync) else 0
        # However long the text, a drafter may ask for it twice before it is told.
        self._inbox.put(link, event, asks_for=min(max(asks_for, 0), Inbox.BYTES // 3))
        self._came.set()

    def refuses(self, link: DrafterLink) -> bool:
        """Whether what the drafter sends before the coming step need not even be read."""
        return self._inbox.refuses(link)

    def join(self, link: DrafterLink) -> None:
        """Offer the session to a drafter."""
        self.links.add(link)
        self.contributors.add(link)
        self.vocabularies.add(link.hello.vocab_hash)
        self.put(link, Join())

    def leave(self, link: DrafterLink) -> None:
        """The drafter takes part no more; nobody waits for it."""
        self.links.discard(link)
        self._came.set()

    def begin_drafting(self) -> bool:
        """Between steps: whether the replay is over and drafters may be offered the session from now on."""
        if not self._assisted_later or self.session.replaying:
            return False
        self._assisted_later = False
        self.assisted = True
        return True

    def replan(self) -> None:
        """Between steps: take the planner's newest plan; the coming verdict carries it to the drafters."""
        self.planner.replan(time.monotonic(), self.links)
        plan = self.planner.plan
        if plan.width and self._pays is not None and not self._pays.taken:
            plan = dataclasses.replace(plan, width=0, lookahead=0, patience=0.0)
        if self.session.follow(plan) and len(self._plans) < self.PLAN_CHANGES:
            committed, seconds = len(self.session.token_ids), time.monotonic() - self._opened_at
            wire = codec.plan_to_wire(plan)
            self._plans.append(pb.PlanChange(committed_tokens=committed, seconds=seconds, plan=wire))

    async def wait_for_draft(self) -> None:
        """Between steps: hold the coming one back for a draft on its way, if the plan has patience and that pays."""
        self._held, self._unanswered = 0.0, False
        patience = self._patience.hold(self.session.plan.patience) if self.links and self.session.plan.width else 0.0
        if not patience:
            return
        started = time.perf_counter()
        try:
            async with asyncio.timeout(patience):
                while not self._ready():
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            self._unanswered = not self.session.has_draft
        self._held = time.perf_counter() - started

    def _ready(self) -> bool:
        """Whether the coming step shall begin: with its draft, for a drafter that waits to be told something, or
        because nobody is left to wait for."""
        self._read_inbox()
        return self.session.ready or bool(self._report.messages) or not self.links

    # ---- in the engine's thread -------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Take in what drafters sent, run the target once on the best candidates, commit."""
        self._read_inbox()
        self._inbox.renew()
        report, self._report = self._report, StepReport()
        step = self.session.next_step()
        logits, replayed = self._forward(step), self.session.replaying
        self._carry_out(self.session.on_acceptance(self._verifier.verify(step, logits)), report)
        if replayed:  # a recorded draft says nothing about drafters, and its steps are wider than any plan's
            self.verify_seconds, self._overheads = 0.0, []
            return report
        self.planner.observe_step(self.session.stats, self._forward_seconds)
        now = time.perf_counter()
        if self._step_ended is not None:
            self._observe_pace(now - self._step_ended, len(report.token_ids))
        self._step_ended = now
        return report

    def _observe_pace(self, seconds: float, tokens: int) -> None:
        """A step, with all that came between it and the one before, took so long for so many tokens."""
        self.decode_seconds += seconds
        self.decode_tokens += tokens
        if not self.links:
            return
        planned, unanswered = self.session.plan.patience, self._unanswered
        self._patience.observe(seconds=seconds, tokens=tokens, planned=planned, unanswered=unanswered)
        if self._pays is not None and self.planner.plan.width:
            self._pays.observe(seconds=seconds, tokens=tokens)

    def close(self) -> None:
        """Free the KV cache. May be called before the first step, and twice."""
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    def _forward(self, step: Step) -> torch.Tensor:
        if self._slot is None:
            self._slot = self._engine.open(self.session.request.prompt_ids)
        started = time.perf_counter()
        if self._forward_ended is not None:
            self._overheads.append(started - self._forward_ended - self._held)
        logits = self._slot.step(step.last, step.candidates)
        self._forward_ended = time.perf_counter()
        self._forward_seconds = self._forward_ended - started
        self.verify_seconds += self._forward_seconds
        return logits

    def _read_inbox(self) -> None:
        for link, event in self._inbox.take():
            match event:
                case Span():
                    link.stale_spans += self.session.on_span(event) is SpanFate.STALE
                case Resync():
                    verdict = self.session.on_resync(event)
                    if verdict is None:
                        link.rejected_messages += 1
                    else:
                        self._report.messages.append((link, self._verdict(verdict)))
                case Join():
                    self._report.messages.append((link, self._offer()))

    def _carry_out(self, instructions: list[Instruction], report: StepReport) -> None:
        for instruction in instructions:
            match instruction:
                case Keep(rows):
                    assert self._slot is not None
                    self._slot.keep(rows)
                case Emit(runs, token_ids):
                    report.runs, report.token_ids = runs, token_ids
                case SendVerdict(verdict):
                    report.messages.append((None, self._verdict(verdict)))
                case Finish(reason):
                    report.finish_reason = reason

    def _verdict(self, verdict: Verdict) -> pb.AssistResponse:
        return pb.AssistResponse(verdict=codec.verdict_to_wire(self.name, verdict))

    def _offer(self) -> pb.AssistResponse:
        request = self.session.request
        self._offers += 1
        offer = SessionOffer(
            self.name,
            self._prompt,
            request.sampling,
            request.rule,
            self.session.committed,
            self.session.zero_width,
            self.session.plan,
            self._offers,
            self._engine.tokenizer.vocab.content_hash if request.rule.proposes else "",
        )
        return pb.AssistResponse(offer=codec.offer_to_wire(offer))

    # ---- figures ----------------------------------------------------------------------------------------------

    @property
    def kv_cache_bytes(self) -> int:
        return self._slot.kv_cache_bytes if self._slot is not None else 0

    @property
    def new_tokens(self) -> int:
        """Committed tokens, without those of a replay."""
        return len(self.session.token_ids) - self.session.replayed_tokens

    def stats(self, *, drafters_connected: int) -> pb.SpeculationStats:
        """``drafters_connected``: to the verifier."""
        stats = self.session.stats
        return pb.SpeculationStats(
            steps=stats.steps,
            draft_tokens=stats.draft_tokens,
            accepted_tokens=stats.accepted_tokens,
            spans=stats.spans,
            stale_spans=stats.stale_spans,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            accepted_tokens_per_pos=stats.accepted_per_pos,
            verify_seconds=self.verify_seconds,
            overhead_p50_seconds=statistics.median(self._overheads) if self._overheads else 0.0,
            plans=self._plans,
            rule=codec.rule_to_wire(self.session.request.rule),
            sources=self.contributors.stats(stats),
            drafters_connected=drafters_connected,
        )
