"""The target's side of a session, sans-IO: events in, instructions out; it knows no network and no model.

The shell (verifier_service) asks ``next_step`` what to run, runs the forward pass, verifies (``DraftVerifier``) and
hands the result to ``on_acceptance``; spans go to ``on_span`` whenever they come. What has to happen next is returned
as instructions. No tensor is needed here, so that draws may come from wherever the logits are.

Invariants
  * The truth is ``token_ids``, the list of committed target ids. They are never re-encoded.
  * Between steps the KV cache holds prompt + all committed ids but the last one; ``Keep`` keeps it so.
  * No event of a drafter changes ``token_ids`` or the text: spans only fill the pool.
  * A text that is resumed is written again from its first token; only what follows ``received`` is shown.
  * End tokens, stop strings and ``max_tokens`` cut a block before anything of it is committed or shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from speculation.drafts.candidates import CandidateBuilder, CandidateTree, draft_bytes
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.drawn_candidates import DrawnCandidates
from speculation.drafts.own_drafts import OwnDrafts
from speculation.drafts.reliability import Reliabilities
from speculation.drafts.replay import REPLAY_WIDTH, Replay
from speculation.drafts.span_fate import SpanFate
from speculation.guide import Guide
from speculation.protocol.generation import FinishReason
from speculation.protocol.messages import Resync, Span, SpeculationPlan, Verdict
from speculation.protocol.proposal import Proposal
from speculation.protocol.session_request import SessionRequest
from speculation.sessions.instructions import Emit, Finish, Instruction, Keep, SendVerdict
from speculation.sessions.statistics import SessionStats
from speculation.source import PREDICTION, REPLAY
from speculation.text.byte_vocab import ByteVocab
from speculation.text.retokenize import retokenize
from speculation.text.text_stream import TextRun, TextStream
from speculation.verification.step import Acceptance, Step

_NOTHING = CandidateTree()
#: Committed ids that retokenisation looks back on.
TAIL_TOKENS = 8
#: Sessions leave some of a step's rows over; who has more candidates than its share is not given many times as many.
SPARE = 2


class TargetSession:
    """One completion as the target writes it.

    ``encode`` turns ordinary text into target ids, special-token parsing off. ``lookup``: beside what drafters send,
    look up in prompt, text and late drafts how it may go on. ``prediction``: of the client. ``guide``: what the text is
    held to; whoever verifies tells it what is committed. ``jumps``: draft what it forces. ``free``: draft tokens that
    cost a step nothing. ``widest``: draft tokens that a step may have, whatever the plan.
    """

    def __init__(
        self,
        request: SessionRequest,
        vocab: ByteVocab,
        encode: Callable[[str], list[int]],
        *,
        plan: SpeculationPlan,
        pool_bytes: int = 4096,
        lookup: bool = False,
        prediction: bytes = b"",
        guide: Guide | None = None,
        jumps: bool = True,
        free: int = 0,
        widest: int = SpeculationPlan.MAX_TOKENS,
    ) -> None:
        self.request = request
        self.plan = plan
        self._new_plan: SpeculationPlan | None = None  # that the coming verdict brings to the drafters
        self.stats = SessionStats()
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.stopped_by: bytes | int | None = None  # the stop string, or the end token
        self.zero_width = 0  # tokens committed at the end of the text that added no bytes
        self.replayed_tokens = 0  # of token_ids: those of the replay
        self._replay = Replay(request.received)
        self._widest = self._share = widest
        self._vocab = vocab
        self._encode = encode
        self._pool = DraftPool(capacity=pool_bytes)
        self._text = TextStream(request.stop)
        self._max_tokens = min(request.max_tokens, request.context_length - len(request.prompt_ids))
        self._builder = CandidateBuilder(vocab, encode, may_end=not request.ignore_end, free=free)
        self.pending = Step(0, CandidateTree())  # that was begun last
        self._rests = False  # a drafter waits for the coming verdict
        self._reliabilities = Reliabilities()
        prompt = vocab.text(request.prompt_ids) if lookup else None
        late = (
            not request.rule.proposes
        )  # what is tried where a token was drawn must not depend on what was drawn before
        self._own = OwnDrafts(prompt, prediction=prediction, guide=guide, jumps=jumps, late=late)
        if prediction:
            self._reliabilities.meet(PREDICTION)

    # ---- what a drafter needs to know -------------------------------------------------------------------------

    @property
    def committed(self) -> bytes:
        """All generated bytes so far."""
        return self._pool.committed.since(0)

    @property
    def committed_length(self) -> int:
        """Bytes generated so far."""
        return len(self._pool.committed)

    def positions_ahead(self, tokens: int) -> int:
        """Tokens of prompt and text together when the text has grown by so many more, or has ended before."""
        return len(self.request.prompt_ids) + min(len(self.token_ids) + tokens, self._max_tokens)

    @property
    def guided(self) -> bool:
        """Whether the text is held to a guide."""
        return self._own.guided

    @property
    def replaying(self) -> bool:
        """Whether the coming step goes over text that the client has already."""
        received = self.request.received
        return bool(received) and self.committed_length < len(received)

    # ---- events -----------------------------------------------------------------------------------------------

    def follow(self, plan: SpeculationPlan) -> bool:
        """From the coming step on; the next verdict tells the drafters. Returns whether it is another one."""
        if plan == self.plan:
            return False
        self.plan = self._new_plan = plan
        return True

    def on_span(self, span: Span) -> SpanFate:
        """A drafter's guess came. It may be used, known already, stale, or one too many; never harmful."""
        self.stats.spans += 1
        drawn = span.proposals if self.request.rule.proposes else ()
        pieces = [self._vocab.bytes_of(proposal.token) for proposal in drawn]
        if span.proposals:
            span = dataclasses.replace(span, proposals=drawn, text=b"".join(pieces) + span.text)
        self._reliabilities.meet(span.source)
        self._own.hear(span)
        fate = self._pool.add_span(span, pieces)
        self.stats.stale_spans += fate is SpanFate.STALE
        self._rests = self._rests or (span.rests and fate is not SpanFate.STALE)
        return fate

    @property
    def has_draft(self) -> bool:
        """Whether drafters have sent text for the coming step."""
        return self._pool.has_sent

    @property
    def ready(self) -> bool:
        """Whether the coming step has no draft to wait for: one is there, or a drafter said that no more comes.

        Draft tokens that travel one by one are awaited until there are as many as a span has under other rules.
        """
        enough = min(self.plan.span_tokens, self._width(self.plan.width))
        return enough <= 0 or self._rests or (self.has_draft and self._pool.has_drawn(enough))

    def on_resync(self, resync: Resync) -> Verdict | None:
        """A drafter lost track: everything from its offset on, with the plan, which the lost verdict may have told of;
        or None if it claims text that does not exist."""
        committed = self._pool.committed
        if resync.offset > len(committed):
            return None
        return Verdict(
            base_offset=resync.offset,
            text=committed.since(resync.offset),
            digest=committed.digest,
            zero_width=self.zero_width,
            plan=self.plan,
        )

    def narrow(self, step: Step) -> None:
        """The pending step runs with fewer of its candidates, the first of them."""
        self.pending = step

    def next_step(self, *, share: int | None = None) -> Step:
        """The last committed token and the likeliest candidates after it, in target tokens.

        ``share``: candidates that the session has room for whatever others need. Those that were drawn are no more:
        how many are verified must not depend on what they are. Of others there may be ``SPARE`` times as many, to be
        narrowed.
        """
        self._share = self._widest if share is None else share * (1 if self.request.rule.proposes else SPARE)
        candidates, proposals = (self._recorded(), ()) if self.replaying else self._candidates()
        self.pending = Step(
            last=self._last_token(), candidates=candidates, proposals=proposals, max_tokens=self._room()
        )
        return self.pending

    def on_acceptance(self, acceptance: Acceptance) -> list[Instruction]:
        """The pending step was verified. Raises DivergedError if the text is not the one that was received."""
        candidates, replaying = self.pending.candidates, self.replaying
        token_ids, runs = self._commit(acceptance, candidates)
        path = acceptance.path[: len(token_ids)]
        if replaying:
            self.replayed_tokens = len(self.token_ids)
            self.stats.count_replay(candidates, path)
        else:
            self.stats.count_step(candidates, path)
        base, text = len(self._pool.committed), self._vocab.text(token_ids)
        self._reliabilities.settle(base, text)
        self._pool.advance(text, zero_width=self.zero_width)
        self._own.advance(base, text)
        self._rests = False
        digest = self._pool.committed.digest
        instructions: list[Instruction] = [
            # Not the row of the last token: a block that ends with an accepted end token has no token after it.
            Keep((0, *(1 + node for node in path))[: len(token_ids)]),
            Emit(runs, token_ids),
            SendVerdict(
                Verdict(
                    base_offset=base,
                    text=text,
                    digest=digest,
                    zero_width=self.zero_width,
                    draft_tokens=len(candidates),
                    accepted_tokens=len(path),
                    plan=self._new_plan,
                )
            ),
        ]
        self._new_plan = None
        if self.finish_reason is not None:
            instructions.append(Finish(self.finish_reason, self.stopped_by))
        return instructions

    # ---- inside a step ----------------------------------------------------------------------------------------

    def _last_token(self) -> int:
        return self.token_ids[-1] if self.token_ids else self.request.prompt_ids[-1]

    def _room(self) -> int:
        """Tokens that may still be committed."""
        return self._max_tokens - len(self.token_ids)

    def _width(self, wanted: int) -> int:
        """Draft tokens that the coming step may have, beside the target's own token."""
        return min(wanted, self._widest, self._share, self._room() - 1)

    def _recorded(self) -> CandidateTree:
        """What the client has of the text, as far as a step of a replay reaches."""
        limit = min(REPLAY_WIDTH, self._widest, self._room() - 1)
        recorded = self._replay.draft(self.committed_length, draft_bytes(limit))
        tokens = retokenize(recorded, self.tail(), self._vocab, self._encode, limit=limit)
        return CandidateTree.chain(tokens, [REPLAY] * len(tokens))

    def _candidates(self) -> tuple[CandidateTree, tuple[Proposal | None, ...]]:
        """The likeliest, and never more than may be committed beside the target's own token; what was drawn of them."""
        threshold = self.plan.verify_threshold
        forced = self._own.forced()
        width = self._width(self._own.width(self.plan.width, forced))
        if width <= 0 and not self.request.rule.proposes:
            return _NOTHING, ()
        self._own.offer(self._pool, forced, limit=width)
        if not self._pool.has_draft:
            return _NOTHING, ()
        trust, tail = self._reliabilities.factors(), self.tail()
        if self.request.rule.proposes:
            drawn = DrawnCandidates(self._builder, self._pool, tail, width=width, threshold=threshold, trust=trust)
            return drawn.build()
        self._reliabilities.take_guesses(self._pool)
        tree = self._builder.build(self._pool, tail, width=width, threshold=threshold, trust=trust)
        return self._own.allowed(tree), ()

    def tail(self) -> list[int]:
        """The last committed ids, of the prompt where the text has too few: what retokenisation looks back on."""
        tail = self.token_ids[-TAIL_TOKENS:]
        missing = TAIL_TOKENS - len(tail)
        return [*self.request.prompt_ids[-missing:], *tail] if missing else tail

    def _commit(self, acceptance: Acceptance, candidates: CandidateTree) -> tuple[tuple[int, ...], tuple[TextRun, ...]]:
        """Take the accepted block token by token, up to where the text ends.

        Returns the ids that count and what the client may see.
        """
        runs: list[TextRun] = []
        before = len(self.token_ids)
        for position, token in enumerate(acceptance.tokens):
            self.token_ids.append(token)
            self.zero_width = 0 if self._vocab.bytes_of(token) else self.zero_width + 1
            if token in self._vocab.end_ids and not self.request.ignore_end:
                self.finish_reason, self.stopped_by = FinishReason.STOP, token
                break
            drafted = position < acceptance.accepted
            source = candidates.sources[acceptance.path[position]].kind if drafted else None
            runs += self._text.push(self._vocab.bytes_of(token), drafted=drafted, source=source)
            if self._text.stop is not None:
                self.finish_reason, self.stopped_by = FinishReason.STOP, self._text.stop
                break
            if len(self.token_ids) == self._max_tokens:
                self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None:
            runs += self._text.flush()
        unseen = self._replay.unseen(runs, finished=self.finish_reason is not None)
        return tuple(self.token_ids[before:]), unseen
