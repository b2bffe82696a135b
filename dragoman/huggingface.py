"""Remote drafters for a model of Hugging Face transformers that the program holds already.

with RemoteDrafting(model, tokenizer, listen="127.0.0.1:50061") as drafting:
    model.generate(**inputs, custom_generate=drafting, max_new_tokens=128)

Drafters dial in as to a verifier, whatever their vocabulary; the text is what ``generate`` writes without them. Whether
drafters are there, and how many, changes nothing but the speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dragoman.drafted_text import DraftedText
from dragoman.drafter_port import ended, serving_drafters
from dragoman.loop_thread import LoopThread
from dragoman.running_texts import RunningTexts
from speculation.errors import ConnectionFailedError, DrainingError, InputError, SessionError
from speculation.planning.plan import START
from speculation.plural import count_of
from speculation.protocol.generation import Chunk, GenerationEvent, GenerationRequest
from speculation.protocol.messages import ChatMessage, Prompt, SpeculationPlan
from speculation.sampling.params import Rule
from transport.address import Address
from transport.security import Security

if TYPE_CHECKING:
    from language_models.generate_call import GenerateCall
    from verifier_service.verifier import Verifier

log = logging.getLogger(__name__)
#: Of a turn.
_FIELDS = ("role", "content")
#: Between two looks whether a drafter has come, in seconds.
_LOOKS = 0.02


class RemoteDrafting:
    """What ``model.generate(custom_generate=...)`` takes. Use as a context manager: on entering, the model is tried,
    and the port that drafters dial is there.

    model, tokenizer: of transformers, loaded; a decoder-only language model. listen: address for drafters; port 0 takes
    a free one. coordinator: of a fleet, which then sends drafters, and no clients; it knows this target as ``name`` at
    ``advertise`` (default: ``listen``). plan: how far to speculate; None: adapted to what is measured. lookup: beside
    the drafters, look up in prompt and text how it goes on. security: None: as the environment says.

    Several threads may call ``generate`` with one of these. Raises on entering: InputError for a value that cannot be
    used, UnsupportedModelError for a model whose text could depend on drafts, ConnectionFailedError if the port is
    taken.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        listen: str = "127.0.0.1:50061",
        *,
        coordinator: str | None = None,
        name: str | None = None,
        advertise: str | None = None,
        plan: SpeculationPlan | None = None,
        lookup: bool = True,
        security: Security | None = None,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._listen, self._coordinator, self._name, self._advertise = listen, coordinator, name, advertise
        self._plan, self._lookup, self._security = plan, lookup, security
        self._stack = contextlib.ExitStack()
        self._loop: LoopThread | None = None
        self._verifier: Verifier | None = None
        self._texts = RunningTexts()
        self._address: Address | None = None
        #: Of the text that was written last.
        self.last = DraftedText()

    def __enter__(self) -> Self:
        if self._verifier is not None:
            raise SessionError("it is open already", remedy="open another RemoteDrafting, or close this one")
        from dragoman.serving import fleet_membership, listen_address
        from transport.channels import check_dialling
        from transport.servers import check_bindable

        security = self._security or Security.from_environment()
        address = listen_address(self._listen, security)
        membership = fleet_membership(self._coordinator, self._name, address, self._advertise)
        if membership is not None:
            check_dialling(membership.coordinator, security, who="coordinator")
        check_bindable(address)
        from language_models.loaded_model import opened
        from verifier_service.transformers_engine import TransformersEngine
        from verifier_service.verifier import Verifier

        with contextlib.ExitStack() as stack:
            engine = TransformersEngine(stack.enter_context(opened(self._model, self._tokenizer)), shares=False)
            self._loop = LoopThread()
            stack.callback(self._loop.close)
            make = functools.partial(
                Verifier,
                engine,
                plan=self._plan or START,
                adaptive=self._plan is None,
                lookup=self._lookup,
                local_only=True,
            )
            port = serving_drafters(self._loop, make, address, membership=membership, security=security)
            verifier, self._address = stack.enter_context(port)
            self._texts = RunningTexts()
            stack.callback(self._end_texts, self._loop, verifier)
            self._verifier = verifier
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the port and end what runs, with a SessionError in its threads; the model is as it was. Idempotent."""
        self._verifier = None
        self._stack.close()

    def _end_texts(self, loop: LoopThread, verifier: Verifier) -> None:
        self._texts.refuse()
        loop.run(verifier.stop_serving(0.0))
        self._texts.wait()

    @property
    def address(self) -> str:
        """Where drafters dial in: host:port."""
        self._opened()
        return str(self._address)

    @property
    def drafters(self) -> tuple[str, ...]:
        """Names of those that are connected."""
        return tuple(drafter.name for drafter in self._opened().describe().drafters)

    def wait_for_drafters(self, count: int = 1, *, seconds: float = 60.0) -> None:
        """Until so many are connected. Nothing needs it but a measurement.

        Raises ConnectionFailedError if they have not come in time.
        """
        deadline = time.monotonic() + seconds
        while (there := len(self.drafters)) < count:
            if time.monotonic() > deadline:
                came = f"{there} of {count_of(count, 'drafter has', 'drafters have')}"
                raise ConnectionFailedError(
                    f"{came} dialled {self.address} in {seconds:g} s",
                    remedy=f"start one: dragoman drafter --model smollm2-135m --verifier {self.address}",
                )
            time.sleep(_LOOKS)

    def __call__(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        *,
        streamer: Any = None,
        seed: int | None = None,
        messages: Sequence[Mapping[str, str]] = (),
        template_kwargs: Mapping[str, Any] | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """What ``generate`` calls in the place of its loop; it returns what this does.

        Three arguments more may be given to ``generate``: ``seed`` of the draws (default: what ``torch.manual_seed``
        decides), ``messages``, the conversation ({role, content}) that the prompt was made of, for drafters to read by
        their own templates, and ``template_kwargs``, what its template was told beside them. Raises InputError for what
        cannot be drafted for.
        """
        from language_models.generate_call import GenerateCall, Unhanded

        verifier, frame = self._opened(), inspect.currentframe()
        self._check_model(model)
        call = GenerateCall(
            input_ids,
            processors=logits_processor,
            criteria=stopping_criteria,
            config=generation_config,
            unhanded=Unhanded.of(frame.f_back if frame is not None else None).or_streamer(streamer),
            model_kwargs=model_kwargs,
        )
        vocab = verifier.engine.tokenizer.vocab
        request = GenerationRequest(
            prompt=_told(messages, vocab.text(call.prompt_ids), template_kwargs or {}),
            sampling=call.settings(seed),
            max_tokens=call.max_tokens,
            rule=Rule.RACE,
            ignore_end=not call.ends_with(vocab.end_ids),
            tell_steps=True,
        )
        with self._texts.one():
            try:
                self._write(call, request, verifier)
            except DrainingError as error:
                raise SessionError("it was closed while the text was written") from error
        return call.result()

    # ---- one text -----------------------------------------------------------------------------------------------

    def _check_model(self, model: Any) -> None:
        if model is not self._model:
            problem = "is not the one that this was opened for"
            raise InputError("model", type(model).__name__, problem, remedy="open a RemoteDrafting for each model")
        if model.training:
            problem = "is in training mode: it drops out at random"
            raise InputError("model", type(model).__name__, problem, remedy="call model.eval()")

    def _write(self, call: GenerateCall, request: GenerationRequest, verifier: Verifier) -> None:
        done, whole = DraftedText(), False
        with self._events(call, request, verifier) as events:
            for event in events:
                if isinstance(event, Chunk) and event.token_ids:
                    whole = call.take(event.token_ids)
                    done.count(event, call.written)
                    if whole:
                        break
        self.last = done
        if not whole:
            call.check()
            log.warning("the text ends after %d tokens, where the model's context does", call.written)

    @contextlib.contextmanager
    def _events(
        self, call: GenerateCall, request: GenerationRequest, verifier: Verifier
    ) -> Iterator[Iterator[GenerationEvent]]:
        """As they come. Who leaves early ends the session."""
        assert self._loop is not None
        loop, events = self._loop, queue.SimpleQueue[GenerationEvent | None]()
        writing = loop.run(_begin(call, request, verifier, events.put))
        try:
            yield iter(events.get, None)
            if writing.done():
                loop.run(_outcome(writing))
        finally:
            loop.run(ended(writing))

    def _opened(self) -> Verifier:
        if self._verifier is None:
            raise SessionError(
                "no drafter can dial in: it is not open", remedy="use `with RemoteDrafting(...) as drafting:`"
            )
        return self._verifier


def _told(messages: Sequence[Mapping[str, str]], prompt: bytes, template_kwargs: Mapping[str, Any]) -> Prompt:
    """The prompt as drafters are told it: the conversation, or the prompt's text."""
    if not messages:
        return Prompt(text=prompt.decode(errors="replace") or "\n")
    for message in messages:
        if not isinstance(message, Mapping) or not all(isinstance(message.get(name), str) for name in _FIELDS):
            raise InputError("messages", message, "is no turn of a conversation", remedy='give {"role", "content"}')
    turns = tuple(ChatMessage(message["role"], message["content"]) for message in messages)
    return Prompt(messages=turns, template_kwargs=json.dumps(template_kwargs))


async def _begin(
    call: GenerateCall,
    request: GenerationRequest,
    verifier: Verifier,
    put: Callable[[GenerationEvent | None], None],
) -> asyncio.Task[None]:
    from verifier_service.local_text import LocalText

    local = LocalText(call.prompt_ids, call.process)

    async def write() -> None:
        async with contextlib.aclosing(verifier.generate(request, local)) as events:
            async for event in events:
                put(event)

    task = asyncio.create_task(write())
    task.add_done_callback(lambda _: put(None))
    return task


async def _outcome(writing: asyncio.Task[None]) -> None:
    await writing
