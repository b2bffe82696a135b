"""The engine for a GPU: one fixed number of rows a step, so text in bfloat16 is the same whatever the drafts.

It implements what the verifier asks of an engine (``verifier_service/engine.py``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine.decoder_pass import DecoderPass, decoder_pass_for
from engine.engine_check import check_engine, plain_logits
from engine.fused_linear import fuse_projections
from engine.kv_memory import KVMemory
from engine.kv_pages import PagePool
from engine.model_runner import OutputProjection, StepShape, compile_layers
from engine.paged_attention import NAME, AttentionProbe, paged_attention
from engine.paged_slot import PagedSlot
from engine.product_tiles import fits
from engine.prompt_pass import run_prompts
from engine.rank_group import ALONE, Group
from engine.step_tables import PAGE, SequenceRows
from language_models.attention_registry import attention_for_now, use_attention
from language_models.tokenizer import TextTokenizer
from speculation.errors import LimitExceededError, UnsupportedModelError
from speculation.plural import count_of
from speculation.verification.step import Step

log = logging.getLogger(__name__)

#: Rows of every step: on an H200 they cost 4 to 6 % more than eight.
ROWS = 64
LEAST_ROWS = 16
#: Of smaller steps, where rows need not have the same bits in each.
FEWER_ROWS = (16, 32)
#: Rows of a pass over prompts. More would be no better use of an H200, whose products are as busy with these as they
#: can be, and would hold a step up for longer.
PREFILL_ROWS = 256
#: Of the memory that is free once the weights are loaded.
KV_SHARE = 0.85


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
    ``prefix_caching``: prompts that begin alike share what was computed for the beginning.
    ``exact``: every step has ``rows`` rows; else as few of ``FEWER_ROWS`` as suffice, on which a row's bits depend.
    ``group``: of the ranks that hold the model together, of whom each makes its engine; ``kv_bytes`` are those of each.
    Raises UnsupportedModelError for a model whose attention is not asked for by name, or has no kernel here; it is left
    as it was then. Raises ModelError if the engine computes anything else than the model did.
    """

    def __init__(
        self,
        model: Loaded,
        *,
        kv_bytes: int | None = None,
        rows: int = ROWS,
        max_sessions: int = 64,
        prefix_caching: bool = True,
        exact: bool = True,
        group: Group = ALONE,
    ) -> None:
        if rows < LEAST_ROWS:
            raise ValueError(f"{rows} rows a step are too few; {LEAST_ROWS} at least")
        module, self.group = model.module, group
        probe = _attention_of(model)
        shapes = probe.shapes
        projection = OutputProjection(_output_layer(model))
        expected = plain_logits(model)
        self.name = model.name
        self.tokenizer = model.tokenizer
        self.vocab_size = model.vocab_size
        self.context_length = model.context_length
        self.dtype_name = model.dtype_name
        self.device_name = str(model.device)
        self.parameter_bytes = model.parameter_bytes
        self.rows_per_step = rows
        self.draws_all_rows = model.device.type == "cuda"
        self.max_draft_tokens = rows - 1
        #: All of them, as every step has all of its rows, or might as well.
        self.free_draft_tokens = rows - 1
        dtype = next(module.parameters()).dtype
        self.page_bytes = KVMemory.page_bytes(shapes, dtype)
        pages_per_slot = -(-(model.context_length + rows) // PAGE)
        pages = self._pages(kv_bytes, most=max_sessions * pages_per_slot, device=model.device)
        self._fit_context(pages)
        slots = max_sessions + 1  # one more, for a session that has ended but is not closed yet
        self.pool = PagePool(pages)
        sizes = {"pages": pages, "slots": slots, "pages_per_slot": pages_per_slot}
        self.memory = KVMemory(shapes, **sizes, dtype=dtype, device=model.device, leading=self.group.leading)
        self._take_over(module, projection)
        self._slots = list(range(slots - 1, -1, -1))
        self.shares_prefixes = False  # in the check each text is to be computed
        #: Of all prompts so far: positions that were not run, as another prompt had begun alike.
        self.shared_positions = 0
        #: Those that were looked for.
        self.queried_positions = 0
        self._make_shapes(module, expected, exact=exact, decoder=self._decoder(module, probe))
        self.shares_prefixes = prefix_caching

    def _make_shapes(self, module: nn.Module, expected: Tensor, *, exact: bool, decoder: DecoderPass | None) -> None:
        """Of all passes, checked and ready. ``expected``: see ``check_engine``."""
        #: All of them, by the numbers that other ranks know them by.
        self.shapes: dict[int, StepShape] = {}
        try:
            self.step_shape = self._shape(module, self.rows_per_step, decoder=decoder)
            self.step_shapes = [self.step_shape]  # the smallest first
            self.prefill_rows = PREFILL_ROWS
            self.prefill_shape = self._shape(module, PREFILL_ROWS, prefill=True)
            check_engine(self, expected)
            if not exact:
                fewer = [few for few in FEWER_ROWS if few < self.rows_per_step]
                self.step_shapes[:0] = [self._shape(module, few, decoder=decoder) for few in fewer]
            self._prepare()
        except BaseException:
            self._close_shapes()
            raise

    def _shape(self, module: nn.Module, rows: int, **kind: Any) -> StepShape:
        number = len(self.shapes)
        made = self.shapes[number] = StepShape(module, self.memory, rows=rows, number=number, **kind)
        return made

    def _prepare(self) -> None:
        began = time.perf_counter()
        # That one rank finds no memory for a graph in the middle of a text would be the end of all.
        everything = self.group.size > 1
        graphs = sum(shape.prepare(everything=everything) for shape in self.shapes.values())
        log.info("%s: %s captured in %.1f s", self.name, count_of(graphs, "graph"), time.perf_counter() - began)

    def _take_over(self, module: Any, projection: OutputProjection) -> None:
        module.set_output_embeddings(projection)
        fuse_projections(module)
        use_attention(module, NAME, paged_attention)
        if self.memory.page_table.device.type == "cuda":
            compile_layers(module, self.memory.modules)

    def _decoder(self, module: nn.Module, probe: AttentionProbe) -> DecoderPass | None:
        """Where its kernels can be used: in 16 bits, on one of NVIDIA's GPUs that has the shared memory for them."""
        device = self.memory.page_table.device
        if device.type != "cuda" or torch.version.hip or self.dtype_name not in ("bfloat16", "float16"):
            return None
        if not self.group.all_agree(fits(self.rows_per_step, torch.cuda.get_device_capability(device))):
            log.info("%s: the kernels of known families do not fit %d rows on this GPU", self.name, self.rows_per_step)
            return None
        return decoder_pass_for(module, probe.settings, ranks=self.group.size)

    def _pages(self, kv_bytes: int | None, *, most: int, device: torch.device) -> int:
        """In all, the scratch page included. Without a budget: ``most`` of them, as far as there is memory."""
        if kv_bytes is None:
            kv_bytes = min(_free_bytes(device), most * self.page_bytes)
        return self.group.least(1 + kv_bytes // self.page_bytes)

    def _fit_context(self, pages: int) -> None:
        """A context that is longer than KV memory is cut to what that holds."""
        held = max((pages - 1) * PAGE - self.rows_per_step, 1)
        if held < self.context_length:
            self.context_length = held
            log.warning("%s serves contexts of %d tokens: KV memory holds no more", self.name, held)

    @property
    def kv_cache_bytes(self) -> int:
        """Of the pages that sessions hold; what is kept for prompts to come may be taken from it at any time."""
        return self.pool.held_pages * self.page_bytes

    @property
    def kv_pages(self) -> int:
        """In all, without the scratch page."""
        return self.pool.pages - 1

    @property
    def kv_pages_held(self) -> int:
        """By sessions."""
        return self.pool.held_pages

    def has_room(self, positions: int) -> bool:
        """Whether a session that may grow to so many tokens could begin now."""
        pages = -(-(positions + self.rows_per_step) // PAGE)
        return bool(self._slots) and pages <= self.pool.free_pages

    def begin(
        self, prompt_ids: Sequence[int], positions: int, *, written: Sequence[int] = (), salt: str = ""
    ) -> PagedSlot:
        """A slot with the pages for so many tokens, whose prompt is still to be prefilled, but for its last token.

        ``written``: what was kept after the prompt before, in steps; all but its last token is run again, in steps.
        ``salt``: with prompts of another one it shares nothing. Raises LimitExceededError if KV memory has no room.
        """
        return PagedSlot(self, prompt_ids, positions + self.rows_per_step, written=written, salt=salt)

    def open(self, prompt_ids: Sequence[int]) -> PagedSlot:
        """A slot, prefilled, that takes pages as it grows. Raises LimitExceededError if there are none."""
        slot = PagedSlot(self, prompt_ids)
        try:
            while slot.prefill_left:
                self.prefill([slot])
        except BaseException:
            slot.close()
            raise
        return slot

    def prefill(self, slots: Sequence[Any]) -> None:
        """A pass over what is left of their prompts, see ``run_prompts``. Raises LimitExceededError without memory."""
        run_prompts(slots)

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[Tensor]:
        """The rows of several slots in one pass, ``rows_per_step`` at most; logits [1 + candidates, V] of each, which
        stand until the next pass.

        In an exact engine a row's bits are the same whatever the other rows are. Raises LimitExceededError if KV memory
        has no room for all of them; then nothing was run.
        """
        return self.run([slot.rows(step) for slot, step in batch])

    def run(self, sequences: Sequence[SequenceRows]) -> list[Tensor]:
        """The same of rows that were laid out by their slots."""
        rows = [len(each.tokens) for each in sequences]
        return list(self.shape_for(sum(rows)).run(sequences)[: sum(rows)].split(rows))

    def shape_for(self, rows: int) -> StepShape:
        """The smallest step that has so many, or the largest of all."""
        return next((shape for shape in self.step_shapes if rows <= shape.tables.rows), self.step_shape)

    def close(self) -> None:
        """Let go of graphs and tables; nothing can be stepped any more."""
        self._close_shapes()
        self.group.close()

    def _close_shapes(self) -> None:
        for shape in self.shapes.values():
            shape.close()

    def take_slot(self) -> int:
        """A line of the page table. Raises LimitExceededError if none is left."""
        if not self._slots:
            raise LimitExceededError("as many sessions are open as the engine has room for", remedy="try again later")
        return self._slots.pop()

    def return_slot(self, slot: int) -> None:
        """The session that had it is closed."""
        self._slots.append(slot)


def _attention_of(model: Loaded) -> AttentionProbe:
    probe = AttentionProbe()
    with attention_for_now(model.module, f"{NAME}_probe", probe), torch.inference_mode():
        model.module(input_ids=torch.zeros((1, 2), dtype=torch.int64, device=model.device), use_cache=False)
    if not probe.shapes:
        raise UnsupportedModelError(f"{model.name} does not ask for its attention by name")
    return probe


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
