"""How near a step of the GPU engine comes to its floor: reading weights and keys once at the memory's own speed.

    python -m benchmarks.engine --model 8B --model 32B --context 512 --context 4096 --profile

Weights are random, in the shapes of known models; a step's time does not depend on them. Before anything is timed, the
logits of a chain must be equal to the bit to those of its tokens one by one, in a tree, beside other sessions, and
across a border of blocks.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from benchmarks.command import run_command
from engine.attention_items import ROOT
from engine.paged_engine import ROWS, PagedEngine
from engine.step_tables import SequenceRows

LLAMA = {
    "135M": (576, 1536, 30, 9, 3, 49_152, 64),
    "1.5B": (1536, 8960, 28, 12, 2, 151_936, 128),
    "8B": (4096, 14_336, 32, 32, 8, 128_256, 128),
    "32B": (5120, 27_648, 64, 40, 8, 152_064, 128),
}
#: Sequences and rows of each that are timed.
LOADS = ((1, 1), (1, 8), (1, 64), (8, 8), (16, 4))
REPEATS = 30


def config_of(name: str, context: int) -> PretrainedConfig:
    hidden, intermediate, layers, heads, kv_heads, vocab, head = LLAMA[name]
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        head_dim=head,
        max_position_embeddings=context,
    )


@dataclass
class RandomModel:
    """What the engine takes of a loaded model, without a tokenizer."""

    name: str
    module: Any
    context_length: int
    tokenizer: Any = None
    dtype_name: str = "bfloat16"

    def __post_init__(self) -> None:
        self.vocab_size: int = self.module.config.vocab_size
        self.device: torch.device = self.module.device
        self.parameter_bytes = sum(p.nbytes for p in self.module.parameters())


def random_model(name: str, context: int) -> RandomModel:
    config = config_of(name, context)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device="cuda").eval()
    generator = torch.Generator("cuda").manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0) if parameter.ndim == 1 else parameter.normal_(0, 0.02, generator=generator)
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to("cuda")  # its buffers are not parameters
    return RandomModel(name, model, context)


def bandwidth() -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source))


def seconds(work: Callable[[], object]) -> float:
    """Median of some runs, by the device's own clock."""
    work()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


