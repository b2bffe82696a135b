"""The engine for a GPU: one fixed number of rows a step, so text in bfloat16 is the same whatever the drafts.

It implements what the verifier asks of an engine (``verifier_service/engine.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine.engine_check import check_engine, plain_logits
from engine.fused_linear import fuse_projections
from engine.kv_memory import KVMemory
from engine.kv_pages import PagePool
from engine.model_runner import OutputProjection, StepShape, compile_layers
from engine.paged_attention import NAME, AttentionProbe, paged_attention
from engine.step_tables import PAGE, ROOT, SequenceRows
from language_models.attention_registry import attention_for_now, use_attention
from language_models.tokenizer import TextTokenizer
from speculation.drafts.candidates import CandidateTree
from speculation.errors import LimitExceededError, UnsupportedModelError
from speculation.verification.step import Step

log = logging.getLogger(__name__)

#: Rows of every step: on an H200 they cost 4 to 6 % more than eight.
ROWS = 64
LEAST_ROWS = 16
#: Rows of a prefill pass. A prompt is cut at multiples of it, so that equal prompts have equal bits.
PREFILL_ROWS = 512
#: Of the memory that is free once the weights are loaded.
KV_SHARE = 0.85


class PagedSlot:
    """One session's pages and the length of what they hold."""

    def __init__(self, engine: PagedEngine, prompt_ids: Sequence[int], positions: int = 0) -> None:
        self._engine = engine
        self._slot = engine.take_slot()
        self._pages: list[int] = []
        self._length = 0
        self._prompt = tuple(prompt_ids[:-1])
        try:
            self._reach(positions)
        except BaseException:
            self.close()
            raise

    def prefill(self) -> bool:
        """Run the next chunk of the prompt, whether more of it is left. Raises LimitExceededError without KV memory."""
        left = len(self._prompt) - self._length
        if left > 0:
            shape = self._engine.prefill_shape if left >= PREFILL_ROWS else self._engine.step_shape
            chunk = self._prompt[self._length : self._length + shape.tables.rows]
            self._reach(self._length + len(chunk))
            shape.run(self._chains(chunk))
            self._length += len(chunk)
        return self._length < len(self._prompt)

    def step(self, last: int, candidates: CandidateTree) -> Tensor:
        """Run ``last`` after what the pages hold, and each candidate after its ancestors: logits [1 + n, V] float32."""
        return self._engine.step([(self, Step(last, candidates))])[0].clone()

    def rows(self, step: Step) -> SequenceRows:
        """Of a step, with room for their keys. Raises LimitExceededError if KV memory has none."""
        tokens = (step.last, *step.candidates.tokens)
        self._reach(self._length + len(tokens))
        parents = (ROOT, *(parent + 1 for parent in step.candidates.parents))
        return SequenceRows(slot=self._slot, base=self._length, tokens=tokens, parents=parents, pages=self._pages)

    def keep(self, rows: Sequence[int]) -> None:
        """Of what the last step added, keep these rows in this order."""
        moved = [(row, at) for at, row in enumerate(rows) if row != at]
        if moved:
            sources, targets = zip(*moved, strict=True)
            self._engine.memory.move([self._place(r) for r in sources], [self._place(at) for at in targets])
        self._length += len(rows)

    def close(self) -> None:
        """Free the pages. Idempotent."""
        if self._slot >= 0:
            self._engine.pool.free(self._pages)
            self._engine.return_slot(self._slot)
        self._pages, self._slot = [], -1

    @property
    def kv_cache_bytes(self) -> int:
        """Of the pages that it holds."""
        return len(self._pages) * self._engine.page_bytes

    def _place(self, row: int) -> int:
        position = self._length + row
        return self._pages[position // PAGE] * PAGE + position % PAGE

    def _reach(self, positions: int) -> None:
        missing = -(-positions // PAGE) - len(self._pages)
        if missing > 0:
            self._pages += self._engine.pool.allocate(missing)
            self._engine.memory.set_pages(self._slot, self._pages)

    def _chains(self, tokens: Sequence[int]) -> list[SequenceRows]:
        """A chunk as one chain for each tile: keys are written before any is read, so later tiles see the earlier."""
        height = self._engine.step_shape.tables.height
        return [
            SequenceRows(
                slot=self._slot,
                base=self._length + at,
                tokens=part,
                parents=range(ROOT, len(part) - 1),
                pages=self._pages,
            )
            for at in range(0, len(tokens), height)
            for part in [tokens[at : at + height]]
        ]


class Loaded(Protocol):
    """What the engine takes of a loaded model."""

    name: str
    tokenizer: TextTokenizer
    vocab_size: int
    context_length: int
    dtype_name: str
    device: torch.device
    parameter_bytes: int

    @property
    def module(self) -> Any: ...


class PagedEngine:
    """A model, taken over: its own forward passes must not be used any more.

    ``kv_bytes``: memory for keys and values; None: what ``max_sessions`` whole contexts take, as far as it is free.
    Raises UnsupportedModelError for a model whose attention is not asked for by name, or has no kernel here; it is left
    as it was then. Raises ModelError if the engine computes anything else than the model did.
    """

    def __init__(self, model: Loaded, *, kv_bytes: int | None = None, rows: int = ROWS, max_sessions: int = 64) -> None:
        if rows < LEAST_ROWS:
            raise ValueError(f"{rows} rows a step are too few; {LEAST_ROWS} at least")
        module = model.module
        shapes = _attention_shapes(model)
        projection = OutputProjection(_output_layer(model))
        expected = plain_logits(model)
        self.name = model.name
        self.tokenizer = model.tokenizer
        self.vocab_size = model.vocab_size
        #: Of a model whose context is longer than KV memory, what that holds.
        self.context_length = model.context_length
        self.dtype_name = model.dtype_name
        self.device_name = str(model.device)
        self.parameter_bytes = model.parameter_bytes
        self.rows_per_step = rows
        self.draws_all_rows = model.device.type == "cuda"
        self.max_draft_tokens = rows - 1
        #: All of them, as every step has all of its rows.
        self.free_draft_tokens = rows - 1
        dtype = next(module.parameters()).dtype
        pages_per_slot = -(-(model.context_length + rows) // PAGE)
        self.page_bytes = KVMemory.page_bytes(shapes, dtype)
        if kv_bytes is None:
            kv_bytes = min(_free_bytes(model.device), max_sessions * pages_per_slot * self.page_bytes)
        pages = 1 + kv_bytes // self.page_bytes
        self.context_length = max(min(model.context_length, (pages - 1) * PAGE - rows), 1)
        if self.context_length < model.context_length:
            log.warning("%s serves contexts of %d tokens: KV memory holds no more", self.name, self.context_length)
        slots = max_sessions + 1  # one more, for a session that has ended but is not closed yet
        self.pool = PagePool(pages)
        self.memory = KVMemory(
            shapes, pages=pages, slots=slots, pages_per_slot=pages_per_slot, dtype=dtype, device=model.device
        )
        module.set_output_embeddings(projection)
        fuse_projections(module)
        use_attention(module, NAME, paged_attention)
        if model.device.type == "cuda":
            compile_layers(module, self.memory.modules)
        self.step_shape = StepShape(module, self.memory, rows=rows, slots=slots)
        self.prefill_shape = StepShape(module, self.memory, rows=PREFILL_ROWS, slots=slots, all_logits=False)
        self._slots = list(range(slots - 1, -1, -1))
        check_engine(self, expected)

    def has_room(self, positions: int) -> bool:
        """Whether a session that may grow to so many tokens could begin now."""
        pages = -(-(positions + self.rows_per_step) // PAGE)
        return bool(self._slots) and pages <= self.pool.free_pages

    def begin(self, prompt_ids: Sequence[int], positions: int) -> PagedSlot:
        """A slot with the pages for so many tokens, whose prompt is still to be prefilled, but for its last token.

        Raises LimitExceededError if KV memory has no room for it.
        """
        return PagedSlot(self, prompt_ids, positions + self.rows_per_step)

    def open(self, prompt_ids: Sequence[int]) -> PagedSlot:
        """A slot, prefilled, that takes pages as it grows. Raises LimitExceededError if there are none."""
        slot = PagedSlot(self, prompt_ids)
        try:
            while slot.prefill():
                pass
        except BaseException:
            slot.close()
            raise
        return slot

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[Tensor]:
        """The rows of several slots in one pass, ``rows_per_step`` at most; logits [1 + candidates, V] of each, which
        stand until the next pass.

        A row's bits are the same whatever the other rows are. Raises LimitExceededError if KV memory has no room for
        all of them; then nothing was run.
        """
        sequences = [slot.rows(step) for slot, step in batch]
        logits = self.step_shape.run(sequences)
        return list(logits[: sum(map(_rows, batch))].split([_rows(each) for each in batch]))

    def close(self) -> None:
        """Let go of graphs and tables; nothing can be stepped any more."""
        self.step_shape.close()
        self.prefill_shape.close()

    def take_slot(self) -> int:
        """A line of the page table. Raises LimitExceededError if none is left."""
        if not self._slots:
            raise LimitExceededError("as many sessions are open as the engine has room for", remedy="try again later")
        return self._slots.pop()

    def return_slot(self, slot: int) -> None:
        """The session that had it is closed."""
        self._slots.append(slot)


def _rows(each: tuple[Any, Step]) -> int:
    return 1 + len(each[1].candidates)


def _attention_shapes(model: Loaded) -> dict[nn.Module, tuple[int, int, int]]:
    probe = AttentionProbe()
    with attention_for_now(model.module, f"{NAME}_probe", probe), torch.inference_mode():
        model.module(input_ids=torch.zeros((1, 2), dtype=torch.int64, device=model.device), use_cache=False)
    if not probe.shapes:
        raise UnsupportedModelError(f"{model.name} does not ask for its attention by name")
    return probe.shapes


def _output_layer(model: Loaded) -> nn.Linear:
    head = model.module.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UnsupportedModelError(f"{model.name} has no linear output projection")
    return head


def _free_bytes(device: torch.device) -> int:
    """For keys and values: most of what is left of the device's memory, the rest being for the passes themselves."""
    if device.type != "cuda":
        return 1 << 28
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * KV_SHARE)
