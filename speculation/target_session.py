"""The target's side of a session, sans-IO: events in, instructions out; it knows no network and no model.

The shell (verifier_service) asks ``next_step`` what to run, runs the forward pass, and hands the logits to
``on_logits``; spans go to ``on_span`` whenever they come. What has to happen next is returned as instructions.

Invariants
  * The truth is ``token_ids``, the list of committed target ids. They are never re-encoded.
  * Between steps the KV cache holds prompt + all committed ids but the last one; ``Keep`` keeps it so.
  * No event of a drafter changes ``token_ids`` or the text: spans only fill the pool.
  * A text that is resumed is written again from its first token; only what follows ``received`` is shown.
  * End tokens, stop strings and ``max_tokens`` cut a block before anything of it is committed or shown.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from speculation.acceptance import Acceptance, accept, target_stream
from speculation.byte_vocab import ByteVocab
from speculation.candidates import BYTES_PER_TOKEN, CandidateBuilder, CandidateTree
from speculation.draft_trie import DraftTrie, SpanFate
from speculation.lookup import OwnLookup
from speculation.messages import Resync, Span, SpeculationPlan, Verdict
from speculation.prediction import Prediction
from speculation.proposal import Proposal
from speculation.race import RaceNoise
from speculation.reliability import Reliability
from speculation.replay import REPLAY_WIDTH, Replay
from speculation.retokenize import retokenize
from speculation.sampler import TokenSampler
from speculation.session_request import SessionRequest
from speculation.session_stats import SessionStats
from speculation.text_stream import TextRun, TextStream

#: Candidates of a step while no drafter is asked, all of them looked up.
LOOKUP_WIDTH = 8
#: The chance that a client's prediction is taken to have, all of it together.
PREDICTED = 0.9
#: Committed ids that retokenisation looks back on.
TAIL_TOKENS = 16


class FinishReason(enum.StrEnum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Step:
    """Run the target on ``last``, the last committed id, and the candidates, each after ``last`` and its own ancestors;
    logits [1 + candidates, V] come back. ``proposals``: what the candidates were drawn from, if the rule needs that."""

    last: int
    candidates: CandidateTree
    proposals: tuple[Proposal | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """Of the KV cache's entries of the step just run, keep these rows, in this order; row 0 is ``Step.last``."""

    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Emit:
    """Show the client ``runs`` of text, and the ids committed with them."""

    runs: tuple[TextRun, ...]
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SendVerdict:
    """Tell every attached drafter."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Finish:
    reason: FinishReason


Instruction = Keep | Emit | SendVerdict | Finish


class TargetSession:
    """See the module. ``encode`` turns ordinary text into target ids, special-token parsing off.

    ``lookup``: beside what drafters send, look up in prompt and text how it may go on. ``prediction``: of the client.
    ``free``: draft tokens that cost a step nothing.
    """

    def __init__(
        self,
        request: SessionRequest,
        vocab: ByteVocab,
        encode: Callable[[str], list[int]],
        noise: RaceNoise,
        *,
        plan: SpeculationPlan,
        pool_bytes: int = 4096,
        lookup: bool = False,
        prediction: bytes = b"",
        free: int = 0,
    ) -> None:
        self.request = request
        self.plan = plan
        self.stats = SessionStats()
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.replayed_tokens = 0  # of token_ids: those of the replay
        self._replay = Replay(request.received)
        self._vocab = vocab
        self._encode = encode
        stream = target_stream(request.rule)
        self._sampler = TokenSampler(request.sampling, vocab, noise, prompt_ids=request.prompt_ids, stream=stream)
        self._trie = DraftTrie(capacity=pool_bytes)
        self._text = TextStream(request.stop)
        self._max_tokens = min(request.max_tokens, request.context_length - len(request.prompt_ids))
        self._builder = CandidateBuilder(vocab, encode, may_end=not request.ignore_end, free=free)
        self._pending = Step(0, CandidateTree())
        self._drafters = Reliability()
        # Not under the rules that draw by proposals, whose proof speaks of what drafters and clients send.
        lookup = lookup and not request.rule.proposes
        self._lookup = OwnLookup(vocab.text(request.prompt_ids)) if lookup else None
        self._prediction = Prediction(prediction)

    # ---- what a drafter needs to know -------------------------------------------------------------------------

    @property
    def committed(self) -> bytes:
        """All generated bytes so far."""
        return self._trie.committed.since(0)

    @property
    def committed_length(self) -> int:
        """Bytes generated so far."""
        return len(self._trie.committed)

    @property
    def zero_width(self) -> int:
        """Tokens committed at the end of the text that added no bytes."""
        return self._sampler.zero_width

    @property
    def replaying(self) -> bool:
        """Whether the coming step goes over text that the client has already."""
        return self.committed_length < len(self.request.received)

    # ---- events -----------------------------------------------------------------------------------------------

    def on_span(self, span: Span) -> SpanFate:
        """A drafter's guess came. It may be used, known already, stale, or one too many; never harmful."""
        self.stats.spans += 1
        drawn = span.proposals if self.request.rule.proposes else ()
        pieces = [self._vocab.bytes_of(proposal.token) for proposal in drawn]
        span = dataclasses.replace(span, proposals=drawn, text=b"".join(pieces) + span.text)
        fate = self._trie.add(span, pieces)
        if fate is SpanFate.STALE:
            self.stats.stale_spans += 1
        return fate

    @property
    def has_draft(self) -> bool:
        """Whether drafters have sent text for the coming step."""
        return self._trie.has_sent

    def answers(self, span: Span) -> bool:
        """Whether a span brings text for the coming step, or says that none will come."""
        new = span.proposals or span.base_offset + len(span.text) > self.committed_length
        return self._trie.fits(span) and (span.rests or bool(new))

    def on_resync(self, resync: Resync) -> Verdict | None:
        """A drafter lost track: everything from its offset on, or None if it claims text that does not exist."""
        committed = self._trie.committed
        if resync.offset > len(committed):
            return None
        return Verdict(resync.offset, committed.since(resync.offset), committed.digest, self.zero_width)

    def next_step(self) -> Step:
        """The last committed token and the likeliest candidates after it, in target tokens."""
        last = self._last_token()
        if self.replaying:
            self._pending = Step(last, self._recorded())
        elif self.request.rule.proposes:
            self._pending = Step(last, *self._drawn_candidates())
        else:
            self._pending = Step(last, self._candidates())
        return self._pending

    def on_logits(self, logits: Tensor) -> list[Instruction]:
        """Verify the pending step. ``logits``: [1 + candidates, V] float32.

        Raises DivergedError if the text is not the one that was received.
        """
        candidates, replaying = self._pending.candidates, self.replaying
        rule, proposals, room = self.request.rule, self._pending.proposals, self._room()
        acceptance = accept(rule, logits, candidates, proposals, self._sampler, max_tokens=room)
        token_ids, runs = self._commit(acceptance)
        path = acceptance.path[: len(token_ids)]
        if replaying:  # was counted before, and says nothing about drafters
            self.replayed_tokens = len(self.token_ids)
        else:
            self.stats.count_step(candidates, path)
        base, text = len(self._trie.committed), self._vocab.text(token_ids)
        self._drafters.settle(base, text)
        if self._lookup is not None:
            self._lookup.reliability.settle(base, text)
        self._trie.advance(text, zero_width=self.zero_width)
        self._prediction.advance(text)
        digest = self._trie.committed.digest
        instructions: list[Instruction] = [
            Keep((0, *(1 + node for node in path))),
            Emit(runs, token_ids),
            SendVerdict(Verdict(base, text, digest, self.zero_width, len(candidates), len(path))),
        ]
        if self.finish_reason is not None:
            instructions.append(Finish(self.finish_reason))
        return instructions

    # ---- inside a step ----------------------------------------------------------------------------------------

    def _last_token(self) -> int:
        return self.token_ids[-1] if self.token_ids else self.request.prompt_ids[-1]

    def _room(self) -> int:
        """Tokens that may still be committed."""
        return self._max_tokens - len(self.token_ids)

    def _recorded(self) -> CandidateTree:
        """What the client has of the text, as far as a step of a replay reaches."""
        limit = min(REPLAY_WIDTH, self._room() - 1)
        recorded = self._replay.draft(self.committed_length, limit * BYTES_PER_TOKEN)
        return CandidateTree.chain(retokenize(recorded, self._tail(), self._vocab, self._encode, limit=limit))

    def _candidates(self) -> CandidateTree:
        """The likeliest, and never more than may be committed beside the target's own token."""
        width, threshold = self.plan.width, self.plan.verify_threshold
        if self._lookup is not None:
            width = width or LOOKUP_WIDTH
            for span in self._lookup.spans(self._trie.committed):
                self._trie.add(span)
        width = min(width, self._room() - 1)
        self._predict(width)
        guess, trust = self._trie.first_guess(), self._drafters.factor
        self._drafters.guess(len(self._trie.committed), *guess)
        return self._builder.build(self._trie, self._tail(), width=width, threshold=threshold, trust=trust)

    def _drawn_candidates(self) -> tuple[CandidateTree, tuple[Proposal | None, ...]]:
        """First those that a drafter drew as target tokens, then others that spell the best text after them."""
        limit = min(self.plan.width, self._room() - 1)
        if limit <= 0:
            return CandidateTree(), ()
        self._predict(limit)
        drawn, place = self._trie.drawn(limit=limit)
        tokens = [proposal.token for proposal in drawn]
        if place is not None and len(drawn) < limit:
            path = self._trie.best_path(limit=limit * BYTES_PER_TOKEN, after=place)
            tokens += self._builder.spell(path, [*self._tail(), *tokens], limit - len(drawn))
        return CandidateTree.chain(tokens), (*drawn, *[None] * (len(tokens) - len(drawn)))

    def _predict(self, limit: int) -> None:
        if guess := self._prediction.ahead(max(limit, 0) * BYTES_PER_TOKEN):
            end, rank = self._trie.committed, int(self._prediction.strayed)
            self._trie.add(Span(len(end), end.digest, guess, alternative=rank, confidence=PREDICTED))

    def _tail(self) -> list[int]:
        tail = self.token_ids[-TAIL_TOKENS:]
        missing = TAIL_TOKENS - len(tail)
        return [*self.request.prompt_ids[-missing:], *tail] if missing else tail

    def _commit(self, acceptance: Acceptance) -> tuple[tuple[int, ...], tuple[TextRun, ...]]:
        """Take the accepted block token by token, up to where the text ends.

        Returns the ids that count and what the client may see.
        """
        runs: list[TextRun] = []
        before = len(self.token_ids)
        for position, token in enumerate(acceptance.tokens):
            self.token_ids.append(token)
            if token in self._vocab.end_ids and not self.request.ignore_end:
                self.finish_reason = FinishReason.STOP
                break
            runs += self._text.push(self._vocab.bytes_of(token), drafted=position < acceptance.accepted)
            if self._text.stopped:
                self.finish_reason = FinishReason.STOP
                break
            if len(self.token_ids) == self._max_tokens:
                self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None:
            runs += self._text.flush()
        unseen = self._replay.unseen(runs, finished=self.finish_reason is not None)
        return tuple(self.token_ids[before:]), unseen
