"""A target and its drafters in the caller's own process: no socket, no other process. For notebooks and tests.

async with Dragoman(target="qwen2.5-coder-1.5b", drafters=["smollm2-135m"]) as model:
    print((await model.complete("def add(a, b):", max_tokens=32)).text)

They share the machine, so they take turns. Where each has a machine of its own, run them as services.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Self

from dragoman.taking_turns import TAKING_TURNS
from dragoman.text_client import TextClient
from dragoman.transcript import Transcript
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import SessionError
from speculation.protocol.completion import Completion
from speculation.protocol.messages import SpeculationPlan
from speculation.protocol.status import VerifierStatus

if TYPE_CHECKING:
    from drafter_service.draft_source import Drafter
    from verifier_service.engine import Engine
    from verifier_service.verifier import Verifier

#: Texts written at once, and drafted for.
SESSIONS: Final = 64


class Dragoman(TextClient):
    """Models are loaded on entering the context.

    target: the name of an embedded model, a folder, a GGUF file, or an engine of one's own. drafters: the same, or
    ``"lookup"``, or drafters of one's own; none: the target alone. plan: how far to speculate. device, dtype, threads:
    as ``dragoman verifier`` and ``dragoman drafter`` take them. Raises InputError or ModelError on entering.
    """

    def __init__(
        self,
        target: str | Engine,
        drafters: Sequence[str | Drafter] = (),
        *,
        plan: SpeculationPlan = TAKING_TURNS,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._target = target
        self._drafters = tuple(drafters)
        self._plan = plan
        self._device = device
        self._dtype = dtype
        self._threads = threads
        self._open = contextlib.AsyncExitStack()
        self._verifier: Verifier | None = None

    async def __aenter__(self) -> Self:
        from verifier_service.verifier import Verifier

        async with contextlib.AsyncExitStack() as stack:
            engine = await asyncio.to_thread(self._engine)
            self._verifier = Verifier(engine, plan=self._plan, adaptive=False, max_sessions=SESSIONS)
            stack.callback(self._verifier.shutdown)
            for drafter in self._drafters:
                await stack.enter_async_context(
                    _assisting(self._verifier, await asyncio.to_thread(self._load, drafter))
                )
            self._open = stack.pop_all()
        return self

    async def close(self) -> None:
        """End what runs and free the models."""
        self._verifier = None
        await self._open.aclose()

    async def describe(self) -> VerifierStatus:
        """The target, its drafters and its load."""
        return self._opened().describe()

    async def _write(self, transcript: Transcript) -> Completion:
        async with contextlib.aclosing(self._opened().generate(transcript.next_request())) as events:
            async for event in events:
                if transcript.take(event):
                    return transcript.completion
        raise SessionError("the session ended before the text was finished")

    def _opened(self) -> Verifier:
        if self._verifier is None:
            raise SessionError("the models are not loaded", remedy="use `async with Dragoman(...) as model:`")
        return self._verifier

    def _engine(self) -> Engine:
        if not isinstance(self._target, str):
            return self._target
        from language_models.causal_lm import CausalLM
        from verifier_service.engine_choice import engine_for
        from verifier_service.settings import check_target_dtype

        check_target_dtype(self._dtype)
        return engine_for(CausalLM.load(self._target, device=self._device, dtype=self._dtype, threads=self._threads))

    def _load(self, drafter: str | Drafter) -> Drafter:
        if not isinstance(drafter, str):
            return drafter
        from drafter_service.loading import load_drafter

        return load_drafter(drafter, device=self._device, threads=self._threads, max_sessions=SESSIONS)


@contextlib.asynccontextmanager
async def _assisting(verifier: Verifier, drafter: Drafter) -> AsyncIterator[None]:
    """The drafter drafts for the verifier as over a stream, message by message."""
    from drafter_service.hello import hello_of
    from drafter_service.verifier_link import VerifierLink

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drafter")
    seconds_per_token = await asyncio.get_running_loop().run_in_executor(thread, drafter.measure)
    roster, sessions = verifier.roster, verifier.max_sessions
    theirs = roster.attach(hello_of(drafter, drafter.model_name, sessions, seconds_per_token))
    requests: asyncio.Queue[pb.AssistRequest] = asyncio.Queue()
    ours = VerifierLink(drafter=drafter, outbox=requests, thread=thread, seconds_per_token=seconds_per_token)

    async def down() -> None:
        while messages := await theirs.outbox.next_messages():
            for message in messages:
                ours.receive(message)

    async def up() -> None:
        while True:
            roster.receive(theirs, await requests.get())

    tasks = [asyncio.create_task(work) for work in (down(), up(), ours.work(), roster.keep_measuring(theirs))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        roster.detach(theirs)
        await ours.close()
        thread.shutdown(wait=False)
