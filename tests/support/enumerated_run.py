"""The two session state machines, every random draw a branch, messages by a schedule.

Logits are those after what a KV cache would hold: what the session says to keep decides them, as with a model.

A schedule is a string of events, repeated until the text is finished: d the drafter drafts one token; a, w it begins
to draft, and is done; u, U one span, or all, reach the target; s the target steps, p if it has nothing to wait for;
v, V one verdict, or all, reach the drafter; r the drafter restarts on a fresh offer, what was on its way is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import torch

from speculation.drafts.candidates import ROOT
from speculation.protocol.messages import Prompt, Resync, SessionOffer, Span, SpeculationPlan, Verdict
from speculation.protocol.proposal import Proposal
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sessions.drafter_session import DrafterSession, DraftToken, Expand, Move
from speculation.sessions.instructions import Keep, SendVerdict
from speculation.sessions.target_session import TargetSession
from speculation.verification.draft_verifier import DraftVerifier
from speculation.verification.rules import target_stream
from tests.support.branching import BranchingSampler, Chooser, draw_proposal
from tests.support.listed_guide import ListedGuide
from tests.support.text_models import longest_words
from tests.support.tiny_pairs import TinyPair


class EnumeratedRun:
    """One run of a pair, event by event.

    ``prediction``: of the client. ``lookup``: the target looks up in its own text. ``texts``: the only ones allowed.
    """

    def __init__(
        self,
        pair: TinyPair,
        rule: Rule,
        params: SamplingParams,
        chooser: Chooser,
        *,
        length: int,
        plan: SpeculationPlan,
        ignore_end: bool = False,
        prediction: bytes = b"",
        lookup: bool = False,
        texts: Sequence[bytes] = (),
    ) -> None:
        self.pair, self.rule, self.params, self.chooser = pair, rule, params, chooser
        vocab = pair.target.vocab
        request = SessionRequest((0,), params, length, 4096, rule=rule, ignore_end=ignore_end)
        encode = longest_words(vocab)
        guide = ListedGuide(vocab, texts) if texts else None
        self.target = TargetSession(
            request, vocab, encode, plan=plan, prediction=prediction, lookup=lookup, guide=guide
        )
        sampler = BranchingSampler(
            params, vocab, pair.target.noise, prompt_ids=(0,), stream=target_stream(rule), guide=guide
        )
        sampler.chooser = chooser
        self.verifier = DraftVerifier(rule, sampler)
        self.cached: list[int] = []  # all of the prompt but its last token
        self.up: deque[Span | Resync] = deque()
        self.down: deque[Verdict] = deque()
        self.start_drafter()

    def start_drafter(self) -> None:
        """A drafter on a fresh offer, as after it was lost: nothing is on its way to it or from it."""
        session = self.target
        prompt = Prompt(text="x")
        offer = SessionOffer(
            "s", prompt, self.params, self.rule, session.committed, session.zero_width, session.plan, number=1
        )
        self.drafter = DrafterSession(offer)
        self.root_text = offer.committed
        self.drafted: list[bytes] = []
        self.asked: list[Expand] = []
        self.answers: list[list[DraftToken]] = []
        self.up.clear()
        self.down.clear()

    def play(self, schedule: str) -> tuple[int, ...]:
        """The text's tokens, once it is finished."""
        while True:
            for event in schedule:
                getattr(self, f"on_{event}")()
                if self.target.finish_reason is not None:
                    return tuple(self.target.token_ids)

    # ---- events -----------------------------------------------------------------------------------------------

    def on_d(self) -> None:
        """The drafter drafts one token."""
        self.on_a()
        self.on_w()

    def on_a(self) -> None:
        """The drafter begins to draft: the model draws after the text that it knows now."""
        if not self.asked and self.drafter.wants_draft():
            self.asked = self.drafter.next_expansions()
            for asked in self.asked:
                text = self.root_text + b"".join(self.drafted[handle] for handle in asked.path)
                drawn = self.draw(text)
                self.answers.append([drawn, *self.alternatives(drawn)])

    def on_w(self) -> None:
        """The drafter is done: the session takes what was drawn when it began."""
        numbers = [asked.number for asked in self.asked]
        self.carry_out(self.drafter.on_draft(zip(numbers, self.answers, strict=True)))
        self.asked, self.answers = [], []

    def on_u(self) -> None:
        """One message reaches the target."""
        if self.up:
            message = self.up.popleft()
            if isinstance(message, Span):
                self.target.on_span(message)
            elif (verdict := self.target.on_resync(message)) is not None:
                self.down.append(verdict)

    def on_U(self) -> None:
        """All messages reach the target."""
        while self.up:
            self.on_u()

    def on_s(self) -> None:
        """The target steps, and what it keeps is what a KV cache would hold."""
        step = self.target.next_step()
        paths = [step.candidates.path(node) for node in range(ROOT, len(step.candidates))]
        rows = [[*self.cached, step.last, *(step.candidates.tokens[node] for node in path)] for path in paths]
        logits = [self.pair.target.logits(row[1:]) for row in rows]  # without the prompt, which is one token
        for instruction in self.target.on_acceptance(self.verifier.verify(step, torch.stack(logits))):
            if isinstance(instruction, SendVerdict):
                self.down.append(instruction.verdict)
            elif isinstance(instruction, Keep):
                self.cached = rows[instruction.rows[-1]]
        if self.target.finish_reason is None:
            assert self.cached == [0, *self.target.token_ids[:-1]], "the KV cache is not the text's"

    def on_p(self) -> None:
        """The target steps if it has nothing to wait for."""
        if self.target.ready:
            self.on_s()

    def on_v(self) -> None:
        """One verdict reaches the drafter."""
        if self.down:
            self.carry_out(self.drafter.on_verdict(self.down.popleft()))

    def on_V(self) -> None:
        """All verdicts reach the drafter."""
        while self.down:
            self.on_v()

    def on_r(self) -> None:
        """The drafter restarts."""
        self.start_drafter()

    # ---- the drafter's model ----------------------------------------------------------------------------------

    def draw(self, text: bytes) -> DraftToken:
        """The drafter's next token after ``text``: a branch for each that it might be."""
        q = self.pair.draft_distribution(self.rule if self.rule.proposes else Rule.REJECTION, text, self.params)
        proposal = draw_proposal(q, self.chooser)
        piece = self.pair.target.vocab.bytes_of(proposal.token)
        if not self.rule.proposes:
            self.drafted.append(piece)
            ends = proposal.token in self.pair.target.vocab.end_ids
            return DraftToken(piece, 0.9, ends=ends, stops=not (piece or ends), token=len(self.drafted) - 1)
        if not piece:
            ends = proposal.token in self.pair.target.vocab.end_ids
            return DraftToken(b"", 0.9, ends=ends, stops=not ends, proposal=self.sent(proposal))
        self.drafted.append(piece)
        return DraftToken(piece, 0.9, token=len(self.drafted) - 1, proposal=self.sent(proposal))

    def alternatives(self, drawn: DraftToken) -> list[DraftToken]:
        """The likeliest of what was not drawn."""
        if drawn.proposal is None:
            return []
        q = sorted(zip(drawn.proposal.weights, drawn.proposal.ids, strict=True), reverse=True)
        others = [(token, weight) for weight, token in q if token != drawn.proposal.token]
        found = []
        for token, weight in others[: self.drafter.plan.alternatives]:
            self.drafted.append(self.pair.target.vocab.bytes_of(token))
            found.append(DraftToken(self.drafted[-1], weight / drawn.proposal.total, token=len(self.drafted) - 1))
        return found

    def sent(self, proposal: Proposal) -> Proposal:
        """What the drafter says it drew from."""
        return proposal

    def carry_out(self, instructions: Iterable[Move | Span | Resync]) -> None:
        """Moves the drafter's text, and puts its messages on their way."""
        for instruction in instructions:
            if isinstance(instruction, Move):
                self.root_text += b"".join(self.drafted[handle] for handle in instruction.path)
                if instruction.text is not None:
                    self.root_text = self.root_text[: instruction.keep] + instruction.text
            else:
                self.up.append(instruction)
