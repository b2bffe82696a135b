"""Acceptance per token of a pair: how often the drafter's next token is the target's, on the target's own text.

At every token boundary of a text that the target samples, the drafter, standing at the same text, drafts one token;
it counts if its bytes are those of the token that the target drew. Beside the rules stands the bound
sum_v min(p(v), q(v)) over tokens of equal bytes, which rejection sampling with the full q would reach.

    python -m benchmarks.acceptance --target qwen2.5-coder-1.5b --drafter smollm2-135m --temperature 1
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.command import run_command
from benchmarks.prompts import load_prompts
from drafter_service.linear_draft import LinearDraft
from drafter_service.model_draft_source import ModelDraftSource
from drafter_service.model_drafter import ModelDrafter
from language_models.causal_lm import CausalLM
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.text.byte_vocab import intersection

#: Those that verify by agreement; ``benchmarks.rules`` measures all.
RULES = (Rule.RACE, Rule.EXACT)


class Tally:
    """Counts over all positions."""

    def __init__(self) -> None:
        self.positions = 0
        self.accepted = dict.fromkeys(RULES, 0)
        self.bound = 0.0

    def rates(self) -> dict[str, float]:
        shares = {rule.value: count / self.positions for rule, count in self.accepted.items()}
        return {"positions": self.positions, **shares, "bound": self.bound / self.positions}


class Pair:
    """Target and drafter, and which of their tokens are equal in bytes."""

    def __init__(self, target: CausalLM, drafter: CausalLM) -> None:
        self.target = target
        self.drafter = ModelDrafter(drafter)
        self.noise = RaceNoise(target.tokenizer.vocab)
        common = intersection(target.tokenizer.vocab, drafter.tokenizer.vocab)
        pairs = [*common, (target.tokenizer.vocab.end_ids[0], drafter.tokenizer.vocab.end_ids[0])]
        self.ids = torch.tensor(pairs).T

    @torch.inference_mode()
    def measure(self, prompt: Prompt, sampling: SamplingParams, tokens: int, tally: Tally) -> None:
        """Sample a text of the target and compare position by position, all rules on the same text."""
        vocab = self.target.tokenizer.vocab
        ids = self.target.tokenizer.prompt_ids(prompt)
        sampler = TokenSampler(sampling, vocab, self.noise, prompt_ids=ids)
        sources = {
            rule: ModelDraftSource(
                self.drafter.kept,
                self.drafter.noise,
                SessionOffer(
                    session="bench",
                    prompt=prompt,
                    sampling=sampling,
                    rule=rule,
                    committed=b"",
                    zero_width=0,
                    plan=SpeculationPlan(),
                ),
            )
            for rule in RULES
        }
        drafts = {rule: LinearDraft(source) for rule, source in sources.items()}
        cache = self.target.new_cache()
        self.target.prefill(ids[:-1], cache)
        last = ids[-1]
        for _ in range(tokens):
            logits = self.target.forward([last], cache)[-1]
            tally.positions += 1
            tally.bound += self._bound(sampler, sources[Rule.RACE], logits)
            keep, zero_width = sampler.offset, sampler.zero_width
            last = sampler.draw(logits)
            sampler.advance(last)
            is_end, text = last in vocab.end_ids, vocab.bytes_of(last)
            for rule, draft in drafts.items():
                token = draft.next_token(zero_width=zero_width)
                tally.accepted[rule] += token.ends if is_end else token.text == text != b""
                draft.correct(keep, text)
            if is_end:
                break

    def _bound(self, sampler: TokenSampler, source: ModelDraftSource, logits: torch.Tensor) -> float:
        p = sampler.log_probs(logits).exp()[self.ids[0]]
        q = source.log_probs().exp()[self.ids[1]]
        return float(torch.minimum(p, q).sum())


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    temperature: float = 1.0,
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 12,
    tokens: int = 64,
    drafter_dtype: str = "bfloat16",
    threads: int = 2,
) -> None:
    """Acceptance per token under each rule, and the bound."""
    console = Console(stderr=True)
    pair = Pair(CausalLM.load(target, threads=threads), CausalLM.load(drafter, threads=threads, dtype=drafter_dtype))
    tally = Tally()
    for number, prompt in enumerate(load_prompts(prompts, limit=limit, task=task)):
        pair.measure(prompt, SamplingParams(temperature=temperature, seed=number), tokens, tally)
        console.print(f"{number + 1}: {tally.rates()}")
    print(json.dumps({"target": target, "drafter": drafter, "temperature": temperature, **tally.rates()}))


if __name__ == "__main__":
    run_command(main)
