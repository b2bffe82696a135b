"""Drivers for the two session state machines: the model and the cache count that a service would put behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from speculation.drafts.candidates import ROOT
from speculation.protocol.messages import Prompt, Resync, SessionOffer, Span, SpeculationPlan, Verdict
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.sessions.drafter_session import DrafterSession, DraftToken, Move
from speculation.sessions.instructions import Emit, Finish, Keep, SendVerdict
from speculation.sessions.target_session import TargetSession
from speculation.text.text_stream import TextRun
from speculation.verification.draft_verifier import DraftVerifier
from tests.support.text_models import DRAFTER_VOCAB, TARGET_VOCAB, TextModel, TextModelSource, longest_words

TARGET = TextModel(TARGET_VOCAB, salt=1)
DRAFTER = TextModel(DRAFTER_VOCAB, salt=2)
NOISE = RaceNoise(TARGET_VOCAB)
PROMPT_IDS = (0,)


def request(sampling: SamplingParams, *, max_tokens: int = 40, **fields: Any) -> SessionRequest:
    """With a prompt of one token. ``fields``: further ones."""
    return SessionRequest(PROMPT_IDS, sampling, max_tokens, 4096, **fields)


def plain_text(
    sampling: SamplingParams, max_tokens: int, rule: Rule = Rule.RACE, prompt_ids: Sequence[int] = PROMPT_IDS
) -> list[int]:
    """The reference: one token after another, no session and no draft anywhere."""
    stream = "race" if rule is Rule.RACE else "target"
    sampler = TokenSampler(sampling, TARGET_VOCAB, NOISE, prompt_ids=prompt_ids, stream=stream)
    ids: list[int] = []
    while len(ids) < max_tokens:
        token = sampler.draw(TARGET.logits(ids))
        sampler.advance(token)
        ids.append(token)
        if token in TARGET_VOCAB.end_ids:
            break
    return ids


class Target:
    """A target session with the model and a cache count behind it, checking the cache invariant at every step."""

    def __init__(self, req: SessionRequest, plan: SpeculationPlan, **kwargs: Any) -> None:
        encode = longest_words(TARGET_VOCAB)
        self.session = TargetSession(req, TARGET_VOCAB, encode, plan=plan, **kwargs)
        self.verifier = DraftVerifier.of(req, TARGET_VOCAB, NOISE)
        self.cached = len(PROMPT_IDS) - 1
        self.shown = b""
        self.told: list[int] = []
        self.runs: tuple[TextRun, ...] = ()  # of the last step
        self.drafted_bytes = 0

    @property
    def finished(self) -> bool:
        """Whether the session has its last token."""
        return self.session.finish_reason is not None

    def step(self) -> list[Verdict]:
        """One step of the session on the model; the verdicts that it would send."""
        before = list(self.session.token_ids)
        step = self.session.next_step()
        paths = [step.candidates.path(node) for node in range(ROOT, len(step.candidates))]
        rows = [TARGET.logits(before + [step.candidates.tokens[node] for node in path]) for path in paths]
        verdicts = []
        for instruction in self.session.on_acceptance(self.verifier.verify(step, torch.stack(rows))):
            match instruction:
                case Keep(kept):
                    assert kept[0] == 0
                    assert [0, *(1 + node for node in step.candidates.path(kept[-1] - 1))] == list(kept)
                    self.cached += len(kept)
                case Emit(runs, token_ids):
                    self.told += token_ids
                    self.runs = runs
                    self.shown += b"".join(run.text for run in runs)
                    self.drafted_bytes += sum(len(run.text) for run in runs if run.drafted)
                case SendVerdict(verdict):
                    verdicts.append(verdict)
                case Finish(reason):
                    assert reason is self.session.finish_reason
        if not self.finished:
            assert self.cached == len(PROMPT_IDS) + len(self.session.token_ids) - 1
        return verdicts

    def offer(self, sampling: SamplingParams, rule: Rule) -> SessionOffer:
        """What a drafter that comes now would be offered."""
        s = self.session
        return SessionOffer("s", Prompt(text="x"), sampling, rule, s.committed, s.zero_width, s.plan)


class Drafter:
    """A drafter session with its source, corrections carried out at once."""

    def __init__(self, offer: SessionOffer) -> None:
        self.session = DrafterSession(offer)
        self.source = TextModelSource(DRAFTER, offer)

    def draft(self) -> list[Span | Resync]:
        """Draft one batch; ``ask`` and ``answer`` are its two halves."""
        return self.answer(self.ask()) if self.session.wants_draft() else []

    def ask(self) -> list[tuple[int, list[DraftToken]]]:
        """The paths that the session wants drafted, each by number with what the source drafted there."""
        zero_width = self.session.next_zero_width()
        expansions = self.session.next_expansions()
        choices = 1 + self.session.plan.alternatives
        paths = [expansion.path for expansion in expansions]
        drafted = self.source.expand(paths, zero_width=zero_width, choices=choices)
        return [(expansion.number, tokens) for expansion, tokens in zip(expansions, drafted, strict=True)]

    def answer(self, draft: list[tuple[int, list[DraftToken]]]) -> list[Span | Resync]:
        """The session takes what was asked for; the messages that it would send."""
        return self.carry_out(self.session.on_draft(draft))

    def on_verdict(self, verdict: Verdict) -> list[Span | Resync]:
        """A verdict arrives; the messages that it would send."""
        return self.carry_out(self.session.on_verdict(verdict))

    def carry_out(self, instructions: Iterable[Move | Span | Resync]) -> list[Span | Resync]:
        """Moves the source; what is left are messages."""
        messages = []
        for instruction in instructions:
            if isinstance(instruction, Move):
                self.source.move(instruction.path, instruction.keep, instruction.text)
            else:
                messages.append(instruction)
        return messages


SAMPLINGS = [
    SamplingParams(),
    SamplingParams(temperature=0.8, seed=7),
    SamplingParams(temperature=1.3, top_p=0.9, presence_penalty=0.5, repetition_penalty=1.1, seed=11),
]