class Bench:
    """One model in the engine, with sequences of random tokens."""

    def __init__(self, name: str, rows: int, contexts: list[int]) -> None:
        self.longest = max(contexts) + 512
        began = time.perf_counter()
        self.model = random_model(name, self.longest)
        sequences = max(count for count, _ in LOADS)
        config = self.model.module.config
        self.bytes_per_position = 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        embeddings = self.model.module.get_input_embeddings().weight.nbytes
        self.weight_bytes = self.model.parameter_bytes - embeddings  # of which a step reads some rows only
        self.kv_bytes = (sequences + 1) * (self.longest + rows) * self.bytes_per_position
        self.engine = PagedEngine(self.model, kv_bytes=self.kv_bytes, rows=rows)
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(0, self.model.vocab_size, (self.longest,), generator=generator).tolist()
        self.pages = []
        for slot in range(sequences):
            pages = self.engine.pool.allocate(-(-(self.longest + rows) // 16) - 1)
            self.engine.memory.set_pages(slot, pages)
            self.pages.append(pages)
        self.run([(0, 0, [(self.tokens[0], ROOT)])])
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        #: What the process holds besides: graphs, what they lend each other, tables.
        self.held_bytes = torch.cuda.memory_reserved() - self.model.parameter_bytes - self.kv_bytes
        self.build_seconds = time.perf_counter() - began

    def run(self, sequences: list[tuple[int, int, list[tuple[int, int]]]]) -> torch.Tensor:
        """Each (slot, base, [(token, parent)])."""
        return self.engine.step_shape.run(
            [
                SequenceRows(
                    slot=slot,
                    base=base,
                    tokens=[t for t, _ in rows],
                    parents=[p for _, p in rows],
                    pages=self.pages[slot],
                )
                for slot, base, rows in sequences
            ]
        )

    def chain(self, start: int, count: int) -> list[tuple[int, int]]:
        return [(token, index - 1) for index, token in enumerate(self.tokens[start : start + count])]

    def fill(self, slot: int, positions: int) -> None:
        rows = self.engine.step_shape.tables.rows
        for start in range(0, positions, rows):
            self.run([(slot, start, self.chain(start, min(rows, positions - start)))])

    def check_bits(self) -> dict[str, bool]:
        """Rows of a chain after 192 positions, against the same tokens in other company."""
        at, count = 192, 5
        for slot in range(5):
            self.fill(slot, at)
        chain = self.run([(0, at, self.chain(at, count))])[:count].clone()
        ones = torch.stack([self.run([(0, at + i, self.chain(at + i, 1))])[0].clone() for i in range(count)])
        found = {"one by one": torch.equal(chain, ones)}
        seq = self.tokens[at : at + count]
        branches = [(seq[0], -1), (5, 0), (seq[1], 0), (7, 1), (seq[2], 2), (9, 2), (seq[3], 4), (seq[4], 6)]
        if self.engine.step_shape.tables.rows >= 24:
            beside = [(slot, 60, [(3, ROOT), (4, 0), (8, 0)]) for slot in range(1, 5)]
            tree = self.run([*beside, (0, at, branches)])
            found["tree, others beside it"] = torch.equal(chain, tree[[12, 14, 16, 18, 19]])
        found["across blocks"] = torch.equal(
            chain, self.run([(0, at - 3, self.chain(at - 3, 3 + count))])[3 : 3 + count]
        )
        return found


def profile_of(work: Callable[[], object]) -> list[tuple[float, int, str]]:
    """(milliseconds a step, launches a step, kernel), the dearest first."""
    from torch.profiler import ProfilerActivity, profile

    repeats = 5
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
    events = sorted(profiled.key_averages(), key=lambda event: -event.device_time_total)
    return [(e.device_time_total / repeats / 1000, e.count // repeats, e.key[:100]) for e in events[:14]]


def main(
    model: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(LLAMA)}; may be repeated")] = None,
    context: Annotated[list[int] | None, typer.Option(help="Cached tokens; may be repeated")] = None,
    rows: Annotated[list[int] | None, typer.Option(help="Rows of every step; may be repeated")] = None,
    profile: Annotated[bool, typer.Option(help="Where a step's time goes, by kernel")] = False,
    output: Annotated[Path | None, typer.Option(help="JSON")] = None,
) -> None:
    """Measure."""
    contexts = context or [512, 4096]
    speed = bandwidth()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: copies at {speed / 1e9:,.0f} GB/s", flush=True)
    results: list[dict[str, Any]] = []
    for name in model or list(LLAMA):
        for count in rows or [ROWS]:
            bench = Bench(name, count, contexts)
            bits = bench.check_bits()
            print(
                f"{name}, {count} rows a step, built in {bench.build_seconds:.1f} s, "
                f"{bench.held_bytes / 2**20:,.0f} MiB beside weights and KV cache, same bits: {bits}",
                flush=True,
            )
            for cached in contexts:
                for sequences, each in LOADS:
                    if sequences * each > count:
                        continue
                    bench.run([(slot, cached, bench.chain(0, each)) for slot in range(sequences)])
                    graph = bench.engine.step_shape.graph
                    took = seconds(graph.replay)
                    floor = (bench.weight_bytes + sequences * cached * bench.bytes_per_position) / speed
                    line = {"model": name, "rows": count, "context": cached, "sequences": sequences, "each": each}
                    results.append({**line, "ms": took * 1000, "floor_ms": floor * 1000, "ratio": took / floor} | bits)
                    print(
                        f"  {cached:6,} cached, {sequences:2} x {each:2} rows: {took * 1000:6.2f} ms, "
                        f"{took / floor:5.2f} x floor",
                        flush=True,
                    )
            if profile:
                bench.run([(0, contexts[0], bench.chain(0, count))])
                for milliseconds, launches, kernel in profile_of(bench.engine.step_shape.graph.replay):
                    print(f"    {milliseconds:7.3f} ms {launches:4} x {kernel}", flush=True)
            bench.engine.close()
            del bench
            gc.collect()  # compiled layers refer to themselves
            torch.cuda.empty_cache()
    if output is not None:
        output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    run_command(main)
