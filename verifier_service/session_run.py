"""A session on the device: its slot in the engine, and one verify step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from speculation.drafts.recycled_tokens import KEPT
from speculation.protocol.generation import VerifyStep
from speculation.protocol.logprobs import TokenLogprobs
from speculation.sampling.best_tokens import best_tokens
from speculation.sampling.row_draws import Draw, RowsToDraw
from speculation.sessions.instructions import Instruction, Keep
from speculation.sessions.target_session import TargetSession
from speculation.sessions.told_step import told_step
from speculation.verification.draft_verifier import DraftVerifier
from speculation.verification.step import Step
from verifier_service.engine import Engine, Slot
from verifier_service.token_logprobs import logprobs_of


@dataclass(frozen=True, slots=True)
class StepResult:
    """What is left to do after a step, and when its forward pass began and ended, by ``time.perf_counter``.

    ``logprobs``: of the tokens that were verified, if the client asked for them.
    ``told``: what it tried, if the client wants to know.
    """

    instructions: tuple[Instruction, ...]
    forward_began: float
    forward_ended: float
    logprobs: tuple[TokenLogprobs, ...] = ()
    told: VerifyStep | None = None

    @property
    def forward_seconds(self) -> float:
        """Of the forward pass."""
        return self.forward_ended - self.forward_began


class SessionRun:
    """In the engine's thread. ``logprobs``: as of ``GenerationRequest``."""

    def __init__(
        self, session: TargetSession, verifier: DraftVerifier, engine: Engine, *, logprobs: int | None = None
    ) -> None:
        self._session = session
        self._verifier = verifier
        self._engine = engine
        self._logprobs = logprobs
        self._slot: Slot | None = None

    @property
    def tells_logprobs(self) -> bool:
        """Whether the client asked for them."""
        return self._logprobs is not None

    @property
    def begun(self) -> bool:
        """Whether it has a slot."""
        return self._slot is not None

    @property
    def cached_tokens(self) -> int:
        """Of its prompt: those that its slot need not run, as another prompt had begun alike. In any thread."""
        slot = self._slot
        return slot.shared_positions if slot is not None else 0

    @property
    def slot(self) -> Slot:
        """In the engine, once it has begun."""
        assert self._slot is not None
        return self._slot

    @torch.inference_mode()
    def begin(self, growth: int) -> None:
        """Take a slot, for the prompt and the text so far. ``growth``: tokens that there is memory for from now on."""
        session, request = self._session, self._session.request
        positions = session.positions_ahead(growth)
        self._slot = self._engine.begin(
            request.prompt_ids, positions, written=session.token_ids, salt=request.cache_salt
        )

    def begin_step(self, share: int | None, least: float = 0.0) -> Step:
        """The best candidates, to be run. ``share``, ``least``: see ``TargetSession.next_step``."""
        return self._session.next_step(share=share, least=least)

    def narrow(self, step: Step) -> None:
        """It is run with fewer of them."""
        self._session.narrow(step)

    def rows_to_draw(self) -> RowsToDraw | None:
        """Of the pending step, if all its rows can be drawn at once."""
        return self._verifier.rows_to_draw(self._session.pending)

    def end_step(self, found: Tensor | Sequence[Draw], *, logits: Tensor, began: float, ended: float) -> StepResult:
        """Verify, commit, keep. ``logits``: [1 + candidates, V] float32. ``found``: the same, or the draw of each row.
        ``began``, ``ended``: the forward pass, by ``time.perf_counter``.

        Where torch is in inference mode.
        """
        session, step = self._session, self._session.pending
        if isinstance(found, Tensor):
            acceptance = self._verifier.verify(step, found)
        else:
            acceptance = self._verifier.verify_draws(step, found)
        logprobs: tuple[TokenLogprobs, ...] = ()
        if self._logprobs is not None:
            logprobs = logprobs_of(acceptance, logits, self._logprobs, self._engine.tokenizer.vocab)
        telling = session.request.tell_steps and not session.replaying
        plan, before = session.plan, len(session.token_ids)
        left = []
        for instruction in session.on_acceptance(acceptance):
            if isinstance(instruction, Keep):
                self.slot.keep(instruction.rows)
            else:
                left.append(instruction)
        if session.recycles and isinstance(found, Tensor):  # else the whole step's are looked for together
            rows = (0, *(1 + node for node in acceptance.path))
            session.on_best(best_tokens(logits[list(rows)], KEPT), rows)
        told = None
        if telling:
            committed = len(session.token_ids) - before
            told = told_step(step, acceptance, committed=committed, plan=plan, vocab=self._engine.tokenizer.vocab)
        return StepResult(
            instructions=tuple(left), forward_began=began, forward_ended=ended, logprobs=logprobs, told=told
        )

    def close(self) -> None:
        """Free the KV cache. May be called before it began, and twice; it may begin again."""
        if self._slot is not None:
            self._slot.close()
            self._slot = None
