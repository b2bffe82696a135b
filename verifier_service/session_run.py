"""A session on the device: its slot in the engine, and one verify step after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from speculation.sessions.instructions import Instruction, Keep
from speculation.sessions.target_session import TargetSession
from speculation.verification.draft_verifier import DraftVerifier
from verifier_service.engine import Engine, Slot


@dataclass(frozen=True, slots=True)
class StepResult:
    """What is left to do after a step, and when its forward pass began and ended, by ``time.perf_counter``."""

    instructions: tuple[Instruction, ...]
    forward_began: float
    forward_ended: float

    @property
    def forward_seconds(self) -> float:
        """Of the forward pass."""
        return self.forward_ended - self.forward_began


class SessionRun:
    """In the engine's thread."""

    def __init__(self, session: TargetSession, verifier: DraftVerifier, engine: Engine) -> None:
        self._session = session
        self._verifier = verifier
        self._engine = engine
        self._slot: Slot | None = None

    @torch.inference_mode()
    def prefill(self) -> None:
        """Run the prompt, all but its last token. Before the first step."""
        self._slot = self._engine.open(self._session.request.prompt_ids)

    @torch.inference_mode()
    def step(self) -> StepResult:
        """Run the target once on the best candidates, verify, commit."""
        assert self._slot is not None
        step = self._session.next_step()
        began = time.perf_counter()
        logits = self._slot.step(step.last, step.candidates)
        ended = time.perf_counter()
        left = []
        for instruction in self._session.on_acceptance(self._verifier.verify(step, logits)):
            if isinstance(instruction, Keep):
                self._slot.keep(instruction.rows)
            else:
                left.append(instruction)
        return StepResult(tuple(left), began, ended)

    def close(self) -> None:
        """Free the KV cache. May be called before the prefill, and twice."""
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    @property
    def kv_cache_bytes(self) -> int:
        """That the session holds."""
        return self._slot.kv_cache_bytes if self._slot is not None else 0
