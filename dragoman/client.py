"""The Python client: text from a verifier, as it is committed.

async with Client("127.0.0.1:50061") as client:
    completion = await client.complete(Prompt(text="def add(a, b):"), max_tokens=32)
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from protos import codec
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from protos.status import error_of
from protos.transport import PROTOCOL_VERSION, Address, channel_options
from speculation.errors import SessionError
from speculation.messages import Prompt
from speculation.sampling import Rule, SamplingParams
from speculation.text_stream import TextRun

_FINISH = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one verify step committed. ``runs`` are cut at whole characters; joined they are the text."""

    runs: tuple[TextRun, ...]
    token_ids: tuple[int, ...]


@dataclass(slots=True)
class Completion:
    """A whole answer. Times are seconds on the client's clock."""

    runs: list[TextRun] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    prompt_tokens: int = 0
    stats: pb.SpeculationStats = field(default_factory=pb.SpeculationStats)
    ttft: float = 0.0
    e2el: float = 0.0

    @property
    def data(self) -> bytes:
        """The text's bytes; ``max_tokens`` may have cut the last character."""
        return b"".join(run.text for run in self.runs)

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first; None for a single token."""
        later = self.completion_tokens - 1
        return (self.e2el - self.ttft) / later if later > 0 else None

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding: prefill and the first token are not in it."""
        return 1 / self.tpot if self.tpot else None

    @property
    def tokens_per_step(self) -> float | None:
        """Mean acceptance length: tokens committed per verify step, the target's own included."""
        return self.completion_tokens / self.stats.steps if self.stats.steps else None

    @property
    def acceptance_rate(self) -> float | None:
        return self.stats.accepted_tokens / self.stats.draft_tokens if self.stats.draft_tokens else None

    def to_json(self) -> dict[str, Any]:
        """The object that `dragoman generate --json` prints. What is not defined is null."""
        stats = self.stats
        return {
            "text": self.text,
            "token_ids": self.token_ids,
            "finish_reason": self.finish_reason,
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens},
            "speculation": {
                "rule": codec.rule_from_wire(stats.rule).value,
                "steps": stats.steps,
                "draft_tokens": stats.draft_tokens,
                "accepted_tokens": stats.accepted_tokens,
                "acceptance_rate": self.acceptance_rate,
                "tokens_per_step": self.tokens_per_step,
                "spans": stats.spans,
                "stale_spans": stats.stale_spans,
                "bytes_up": stats.bytes_up,
                "bytes_down": stats.bytes_down,
            },
            "timing": {
                "ttft_ms": self.ttft * 1000,
                "tpot_ms": self.tpot * 1000 if self.tpot is not None else None,
                "e2el_ms": self.e2el * 1000,
                "tokens_per_second": self.tokens_per_second,
            },
        }


class Client:
    """A connection to one verifier. Use as an async context manager.

    Every method raises ConnectionFailedError if nobody answers, InputError for a bad request, SessionError if the
    verifier gives up in mid-text.
    """

    def __init__(self, verifier: str | Address) -> None:
        self.address = Address.parse(verifier, field="verifier") if isinstance(verifier, str) else verifier
        self._channel = grpc.aio.insecure_channel(str(self.address), options=channel_options())
        self._stub = pb_grpc.VerifierServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def describe(self, *, timeout: float = 5.0) -> pb.DescribeResponse:
        """The verifier's model, its drafters and its load."""
        request = pb.DescribeRequest(protocol_version=PROTOCOL_VERSION)
        try:
            response: pb.DescribeResponse = await self._stub.Describe(request, timeout=timeout)
        except grpc.RpcError as error:
            raise error_of(error, self.address) from error
        codec.check_version(response.protocol_version, who=f"the verifier at {self.address}")
        return response

    async def complete(
        self,
        prompt: Prompt,
        *,
        sampling: SamplingParams | None = None,
        max_tokens: int = 0,
        stop: Sequence[str] = (),
        rule: Rule = Rule.RACE,
        draft: bool = True,
        ignore_end: bool = False,
        prediction: str = "",
        on_chunk: Callable[[Chunk], None] = lambda chunk: None,
    ) -> Completion:
        """The answer to ``prompt``; ``on_chunk`` sees it grow. ``max_tokens`` 0: as far as the context reaches.

        ``ignore_end``: go on after the end token, for measuring. ``prediction``: what the answer may turn out to be, or
        be made of (an old version of it, say); it is verified like any draft.
        """
        request = pb.GenerateRequest(
            protocol_version=PROTOCOL_VERSION,
            prompt=codec.prompt_to_wire(prompt),
            sampling=codec.sampling_to_wire(sampling or SamplingParams()),
            max_tokens=max_tokens,
            stop=[text.encode() for text in stop],
            rule=codec.rule_to_wire(rule),
            no_draft=not draft,
            ignore_end=ignore_end,
            prediction=prediction.encode(),
        )
        completion = Completion()
        started = time.perf_counter()
        async for response in self._generate(request):
            if response.HasField("chunk"):
                if not completion.token_ids:
                    completion.ttft = time.perf_counter() - started
                runs = tuple(TextRun(run.text, run.drafted) for run in response.chunk.runs)
                completion.runs += runs
                completion.token_ids += response.chunk.token_ids
                on_chunk(Chunk(runs, tuple(response.chunk.token_ids)))
            elif response.HasField("finished"):
                completion.e2el = time.perf_counter() - started
                completion.finish_reason = _FINISH[response.finished.finish_reason]
                completion.prompt_tokens = response.finished.prompt_tokens
                completion.stats = response.finished.speculation
                return completion
        raise SessionError(f"the verifier at {self.address} ended the stream before the text was finished")

    async def _generate(self, request: pb.GenerateRequest) -> AsyncIterator[pb.GenerateResponse]:
        try:
            async for response in self._stub.Generate(request):
                yield response
        except grpc.RpcError as error:
            raise error_of(error, self.address) from error
