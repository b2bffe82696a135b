"""An Engine and a Drafter over the tiny exact models of tests/support/text_models.py, for tests of the services.

The sockets, the streams, the threads and the sessions are the real ones; only the model is a formula.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import torch

from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.errors import LimitExceededError, SessionError, UnsupportedFieldError
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.protocol.tools import ToolFormat
from speculation.verification.step import Step
from tests.support.text_models import DRAFTER_VOCAB, TARGET_VOCAB, TextModel, TextModelSource, longest_words
from verifier_service.engine import OneByOne, WholePrompt


class TextTokenizer:
    """Of the target: the longest words of its vocabulary."""

    vocab = TARGET_VOCAB
    tool_format: ToolFormat | None = ToolFormat.HERMES

    def encode(self, text: str) -> list[int]:
        """Ordinary text."""
        return longest_words(self.vocab)(text)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Raw text, or a transcript of tools and messages."""
        if prompt.text is not None:
            return self._raw(prompt.text, special=prompt.special_tokens)
        if prompt.tools and self.tool_format is None:
            raise UnsupportedFieldError("tools", None, "the model's chat template has no tools")
        lines = [f"{tool.name}: {tool.description} {tool.parameters}" for tool in prompt.tools]
        for m in prompt.messages:
            calls = "".join(f" {call.id} {call.name} {call.arguments}" for call in m.tool_calls)
            lines.append(f"{m.role}: {m.tool_call_id}{m.content}{calls}")
        return self.encode("".join(f"{line}\n" for line in lines))

    def _raw(self, text: str, *, special: bool) -> list[int]:
        for token, name in self.vocab.special.items() if special else ():
            before, found, behind = text.partition(name)
            if found:
                return [*self._raw(before, special=True), token, *self._raw(behind, special=True)]
        return self.encode(text)


class TextSlot(WholePrompt):
    """Holds the ids as a KV cache would, and counts what is open."""

    def __init__(self, engine: TextEngine, prompt_ids: Sequence[int]) -> None:
        self._engine = engine
        self._ids = list(prompt_ids[:-1])
        self._last_of_prompt = prompt_ids[-1]
        self._prompt_length = len(prompt_ids)
        engine.opened.add(self)

    def step(self, last: int, candidates: CandidateTree) -> torch.Tensor:
        """Logits after the last token, and after each candidate."""
        return self._engine.step([(self, Step(last, candidates))])[0]

    def logits(self, last: int, candidates: CandidateTree) -> torch.Tensor:
        """Of the rows of a step."""
        assert self in self._engine.opened
        paths = [candidates.path(node) for node in range(ROOT, len(candidates))]
        self._rows = [[last, *(candidates.tokens[node] for node in path)] for path in paths]
        return torch.stack([self._engine.model.logits((self._ids + row)[self._prompt_length :]) for row in self._rows])

    def keep(self, rows: Sequence[int]) -> None:
        """These rows of the step are text now."""
        self._ids += self._rows[rows[-1]]

    def go_on(self, written: Sequence[int]) -> None:
        """As if so many tokens after the prompt had been kept, but the last."""
        if written:
            self._ids += [self._last_of_prompt, *written[:-1]]

    def hold(self, rows: int) -> None:
        """Room for so many more ids than it has."""
        missing = len(self._ids) + rows - self._engine.held.get(self, 0)
        if missing > 0 and self in self._engine.held:
            if not self._engine.has_room(missing):
                raise LimitExceededError("the KV cache has no room", remedy="wait")
            self._engine.held[self] += missing

    def close(self) -> None:
        """Frees what it holds; twice is once."""
        self._engine.opened.discard(self)
        self._engine.held.pop(self, None)

    @property
    def ids(self) -> int:
        """How many it holds."""
        return len(self._ids)


class Gate(threading.Event):
    """``holds``: whether somebody waits at it."""

    holds = False

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is open."""
        if not self.is_set():
            self.holds = True
            super().wait(timeout)
            self.holds = False
        return True


class TextEngine(OneByOne):
    """``gate`` cleared holds every step back. ``rows``: of a step that several sessions share; None: none do."""

    name = "text-target"
    tokenizer = TextTokenizer()
    vocab_size = TARGET_VOCAB.size
    context_length = 2048
    dtype_name = "float32"
    device_name = "cpu"
    parameter_bytes = 0
    free_draft_tokens = 0
    max_draft_tokens = SpeculationPlan.MAX_TOKENS

    def __init__(
        self, *, salt: int = 1, step_seconds: float = 0.0, rows: int | None = None, room: int | None = None
    ) -> None:
        self.room = room  # positions of KV memory; None: any number
        self.held: dict[TextSlot, int] = {}
        self.rows_per_step = rows
        self.draws_all_rows = rows is not None
        self.batches: list[int] = []  # rows of every step
        if rows is not None:
            self.max_draft_tokens = rows - 1
        self.model = TextModel(TARGET_VOCAB, salt)
        self.step_seconds = step_seconds
        self.opened: set[TextSlot] = set()
        self.gate = Gate()
        self.gate.set()

    @property
    def open_slots(self) -> int:
        """Not closed yet."""
        return len(self.opened)

    @property
    def kv_cache_bytes(self) -> int:
        """As if each id of an open slot held 64 bytes."""
        return sum(64 * slot.ids for slot in list(self.opened))

    @property
    def kv_pages(self) -> int:
        """As if each position were a page."""
        return self.room or 0

    @property
    def kv_pages_held(self) -> int:
        """Of the slots that were begun with room for some."""
        return sum(list(self.held.values()))

    def has_room(self, positions: int) -> bool:
        """Beside what others hold."""
        return self.room is None or sum(self.held.values()) + positions <= self.room

    def begin(
        self, prompt_ids: Sequence[int], positions: int, *, written: Sequence[int] = (), salt: str = ""
    ) -> TextSlot:
        """A slot that holds so many positions."""
        assert self.has_room(positions)
        slot = self.open(prompt_ids)
        slot.go_on(written)
        self.held[slot] = positions
        return slot

    def open(self, prompt_ids: Sequence[int]) -> TextSlot:
        """A slot for a text after this prompt."""
        return TextSlot(self, prompt_ids)

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[torch.Tensor]:
        """As long as one step, for however many slots."""
        self.gate.wait()
        time.sleep(self.step_seconds)
        self.batches.append(sum(1 + len(step.candidates) for _, step in batch))
        assert self.rows_per_step is None or self.batches[-1] <= self.rows_per_step
        return [slot.logits(step.last, step.candidates) for slot, step in batch]


class TextDrafter:
    """``refuse`` makes it decline every session."""

    model_name = "text-drafter"
    vocab_size = DRAFTER_VOCAB.size
    vocab_hash = DRAFTER_VOCAB.content_hash

    def __init__(self, *, salt: int = 2, refuse: bool = False) -> None:
        self.model = TextModel(DRAFTER_VOCAB, salt)
        self.refuse = refuse

    def open(self, offer: SessionOffer) -> TextModelSource:
        """A source for the session, or SessionError if it is to ``refuse``."""
        if self.refuse:
            raise SessionError("this drafter refuses")
        return TextModelSource(self.model, offer)

    def measure(self) -> float:
        """Seconds per token: none."""
        return 0.0
