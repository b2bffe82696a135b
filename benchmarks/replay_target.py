"""A target that says what a recording says, at any speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property

import torch

from benchmarks.recording import RecordedText
from language_models.config import ModelConfig
from language_models.tokenizer import TextTokenizer
from language_models.weights import resolve
from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.errors import InputError
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.protocol.tools import ToolFormat
from speculation.text.byte_vocab import ByteVocab
from verifier_service.engine import OneByOne, WholePrompt


def number_of(prompt: Prompt, texts: list[RecordedText]) -> int:
    """Which recorded text a prompt asks for. Raises InputError."""
    words = (prompt.text or "").strip()
    if not words.isdigit() or int(words) >= len(texts):
        raise InputError("prompt", words, f"is no number of a recorded text, 0..{len(texts) - 1}")
    return int(words)


class ReplayTokenizer:
    """The target's tokenizer, but a prompt is the number of a text, and stands for that text's own."""

    def __init__(self, tokenizer: TextTokenizer, texts: list[RecordedText]) -> None:
        self._tokenizer = tokenizer
        self._texts = texts

    @property
    def vocab(self) -> ByteVocab:
        return self._tokenizer.vocab

    @property
    def tool_format(self) -> ToolFormat | None:
        return self._tokenizer.tool_format

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        return self._texts[number_of(prompt, self._texts)].prompt_ids


class ReplayEngine(OneByOne):
    """``step``, ``step_per_token``: seconds of a verify step, and for each draft token in it."""

    name = "replay"
    context_length = 4096
    dtype_name = "float32"
    device_name = "cpu"
    parameter_bytes = 0
    kv_cache_bytes = 0
    free_draft_tokens = 0
    max_draft_tokens = SpeculationPlan.MAX_TOKENS

    def __init__(self, texts: list[RecordedText], target: str, *, step: float, step_per_token: float) -> None:
        self.texts = texts
        self._by_prompt = {tuple(text.prompt_ids): text for text in texts}
        self.step_seconds = step
        self.seconds_per_token = step_per_token
        files = resolve(target)
        self.vocab_size = ModelConfig.read(files).vocab_size
        self.tokenizer = ReplayTokenizer(TextTokenizer.from_pretrained(files, self.vocab_size), texts)

    @cached_property
    def end_id(self) -> int:
        return self.tokenizer.vocab.end_ids[0]

    def open(self, prompt_ids: Sequence[int]) -> ReplaySlot:
        return ReplaySlot(self, self._by_prompt[tuple(prompt_ids)])


class ReplaySlot(WholePrompt):
    """One session: knows how far it has come in its text."""

    def __init__(self, engine: ReplayEngine, text: RecordedText) -> None:
        self._engine = engine
        self._text = text
        self._length = 0  # tokens of the text that are committed

    def step(self, last: int, candidates: CandidateTree) -> torch.Tensor:
        due = time.perf_counter() + self._engine.step_seconds + self._engine.seconds_per_token * len(candidates)
        logits = torch.zeros(1 + len(candidates), self._engine.vocab_size)
        depths = {ROOT: 0}
        for node in range(ROOT, len(candidates)):
            if node != ROOT:
                depths[node] = depths[candidates.parents[node]] + 1
            # Where the candidates above it are right, the recorded text goes on; elsewhere the row is never used.
            at = self._length + depths[node]
            logits[1 + node, self._text.token_ids[at] if at < len(self._text.token_ids) else self._engine.end_id] = 1.0
        time.sleep(max(0.0, due - time.perf_counter()))
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        self._length += len(rows)

    def close(self) -> None:
        pass
