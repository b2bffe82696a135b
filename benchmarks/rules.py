"""Every verification rule on a real pair: acceptance per token with its bounds, tokens per step, bytes per token.

Acceptance per token is an expectation, not a count, wherever a formula gives it. At each position of a text that the
target samples, both models stand at the same text, with distributions p and q after all settings:

    rejection          sum_t min(p(t), q_K(t)), q_K as it would be sent: common tokens, top K, rounded
    its bound          sum_t min(p(t), q(t)) with q over all common tokens
    string-rejection   sum_t min(p(t), psi(t)), psi as it would be sent
    exact              sum_t p(t) q(t) over tokens of equal bytes
    race               the share of SEEDS races in which both draw the same bytes
    bound of a race    (1 - TV) / (1 + TV), TV = 1 - sum_t min(p(t), q(t)) over tokens of equal bytes, q not restricted:
                       what no coupling without communication can promise to beat (Daliri et al. 2024)

Then the pair runs as two processes that take turns, and each rule answers the same prompts: tokens per verify step and
bytes on the wire per committed token, both ways.

    python -m benchmarks.rules --target qwen2.5-coder-1.5b --drafter smollm2-135m --temperature 0 --temperature 1
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.prompts import load_prompts
from drafter_service.model_drafter import ModelDrafter
from drafter_service.proposing_source import ProposingSource
from dragoman.client import Client
from dragoman.processes import child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from language_models.causal_lm import CausalLM
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.protocol.proposal import propose
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.text.byte_vocab import intersection
from speculation.text.vocab_table import table_of

#: Races drawn at each position.
SEEDS = 8
#: Both sides wait for each other, however long it takes on this machine: what counts here is not time.
PATIENCE = "--patience=10000"
#: Tokens that are not counted, at the start of the two processes.
SETTLING_TOKENS = 64
BOUND, RACE_BOUND = "bound", "bound of a race"
COLUMNS = (*(rule.value for rule in Rule.concrete()), BOUND, RACE_BOUND)


class Pair:
    """Both models in this process."""

    def __init__(self, target: CausalLM, drafter: CausalLM) -> None:
        self.target = target
        self.drafter = ModelDrafter(drafter)
        vocab = target.tokenizer.vocab
        self.noise = RaceNoise(vocab)
        if vocab.content_hash != self.drafter.vocab_hash:
            self.drafter.learn_vocabulary(vocab.content_hash, table_of(vocab))
        common = intersection(vocab, drafter.tokenizer.vocab)
        ends = (vocab.end_ids[0], drafter.tokenizer.vocab.end_ids[0])
        self.common = torch.tensor([*common, ends]).T

    def row(
        self, temperature: float, prompts: list[Prompt], *, tokens: int, top_k: int, console: Console
    ) -> dict[str, float]:
        """Acceptance per token by every rule, and the bounds, over texts of one temperature."""
        sums: dict[str, float] = defaultdict(float)
        for number, prompt in enumerate(prompts):
            self.measure(prompt, SamplingParams(temperature=temperature, seed=number), tokens, top_k, sums)
            shares = {name: sums[name] / sums["positions"] for name in COLUMNS}
            console.print(f"temperature {temperature:g}, {number + 1} prompts: {shares}", highlight=False)
        return {"temperature": temperature, "positions": sums["positions"], **shares}

    @torch.inference_mode()
    def measure(
        self, prompt: Prompt, sampling: SamplingParams, tokens: int, top_k: int, sums: dict[str, float]
    ) -> None:
        """Sum up the chances of every position of a text of the target."""
        vocab = self.target.tokenizer.vocab
        ids = self.target.tokenizer.prompt_ids(prompt)
        sampler = TokenSampler(sampling, vocab, self.noise, prompt_ids=ids)
        sources = {rule: self._open(rule, prompt, sampling, top_k) for rule in Rule.concrete() if rule.proposes}
        cache = self.target.new_cache()
        self.target.prefill(ids[:-1], cache)
        last = ids[-1]
        for _ in range(tokens):
            logits = self.target.forward([last], cache)[-1]
            sums["positions"] += 1
            p = sampler.probabilities(logits)
            for rule, source in sources.items():
                sums[rule.value] += self._accepted(p, source)
            self._without_exchange(p, sources[Rule.REJECTION], sampler, sums)
            keep = sampler.offset
            last = sampler.draw(logits)
            sampler.advance(last)
            if last in vocab.end_ids:
                break
            for source in sources.values():
                source.move((), keep, vocab.bytes_of(last))

    def _open(self, rule: Rule, prompt: Prompt, sampling: SamplingParams, top_k: int) -> ProposingSource:
        plan = SpeculationPlan(top_k=top_k if rule is Rule.REJECTION else 0)
        vocab_hash = self.target.tokenizer.vocab.content_hash
        source = self.drafter.open(
            SessionOffer(
                session="bench",
                prompt=prompt,
                sampling=sampling,
                rule=rule,
                committed=b"",
                zero_width=0,
                plan=plan,
                number=1,
                vocab_hash=vocab_hash,
            )
        )
        assert isinstance(source, ProposingSource)
        return source

    def _accepted(self, p: torch.Tensor, source: ProposingSource) -> float:
        proposal = propose(source.distribution(), 0)
        if proposal is None:
            return 0.0
        q = torch.tensor(proposal.weights, dtype=torch.float64) / proposal.total
        return float(torch.minimum(p[list(proposal.ids)], q).sum())

    def _without_exchange(
        self, p: torch.Tensor, source: ProposingSource, sampler: TokenSampler, sums: dict[str, float]
    ) -> None:
        """The rules whose drafter draws from all of its own tokens, and the bounds."""
        q = source.probabilities()
        p_common, q_common = p[self.common[0]], q[self.common[1]]
        overlap = float(torch.minimum(p_common, q_common).sum())
        restricted = source.probabilities(common=True)
        meant = self.drafter.targets.get(self.target.tokenizer.vocab.content_hash).alignment.target_ids
        known = meant >= 0
        bound = torch.zeros_like(p).index_add_(0, meant[known], restricted[known])
        sums[BOUND] += float(torch.minimum(p, bound).sum())
        sums[RACE_BOUND] += overlap / (2 - overlap)
        sums[Rule.EXACT.value] += float((p_common * q_common).sum())
        sums[Rule.RACE.value] += self._races(p, q, sampler)

    def _races(self, p: torch.Tensor, q: torch.Tensor, sampler: TokenSampler) -> float:
        ours, theirs = self.target.tokenizer.vocab, self.drafter.model.tokenizer.vocab
        agreed = 0
        for seed in range(SEEDS):
            drawn = []
            for shares, noise in ((p, self.noise), (q, self.drafter.noise)):
                support = shares.nonzero().squeeze(-1)
                gumbel = noise.gumbel(seed, sampler.offset, sampler.zero_width, stream="bench", ids=support)
                drawn.append(int(support[(shares[support].log() + gumbel).argmax()]))
            ended = drawn[0] in ours.end_ids, drawn[1] in theirs.end_ids
            text = ours.bytes_of(drawn[0])
            agreed += all(ended) if any(ended) else text == theirs.bytes_of(drawn[1]) != b""
        return agreed / SEEDS


async def answer(
    target: str, drafter: str, prompts: list[Prompt], temperatures: list[float], *, tokens: int, top_k: int, dtype: str
) -> dict[str, dict[str, float]]:
    """Tokens per step and bytes per token of each rule at each temperature, from two processes."""
    found: dict[str, dict[str, float]] = {}
    options = [f"--model={target}", "--listen=127.0.0.1:0", f"--draft-top-k={top_k}", *TAKING_TURNS_OPTIONS, PATIENCE]
    async with contextlib.AsyncExitStack() as stack:
        verifier = await stack.enter_async_context(child("verifier", ["verifier", *options]))
        address = (await verifier.ready())["address"]
        arguments = ["drafter", f"--model={drafter}", f"--verifier={address}", "--threads=1", f"--dtype={dtype}"]
        process = await stack.enter_async_context(child("drafter", arguments))
        await process.ready()
        client = await stack.enter_async_context(Client(address))
        # Until the drafter has the target's vocabulary nothing comes from it, and for a while steps do not wait for it.
        await client.complete(prompts[0], max_tokens=SETTLING_TOKENS, rule=Rule.REJECTION)
        for temperature in temperatures:
            for rule in Rule.concrete():
                sums: dict[str, float] = defaultdict(float)
                for seed, prompt in enumerate(prompts):
                    sampling = SamplingParams(temperature=temperature, seed=seed)
                    done = await client.complete(prompt, sampling=sampling, max_tokens=tokens, rule=rule)
                    stats = done.stats
                    sums["tokens"] += done.completion_tokens
                    sums["steps"] += stats.steps
                    sums["bytes"] += stats.bytes_up + stats.bytes_down
                found[f"{rule.value} {temperature:g}"] = {
                    "tokens_per_step": sums["tokens"] / sums["steps"],
                    "bytes_per_token": sums["bytes"] / sums["tokens"],
                }
    return found


def show(rows: list[dict[str, Any]], sessions: dict[str, dict[str, float]], console: Console, title: str) -> None:
    table = Table("temperature", *COLUMNS, title=f"{title}: acceptance per token")
    for row in rows:
        table.add_row(f"{row['temperature']:g}", *(f"{row[name]:.3f}" for name in COLUMNS))
    if rows:
        console.print(table)
    table = Table("rule, temperature", "tokens per step", "bytes per token")
    for name, row in sessions.items():
        table.add_row(name, f"{row['tokens_per_step']:.2f}", f"{row['bytes_per_token']:.0f}")
    if sessions:
        console.print(table)


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    temperature: Annotated[list[float] | None, typer.Option(help="May be repeated  [default: 0, 0.7, 1]")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 4,
    tokens: int = 48,
    top_k: Annotated[int, typer.Option(help="Of rejection; 0 is its default")] = 0,
    positions: Annotated[bool, typer.Option(help="Measure acceptance per token")] = True,
    sessions: Annotated[bool, typer.Option(help="Run the pair as two processes")] = True,
    drafter_dtype: str = "bfloat16",
    threads: int = 2,
) -> None:
    """Acceptance per token under every rule, with the bounds; tokens per step and bytes per token."""
    console = Console(stderr=True)
    temperatures = temperature or [0.0, 0.7, 1.0]
    asked = load_prompts(prompts, limit=limit, task=task)
    rows = []
    if positions:
        models = (CausalLM.load(target, threads=threads), CausalLM.load(drafter, threads=threads, dtype=drafter_dtype))
        pair = Pair(*models)
        rows = [pair.row(degrees, asked, tokens=tokens, top_k=top_k, console=console) for degrees in temperatures]
        del pair, models
    answered = {}
    if sessions:
        work = answer(target, drafter, asked, temperatures, tokens=tokens, top_k=top_k, dtype=drafter_dtype)
        answered = asyncio.run(work)
    show(rows, answered, console, f"{drafter} -> {target}")
    print(json.dumps({"target": target, "drafter": drafter, "acceptance": rows, "sessions": answered}))


if __name__ == "__main__":
    run_command(main)
