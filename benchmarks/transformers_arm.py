"""Hugging Face transformers on the same weights: plain ``generate`` and assisted generation across vocabularies.

Assisted generation with two tokenizers is the library's own form of speculative decoding for different vocabularies
(https://huggingface.co/docs/transformers/generation_strategies, "Universal assisted decoding").
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation import BaseStreamer

from dragoman import RemoteDrafting
from language_models.quiet import quiet
from language_models.tokenizer import TextTokenizer
from language_models.weights import resolve
from speculation.protocol.messages import Prompt


@dataclass(frozen=True, slots=True)
class Answer:
    """Text and seconds of one request, prefill included. ``ttft``: seconds to the first tokens, ``first_tokens`` many;
    ``written``: all tokens, the end token included."""

    data: bytes
    token_ids: list[int]
    seconds: float
    ttft: float
    first_tokens: int
    written: int

    @property
    def tpot(self) -> float | None:
        """Seconds per token after the first that came, as ``Completion.tpot``."""
        later = self.written - self.first_tokens
        return (self.seconds - self.ttft) / later if later > 0 else None


class FirstTokens(BaseStreamer):
    """Notes when the first tokens come: transformers gives it the prompt first, then what each step wrote."""

    def __init__(self) -> None:
        self._puts = 0
        self.at = 0.0
        self.count = 0

    def put(self, value: torch.Tensor) -> None:
        """The prompt, or tokens [n]."""
        if self._puts == 1:
            self.at, self.count = time.perf_counter(), value.numel()
        self._puts += 1

    def end(self) -> None:
        """Nothing is left to do."""


class TransformersPair:
    """Target and assistant with the library's defaults, both on ``device``. ``threads``: 0 leaves them as they are."""

    def __init__(
        self,
        target: str,
        assistant: str,
        *,
        threads: int,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        target_files, assistant_files = resolve(target), resolve(assistant)
        with quiet():
            self._target = AutoModelForCausalLM.from_pretrained(target_files.source, dtype=dtype).eval().to(device)
            self._assistant = (
                AutoModelForCausalLM.from_pretrained(assistant_files.source, dtype=dtype).eval().to(device)
            )
            self._tokenizer = AutoTokenizer.from_pretrained(target_files.source)
            self._assistant_tokenizer = AutoTokenizer.from_pretrained(assistant_files.source)
        self._prompts = TextTokenizer.from_pretrained(target_files, self._target.config.vocab_size)

    def remote_drafting(self, **options: Any) -> RemoteDrafting:
        """For the target, with these options of ``RemoteDrafting``."""
        return RemoteDrafting(self._target, self._tokenizer, **options)

    @torch.inference_mode()
    def generate(
        self, prompt: Prompt, *, max_tokens: int, assisted: bool = False, drafting: RemoteDrafting | None = None
    ) -> Answer:
        """``assisted``: with the assistant model. ``drafting``: with remote drafters."""
        ids = self._ids(self._prompts.prompt_ids(prompt))
        first = FirstTokens()
        started = time.perf_counter()
        with quiet():
            output = self._target.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                do_sample=False,
                repetition_penalty=1.0,  # the model's own file sets another
                streamer=first,
                custom_generate=drafting,
                **(self._assistance() if assisted else {}),
            )
        seconds = time.perf_counter() - started
        written = output[0, ids.shape[1] :].tolist()
        end_ids = self._prompts.vocab.end_ids
        token_ids = [token for token in written if token not in end_ids]
        return Answer(
            self._prompts.vocab.text(token_ids),
            token_ids,
            seconds=seconds,
            ttft=first.at - started,
            first_tokens=first.count,
            written=len(written),
        )

    def _ids(self, ids: list[int]) -> torch.Tensor:
        """[1, n], where the target is."""
        return torch.tensor([ids], device=self._target.device)

    def _assistance(self) -> dict[str, Any]:
        sizes = {model.config.get_text_config().vocab_size for model in (self._target, self._assistant)}
        if len(sizes) == 1:  # transformers takes that for one vocabulary, and refuses tokenizers then
            return {"assistant_model": self._assistant}
        return {
            "assistant_model": self._assistant,
            "tokenizer": self._tokenizer,
            "assistant_tokenizer": self._assistant_tokenizer,
        }

    @torch.inference_mode()
    def sample(
        self,
        prompt: Prompt,
        *,
        tokens: int,
        temperature: float,
        top_k: int,
        seed: int,
        assisted: bool = False,
        drafting: RemoteDrafting | None = None,
    ) -> tuple[int, ...]:
        """The first ``tokens`` ids of a sampled answer that is a few tokens longer; ``assisted``, ``drafting``: as of
        ``generate``."""
        ids = self._ids(self._prompts.prompt_ids(prompt))
        torch.manual_seed(seed)
        with quiet():
            output = self._target.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens + 3,  # room for drafts: the last token is never drafted
                do_sample=True,
                temperature=temperature,
                top_k=top_k,
                top_p=1.0,
                repetition_penalty=1.0,
                **(self._assistance() if assisted else {}),
                **({"custom_generate": drafting, "seed": seed} if drafting is not None else {}),
            )
        return tuple(output[0, ids.shape[1] :][:tokens].tolist())

    @torch.inference_mode()
    def probabilities(
        self, prompt: Prompt, *, tokens: int, temperature: float, top_k: int
    ) -> dict[tuple[int, ...], float]:
        """The target's own distribution of the first ``tokens`` ids, by plain forward passes."""
        start = self._prompts.prompt_ids(prompt)
        sequences: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(tokens):
            longer: dict[tuple[int, ...], float] = {}
            for ids, share in sequences.items():
                logits = self._target(self._ids([*start, *ids])).logits[0, -1].double()
                top = torch.topk(logits / temperature, top_k)
                for token, p in zip(top.indices.tolist(), torch.softmax(top.values, 0).tolist(), strict=True):
                    longer[*ids, token] = share * p
            sequences = longer
        return sequences
