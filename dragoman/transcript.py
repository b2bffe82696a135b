"""A text as it comes from one verifier, or from several that resume it one after the other."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict, Unpack

from speculation.errors import InputError, ProtocolError, SessionError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, Finished, GenerationEvent, GenerationRequest, Started
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.messages import Prompt
from speculation.protocol.text_check import check_text
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.text_stream import check_stops
from transport.generation_codec import request_to_wire
from transport.prompt_codec import check_read


class TextOptions(TypedDict, total=False):
    """What may be asked of a text beside its prompt; what is left out is as given here."""

    #: ``SamplingParams()``: greedy.
    sampling: SamplingParams | None
    #: 0: as far as the context reaches.
    max_tokens: int
    #: The text ends before the first of these.
    stop: Sequence[str]
    #: How drafts are verified: ``Rule.RACE``.
    rule: Rule
    #: Whether drafters may help: True.
    draft: bool
    #: Go on after the end token, for measuring: False.
    ignore_end: bool
    #: What the answer may turn out to be, or be made of (an old version of it, say); it is verified like any draft.
    prediction: str
    #: What the text is held to (a JSON schema, an expression, a choice, a grammar): nothing.
    guide: GuideSpec | None
    #: Tell how likely each token was, and so many of the likeliest at its place (0..20): nothing is told.
    logprobs: int | None
    #: Lower ones get KV memory first where it is short, -1000..1000: 0.
    priority: int
    #: At the verifier the text shares nothing, neither cached prompts nor drafts of the target's own, with texts of
    #: another salt (at most 256 characters): none.
    cache_salt: str


def check_max_tokens(max_tokens: int) -> None:
    """Raises InputError."""
    if not 0 <= max_tokens < 1 << 32:
        raise InputError("max-tokens", max_tokens, "must lie in 0..2**32-1", remedy="0: as far as the context reaches")


def generation_request(prompt: Prompt | str, **options: Unpack[TextOptions]) -> GenerationRequest:
    """What goes to the verifier, nothing received yet. Raises InputError."""
    max_tokens = options.get("max_tokens", 0)
    check_max_tokens(max_tokens)
    for text in options.get("stop", ()):
        check_text("stop", text)
    check_text("prediction", options.get("prediction", ""))
    stops = tuple(text.encode() for text in options.get("stop", ()))
    check_stops(stops)
    request = GenerationRequest(
        prompt=prompt if isinstance(prompt, Prompt) else Prompt(text=prompt),
        sampling=options.get("sampling") or SamplingParams(),
        max_tokens=max_tokens,
        stop=stops,
        rule=options.get("rule", Rule.RACE),
        draft=options.get("draft", True),
        ignore_end=options.get("ignore_end", False),
        prediction=options.get("prediction", "").encode(),
        priority=options.get("priority", 0),
        guide=options.get("guide"),
        logprobs=options.get("logprobs"),
        cache_salt=options.get("cache_salt", ""),
    )
    request_to_wire(request)  # raises for what no verifier could be sent
    return request


class Writer(NamedTuple):
    """Who writes a text. Only one that is equal in all of this writes the same text on."""

    model: str
    vocab_hash: str
    dtype: str


class Transcript:
    """One completion as it comes, from one verifier or several.

    Invariant: what ``on_chunk`` saw, joined, is ``completion.data``, and no byte comes twice.
    """

    def __init__(
        self,
        request: GenerationRequest,
        on_chunk: Callable[[Chunk], None],
        on_started: Callable[[Started], None] = lambda started: None,
        on_restart: Callable[[], None] | None = None,
    ) -> None:
        self._request = request
        self._on_restart = on_restart
        self._on_chunk = on_chunk
        self._on_started = on_started
        self._started_at = time.perf_counter()
        self._begin()

    @property
    def prompt(self) -> Prompt:
        """Of the request."""
        return self._request.prompt

    def restart(self) -> bool:
        """Forget all text, if whoever watches can; whether that was done."""
        if self._on_restart is None:
            return False
        self._begin()
        self._on_restart()
        return True

    def _begin(self) -> None:
        self.completion = self._empty()
        self.writer: Writer | None = None
        self._received = bytearray()
        self._tokens_told = 0  # by the verifier that writes now, the replayed ones included
        self._rule = self._request.rule  # under which it was begun, once a verifier has said so

    def _empty(self, resumes: int = 0) -> Completion:
        return Completion(resumes=resumes, drafters_allowed=self._request.draft)

    @property
    def received(self) -> int:
        """Bytes of text so far."""
        return len(self._received)

    @property
    def begun(self) -> bool:
        """Whether a verifier has taken the request on."""
        return self.writer is not None

    @property
    def must_write(self) -> Writer | None:
        """Who alone can write the text on; None: it has no beginning yet."""
        return self.writer if self.received or self.completion.token_ids else None

    def next_request(self) -> GenerationRequest:
        """For the next verifier: the request, and what of its answer is here already."""
        self._tokens_told = 0
        if not self._received and not self._rule.resumable:
            # Nothing was shown, and the next verifier writes another text: its tokens are not those told so far.
            self.completion = self._empty(resumes=self.completion.resumes)
        if self.must_write is None:
            return self._request
        return dataclasses.replace(self._request, rule=self._rule, received=bytes(self._received))

    def take(self, event: GenerationEvent) -> bool:
        """What comes; whether that was the end.

        Raises SessionError if this verifier would write another text than the one before it, ProtocolError if it is
        too old to resume one.
        """
        match event:
            case Started():
                self._check(event)
            case Chunk():
                self._add(event)
            case Finished():
                self._finish(event)
                return True
        return False

    def _check(self, started: Started) -> None:
        writer = Writer(started.model, started.vocab_hash, started.dtype)
        if started.received_bytes != self.received:
            raise ProtocolError("the verifier is too old to resume a text", remedy="update it")
        if self._request.guide is not None and not started.guided:
            held = self._request.guide.asked
            raise ProtocolError(f"the verifier is too old to hold a text to a {held}", remedy="update it")
        if self._request.logprobs is not None and not started.logprobs:
            raise ProtocolError("the verifier is too old to tell logprobs", remedy="update it, or ask for none")
        if self._request.cache_salt and not started.cache_salt:
            raise ProtocolError("the verifier is too old to keep texts apart by a cache_salt", remedy="update it")
        if self._request.prompt.uses_tools and started.tool_format is None:
            raise ProtocolError("the verifier is too old to know of tools", remedy="update it")
        prompt = self._request.prompt
        check_read(prompt, template_kwargs=started.template_kwargs, special_tokens=started.special_tokens)
        if self.must_write is not None and writer != self.must_write:
            raise SessionError(
                f"the text was begun by {self.writer}, and {writer} would not write it on in the same way",
                remedy="resume at a verifier of the same model and dtype",
            )
        self.completion.resumes += self.begun
        self.writer = writer
        self._rule = started.rule or self._rule
        self.completion.tool_format = started.tool_format
        self._on_started(started)

    def _add(self, chunk: Chunk) -> None:
        completion = self.completion
        # Where the text was resumed, its first tokens are told again.
        known = max(0, len(completion.token_ids) - self._tokens_told)
        self._tokens_told += len(chunk.token_ids)
        tokens, logprobs = chunk.token_ids[known:], chunk.logprobs[known:]
        if not tokens and not chunk.runs:
            return
        if not completion.token_ids:
            completion.ttft = time.perf_counter() - self._started_at
            completion.first_tokens = len(tokens)
        completion.runs += chunk.runs
        completion.token_ids += tokens
        completion.logprobs += logprobs
        self._received += chunk.data
        self._on_chunk(Chunk(chunk.runs, tokens, logprobs=logprobs, step=chunk.step))

    def _finish(self, finished: Finished) -> None:
        completion, stopped_by = self.completion, finished.stopped_by
        completion.e2el = time.perf_counter() - self._started_at
        completion.finish_reason = finished.reason
        completion.stop_reason = stopped_by.decode(errors="replace") if isinstance(stopped_by, bytes) else stopped_by
        completion.prompt_tokens = finished.prompt_tokens
        completion.stats = finished.stats
        completion.replayed_tokens = finished.replayed_tokens
