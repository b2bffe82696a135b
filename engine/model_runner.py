"""One forward pass over a step's rows: a transformers model over paged keys and values, compiled, as a CUDA graph.

Every pass has one of few shapes: so many rows, and so much work for the attention kernel. Of a matrix product only the
number of rows is a shape, and a product of one shape gives a row the same bits whatever the other rows hold (measured
on an H200; between shapes they differ). So all steps of one number of rows give a row the same bits; how much work
attention has changes none, see ``engine/tree_attention.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine import paged_attention
from engine.decoder_pass import DecoderPass
from engine.instructions import Pass
from engine.kv_memory import KVMemory
from engine.step_kinds import StepKind
from engine.step_tables import SequenceRows, StepTables
from engine.wide_product import wide_product
from speculation.errors import UnsupportedModelError

log = logging.getLogger(__name__)

#: Compiled forms of one layer's code in a process.
RECOMPILE_LIMIT = 64
#: Bytes that attention's partial results may take in a graph that is captured beforehand.
PREPARED_BYTES = 1 << 29


class OutputProjection(nn.Module):
    """Logits in float32 from weights of 16 bits: rounded to 16 bits, many would tie."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        if layer.bias is not None:
            raise UnsupportedModelError("an output projection with a bias has no kernel here")
        self.weight: nn.Parameter = layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return wide_product(x, self.weight)


class StepShape:
    """Steps of ``rows`` rows. ``prefill``: chunks of a prompt, whose logits nobody reads. ``decoder``: the pass that is
    taken instead of the model's own. ``number``: by which other ranks know it.
    """

    def __init__(
        self,
        model: nn.Module,
        memory: KVMemory,
        *,
        rows: int,
        number: int = 0,
        prefill: bool = False,
        decoder: DecoderPass | None = None,
    ) -> None:
        table, group = memory.page_table, memory.group
        with torch.cuda.device_of(table):
            self.tables = StepTables(rows=rows, page_table=table, group=group, kv_heads=memory.kv_heads)
        self._tables_number = paged_attention.register_tables(self.tables)
        self.number = number
        self._model = model
        self.decoder = decoder
        self._memory = memory
        self._keep: dict[str, int] = {"logits_to_keep": 1} if prefill else {}
        self._graphs: dict[StepKind, torch.cuda.CUDAGraph] = {}
        self._compiled: set[tuple[int, bool]] = set()
        self._logits: Tensor | None = None

    def close(self) -> None:
        self._graphs.clear()
        paged_attention.forget_tables(self._tables_number)

    @torch.inference_mode()
    def run(self, sequences: Sequence[SequenceRows]) -> Tensor:
        """Logits [rows, V] float32 of the sequences' rows in their order; they stand until the next run."""
        # Streams, graphs and kernels belong to the thread's current device, which need not be the model's.
        with torch.cuda.device_of(self.tables.page_table):
            self._memory.apply_pending()
            self.tables.load(sequences)
            with self._memory.leading(Pass(self.number, tuple(sequences))):
                return self._run()

    def _run(self) -> Tensor:
        """The step that was laid out."""
        if self.tables.page_table.device.type != "cuda":
            return self._forward()
        if self.tables.kind not in self._graphs:
            log.debug("a graph of %s is captured while a step waits", self.tables.kind)
            self._capture()
        self.graph.replay()
        assert self._logits is not None, "every capture has them"
        return self._logits

    @torch.inference_mode()
    def prepare(self, *, everything: bool = False) -> int:
        """Compile, and capture the graphs of steps that may come, so that none waits for it; how many there are.

        Those of contexts so long that their partial results take much memory are left until one comes, but for
        ``everything``.
        """
        with torch.cuda.device_of(self.tables.page_table):
            if self.tables.page_table.device.type == "cuda":
                most = PREPARED_BYTES // (self.tables.rows * self._memory.partial_bytes)
                most = self.tables.most_splits if everything else most
                for kind in self.tables.kinds(most_splits=most):
                    if kind not in self._graphs:
                        self.tables.load_nothing(kind)
                        self._capture()
        return len(self._graphs)

    @property
    def graph(self) -> torch.cuda.CUDAGraph:
        """That of the last run."""
        return self._graphs[self.tables.kind]

    def _forward(self) -> Tensor:
        tables = self.tables
        if self.decoder is not None:
            return self.decoder(tables)
        for module in self._memory.modules:
            setattr(module, "kv_tables", self._tables_number)  # noqa: B010
            setattr(module, "kv_write", tables.write)  # noqa: B010
        output = self._model(
            input_ids=tables.tokens[None], position_ids=tables.row_position[None], use_cache=False, **self._keep
        )
        return output.logits[0]

    def _capture(self) -> None:
        """Of the step that was laid out."""
        kind = self.tables.kind
        self._compile(kind)
        assert self._logits is not None
        graph = torch.cuda.CUDAGraph()
        # PyTorch's own choice is a stream of the device of the first capture in this process, which need not be this
        # one. Another thread, a drafter's say, may go on with its own work meanwhile.
        memory = self._memory
        with torch.cuda.graph(
            graph, pool=memory.graph_pool, stream=memory.capture_stream, capture_error_mode="thread_local"
        ):
            # To one place in all of them, or each would keep memory for its own.
            self._logits.copy_(self._forward())
        self._graphs[kind] = graph

    def _compile(self, kind: StepKind) -> None:
        """What is compiled or chosen at a first call must not be part of a graph."""
        if (needed := (kind.queries, kind.grouped)) in self._compiled:
            return
        stream = self._memory.capture_stream
        assert stream is not None, "nothing is compiled for a CPU"
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                logits = self._forward()
            if self._logits is None:
                self._logits = torch.empty_like(logits)
        torch.cuda.current_stream().wait_stream(stream)
        self._compiled.add(needed)


def compile_layers(model: nn.Module, attending: Sequence[nn.Module]) -> None:
    """Let torch.compile fuse what stands between the matrix products of each decoder layer.

    Layers differ in their weights only, so one compiled layer serves all.
    """
    # A layer's code is compiled once for each number of rows and kind of layer, by all engines of the process, a
    # drafter's too; at the limit of 8 a step would fail.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    for block in model.modules():
        if isinstance(block, nn.ModuleList) and len(block) == len(attending):
            owners = [sum(module in attending for module in layer.modules()) for layer in block]
            if owners == [1] * len(block):
                for layer in block:
                    layer.forward = torch.compile(layer.forward, fullgraph=True, dynamic=False)
                return
    log.warning("the decoder layers of %s were not found: they run uncompiled", type(model).__name__)
