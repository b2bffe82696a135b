"""The target's side of a session, sans-IO: events in, instructions out; it knows no network and no model.

The shell (verifier_service) asks ``next_step`` what to run, runs the forward pass, and hands the logits to
``on_logits``; spans go to ``on_span`` whenever they come. What has to happen next is returned as instructions.

Invariants
  * The truth is ``token_ids``, the list of committed target ids. They are never re-encoded.
  * Between steps the KV cache holds prompt + all committed ids but the last one; ``Rollback`` keeps it so.
  * No event of a drafter changes ``token_ids`` or the text: spans only fill the pool. (Under the rejection rules the
    next token depends on the draft, and its distribution does not.)
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
from speculation.draft_trie import DraftTrie, Place, SpanFate
from speculation.errors import InputError
from speculation.messages import Resync, Span, SpeculationPlan, Verdict
from speculation.prediction import Prediction
from speculation.proposal import Proposal
from speculation.race import RaceNoise
from speculation.retokenize import retokenize
from speculation.sampler import TokenSampler
from speculation.sampling import Rule, SamplingParams
from speculation.session_stats import SessionStats
from speculation.text_stream import TextRun, TextStream

#: Committed ids that retokenisation looks back on.
TAIL_TOKENS = 16
#: Bytes of draft that one candidate token may need, to bound the work of a step.
BYTES_PER_TOKEN = 16


class FinishReason(enum.StrEnum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What the target is asked to write.

    ``max_tokens`` and ``context_length`` count tokens; ``stop`` strings are bytes of UTF-8.
    """

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    context_length: int
    stop: tuple[bytes, ...] = ()
    rule: Rule = Rule.RACE
    ignore_end: bool = False

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise InputError("prompt", "", "gives no tokens", remedy="give a longer prompt")
        room = self.context_length - len(self.prompt_ids)
        if room < 1:
            raise InputError(
                "prompt",
                f"{len(self.prompt_ids)} tokens",
                f"does not fit the context of {self.context_length} tokens with room for an answer",
                remedy="shorten it",
            )
        if self.max_tokens < 1:
            raise InputError("max_tokens", self.max_tokens, "must be at least 1")
        if self.rule is Rule.AUTO:
            raise InputError("rule", self.rule.value, "must be decided before the session starts")


@dataclass(frozen=True, slots=True)
class Step:
    """Run the target on ``tokens`` (the last committed id, then the candidates); logits [len(tokens), V] come back.

    ``proposals``: what the candidates were drawn from, for those that came with it.
    """

    tokens: tuple[int, ...]
    proposals: tuple[Proposal | None, ...] = ()

    @property
    def candidates(self) -> tuple[int, ...]:
        return self.tokens[1:]


@dataclass(frozen=True, slots=True)
class Rollback:
    """Drop the last ``tokens`` entries of the KV cache: candidates that were not accepted."""

    tokens: int


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


Instruction = Rollback | Emit | SendVerdict | Finish


class TargetSession:
    """See the module. ``encode`` turns ordinary text into target ids, special-token parsing off.

    ``prediction``: the client's own draft.
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
        prediction: bytes = b"",
    ) -> None:
        self.request = request
        self.plan = plan
        self.stats = SessionStats()
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._vocab = vocab
        self._encode = encode
        stream = target_stream(request.rule)
        self._sampler = TokenSampler(request.sampling, vocab, noise, prompt_ids=request.prompt_ids, stream=stream)
        self._trie = DraftTrie(capacity=pool_bytes)
        self._prediction = Prediction(prediction)
        self._text = TextStream(request.stop)
        self._max_tokens = min(request.max_tokens, request.context_length - len(request.prompt_ids))
        self._pending = Step(())

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
        """Whether the pool holds text for the coming step."""
        return self._trie.size > 0

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
        """The last committed token and the candidates after it: the pool's best path in target tokens."""
        candidates, proposals = self._candidates()
        self._pending = Step((self._last_token(), *candidates), proposals)
        return self._pending

    def on_logits(self, logits: Tensor) -> list[Instruction]:
        """Verify the pending step. ``logits``: [len(step.tokens), V] float32."""
        candidates = self._pending.candidates
        room = self._max_tokens - len(self.token_ids)
        rule, proposals = self.request.rule, self._pending.proposals
        acceptance = accept(rule, logits, candidates, proposals, self._sampler, max_tokens=room)
        token_ids, runs = self._commit(acceptance)
        accepted = min(acceptance.accepted, len(token_ids))
        self.stats.count_step(len(candidates), accepted)
        base, text = len(self._trie.committed), self._vocab.text(token_ids)
        self._trie.advance(text, zero_width=self.zero_width)
        self._prediction.advance(text)
        digest = self._trie.committed.digest
        instructions: list[Instruction] = [
            Rollback(len(candidates) - accepted),
            Emit(runs, token_ids),
            SendVerdict(Verdict(base, text, digest, self.zero_width, len(candidates), accepted)),
        ]
        if self.finish_reason is not None:
            instructions.append(Finish(self.finish_reason))
        return instructions

    # ---- inside a step ----------------------------------------------------------------------------------------

    def _last_token(self) -> int:
        return self.token_ids[-1] if self.token_ids else self.request.prompt_ids[-1]

    def _candidates(self) -> tuple[list[int], tuple[Proposal | None, ...]]:
        """At most ``plan.width`` tokens, and never more than may still be committed beside the target's own.

        First those that a drafter drew as target tokens, then others that spell the best text after them.
        """
        limit = min(self.plan.width, self._max_tokens - len(self.token_ids) - 1)
        if limit <= 0:
            return [], ()
        if guess := self._prediction.ahead(limit * BYTES_PER_TOKEN):
            end, rank = self._trie.committed, int(self._prediction.strayed)
            self._trie.add(Span(len(end), end.digest, guess, alternative=rank))
        drawn, place = self._trie.drawn(limit=limit)
        candidates = [proposal.token for proposal in drawn]
        if place is not None and len(drawn) < limit:
            candidates += self._spelled(place, candidates, limit - len(drawn))
        return candidates, (*drawn, *[None] * (len(candidates) - len(drawn)))

    def _spelled(self, place: Place, before: list[int], limit: int) -> list[int]:
        path = self._trie.best_path(limit=limit * BYTES_PER_TOKEN, after=place)
        tail = [*self._tail(), *before]
        candidates = retokenize(path.text, tail, self._vocab, self._encode, limit=limit)
        if path.ends and not self.request.ignore_end and len(candidates) < limit:
            complete = sum(len(self._vocab.bytes_of(token)) for token in candidates) == len(path.text)
            if complete and self._vocab.end_ids:
                candidates.append(self._vocab.end_ids[0])
        return candidates

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
        return tuple(self.token_ids[before:]), tuple(runs)
