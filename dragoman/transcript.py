"""A text as it comes from one verifier, or from several that resume it one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict, Unpack

from dragoman.completion import Chunk, Completion
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, ProtocolError, SessionError
from speculation.protocol.messages import Prompt, check_text
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.text_stream import TextRun, check_stops
from transport import codec
from transport.limits import PROTOCOL_VERSION
from transport.request_size import check_request_size

_FINISH = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


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


def check_max_tokens(max_tokens: int) -> None:
    """Raises InputError."""
    if not 0 <= max_tokens < 1 << 32:
        raise InputError("max-tokens", max_tokens, "must lie in 0..2**32-1", remedy="0: as far as the context reaches")


def generate_request(prompt: Prompt, **options: Unpack[TextOptions]) -> pb.GenerateRequest:
    """What goes to the verifier, nothing received yet. Raises InputError."""
    max_tokens = options.get("max_tokens", 0)
    check_max_tokens(max_tokens)
    for text in options.get("stop", ()):
        check_text("stop", text)
    check_text("prediction", options.get("prediction", ""))
    stops = [text.encode() for text in options.get("stop", ())]
    check_stops(stops)
    request = pb.GenerateRequest(
        protocol_version=PROTOCOL_VERSION,
        prompt=codec.prompt_to_wire(prompt),
        sampling=codec.sampling_to_wire(options.get("sampling") or SamplingParams()),
        max_tokens=max_tokens,
        stop=stops,
        rule=codec.rule_to_wire(options.get("rule", Rule.RACE)),
        no_draft=not options.get("draft", True),
        ignore_end=options.get("ignore_end", False),
        prediction=options.get("prediction", "").encode(),
    )
    check_request_size(request)
    return request


class Writer(NamedTuple):
    """Who writes a text. Only one that is equal in all of this writes the same text on."""

    model: str
    vocab_hash: str
    dtype: str


class Transcript:
    """See the module. Invariant: what ``on_chunk`` saw, joined, is ``completion.data``, and no byte comes twice."""

    def __init__(
        self,
        request: pb.GenerateRequest,
        on_chunk: Callable[[Chunk], None],
        on_started: Callable[[int], None] = lambda prompt_tokens: None,
    ) -> None:
        self._request = request
        self._on_chunk = on_chunk
        self._on_started = on_started
        self._started_at = time.perf_counter()
        self.restart()

    def restart(self) -> None:
        """Forget all text."""
        self.completion = self._empty()
        self.writer: Writer | None = None
        self._received = bytearray()
        self._tokens_told = 0  # by the verifier that writes now, the replayed ones included
        self._rule = self._request.rule  # under which it was begun, once a verifier has said so

    def _empty(self, resumes: int = 0) -> Completion:
        return Completion(resumes=resumes, drafters_allowed=not self._request.no_draft)

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

    def next_request(self) -> pb.GenerateRequest:
        """For the next verifier: the request, and what of its answer is here already.

        Raises InputError if that is too much for a message.
        """
        self._tokens_told = 0
        if not self._received and not codec.rule_from_wire(self._rule).resumable:
            # Nothing was shown, and the next verifier writes another text: its tokens are not those told so far.
            self.completion = self._empty(resumes=self.completion.resumes)
        request = pb.GenerateRequest()
        request.CopyFrom(self._request)
        if self.must_write is not None:
            request.rule = self._rule
            request.received = bytes(self._received)
            check_request_size(request)
        return request

    def take(self, response: pb.GenerateResponse) -> bool:
        """What comes; whether that was the end.

        Raises SessionError if this verifier would write another text than the one before it, ProtocolError if it is
        too old to resume one.
        """
        match response.WhichOneof("event"):
            case "started":
                self._check(response.started)
            case "chunk":
                self._add(response.chunk)
            case "finished":
                self._finish(response.finished)
                return True
        return False

    def _check(self, started: pb.GenerateStarted) -> None:
        writer = Writer(started.model, started.vocab_hash, started.dtype)
        if started.received_bytes != self.received:
            raise ProtocolError("the verifier is too old to resume a text", remedy="update it")
        if self.must_write is not None and writer != self.must_write:
            raise SessionError(
                f"the text was begun by {self.writer}, and {writer} would not write it on in the same way",
                remedy="resume at a verifier of the same model and dtype",
            )
        self.completion.resumes += self.begun
        self.writer = writer
        self._rule = started.rule or self._rule
        self._on_started(started.prompt_tokens)

    def _add(self, chunk: pb.TextChunk) -> None:
        completion = self.completion
        # Where the text was resumed, its first tokens are told again.
        known = max(0, len(completion.token_ids) - self._tokens_told)
        self._tokens_told += len(chunk.token_ids)
        tokens = tuple(chunk.token_ids[known:])
        runs = tuple(TextRun(run.text, run.drafted, codec.source_from_wire(run.source)) for run in chunk.runs)
        if not tokens and not runs:
            return
        if not completion.token_ids:
            completion.ttft = time.perf_counter() - self._started_at
            completion.first_tokens = len(tokens)
        completion.runs += runs
        completion.token_ids += tokens
        for run in runs:
            self._received += run.text
        self._on_chunk(Chunk(runs, tokens))

    def _finish(self, finished: pb.GenerateFinished) -> None:
        completion = self.completion
        completion.e2el = time.perf_counter() - self._started_at
        completion.finish_reason = _FINISH[finished.finish_reason]
        match finished.WhichOneof("stop_reason"):
            case "stop_string":
                completion.stop_reason = finished.stop_string.decode(errors="replace")
            case "stop_token":
                completion.stop_reason = finished.stop_token
        completion.prompt_tokens = finished.prompt_tokens
        completion.stats = finished.speculation
        completion.replayed_tokens = finished.replayed_tokens
