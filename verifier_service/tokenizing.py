"""The target's tokenizer for whoever asks, beside the texts that are being written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import LimitExceededError
from speculation.protocol.messages import Prompt
from speculation.protocol.tokenizing import pieces_of
from transport.tokenizing_codec import detokenize_response_to_wire, tokenize_response_to_wire
from verifier_service.engine import Tokenizer
from verifier_service.quotas import Quota

_T = TypeVar("_T")


class Tokenizing:
    """Answers in a thread of its own, one question at a time, to the message that goes out: a prompt of some megabytes
    takes seconds, in which the event loop has texts to pass on and the processors have forward passes to run.

    Whoever leaves before his turn is forgotten. A question that is being answered is answered to its end, and holds the
    turn until then. ``refused``: told of every refusal.
    """

    #: Questions that may wait, each with a prompt.
    WAITING: Final = 64

    def __init__(self, tokenizer: Tokenizer, *, refused: Callable[[Quota], None] = lambda quota: None) -> None:
        self._tokenizer = tokenizer
        self._refused = refused
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizing")
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def tokenize(self, prompt: Prompt) -> pb.TokenizeResponse:
        """The ids of a prompt as a session would have them. Raises InputError, and LimitExceededError if too many
        wait."""
        return await self._answer(lambda: tokenize_response_to_wire(prompt, self._tokenizer.prompt_ids(prompt)))

    async def detokenize(self, token_ids: Sequence[int]) -> pb.DetokenizeResponse:
        """What each token stands for. Raises InputError for an id that the model does not have, and LimitExceededError
        if too many wait."""
        return await self._answer(lambda: detokenize_response_to_wire(pieces_of(self._tokenizer.vocab, token_ids)))

    async def _answer(self, work: Callable[[], _T]) -> _T:
        if self._waiting >= self.WAITING:
            self._refused(Quota.TOKENIZING)
            problem = f"{self._waiting} questions about tokens wait already, the most that may here"
            raise LimitExceededError(problem, remedy="ask again later")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            working = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except BaseException:
            self._turn.release()
            raise
        working.add_done_callback(self._done)
        # No cancel reaches the thread: whoever is next would only seem to have it.
        return await asyncio.shield(working)

    def _done(self, working: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not working.cancelled():
            working.exception()  # whoever asked may have left

    def shutdown(self) -> None:
        """End the thread, once what it does is done."""
        self._thread.shutdown(wait=False)
