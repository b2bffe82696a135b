"""A target and a drafter that say what a recording says, at any speed one likes: fast machines that one does not have.

Real processes, sockets and sessions; only the two forward passes are replaced by waiting. One prompt per recorded
text: its number. Greedy only.

    python -m benchmarks.replay verifier --recording recording.json --step 0.025 --step-per-token 0.0002
    python -m benchmarks.replay drafter --recording recording.json --token 0.003 --verifier 127.0.0.1:50061
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.recording import RecordedText, load
from drafter_service import draft_source
from dragoman.serve import serve_drafter, serve_verifier
from language_models.config import ModelConfig
from language_models.tokenizer import TextTokenizer
from language_models.weights import resolve
from protos.transport import Address
from speculation.byte_vocab import ByteVocab
from speculation.drafter_session import DraftToken
from speculation.errors import InputError
from speculation.messages import Prompt, SessionOffer, SpeculationPlan


def number_of(prompt: Prompt, texts: list[RecordedText]) -> int:
    """Which recorded text a prompt asks for. Raises InputError."""
    words = (prompt.text or "").strip()
    if not words.isdigit() or int(words) >= len(texts):
        raise InputError("prompt", words, f"is no number of a recorded text, 0..{len(texts) - 1}")
    return int(words)


class ReplayTokenizer:
    """The target's tokenizer, but a prompt is the number of a text."""

    def __init__(self, tokenizer: TextTokenizer, texts: list[RecordedText]) -> None:
        self._tokenizer = tokenizer
        self._texts = texts

    @property
    def vocab(self) -> ByteVocab:
        return self._tokenizer.vocab

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        return [number_of(prompt, self._texts)]


class ReplayEngine:
    """``step``, ``step_per_token``: seconds of a verify step, and for each draft token in it."""

    name = "replay"
    context_length = 4096
    dtype_name = "float32"
    device_name = "cpu"
    parameter_bytes = 0

    def __init__(self, texts: list[RecordedText], target: str, *, step: float, step_per_token: float) -> None:
        self.texts = texts
        self.step_seconds = step
        self.seconds_per_token = step_per_token
        files = resolve(target)
        self.vocab_size = ModelConfig.read(files).vocab_size
        self.tokenizer = ReplayTokenizer(TextTokenizer.from_pretrained(files, self.vocab_size), texts)

    @cached_property
    def end_id(self) -> int:
        return self.tokenizer.vocab.end_ids[0]

    def open(self, prompt_ids: Sequence[int]) -> ReplaySlot:
        return ReplaySlot(self, self.texts[prompt_ids[0]])


class ReplaySlot:
    """One session: knows how far it has come in its text."""

    kv_cache_bytes = 0

    def __init__(self, engine: ReplayEngine, text: RecordedText) -> None:
        self._engine = engine
        self._text = text
        self._length = 0  # tokens in the "cache"; the first is the prompt

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        due = time.perf_counter() + self._engine.step_seconds + self._engine.seconds_per_token * (len(tokens) - 1)
        logits = torch.zeros(len(tokens), self._engine.vocab_size)
        for row in range(len(tokens)):
            # Where the candidates before it are right, row by row the recorded text; elsewhere it is never used.
            at = self._length + row
            logits[row, self._text.token_ids[at] if at < len(self._text.token_ids) else self._engine.end_id] = 1.0
        self._length += len(tokens)
        time.sleep(max(0.0, due - time.perf_counter()))
        return logits

    def rollback(self, tokens: int) -> None:
        self._length -= tokens

    def close(self) -> None:
        pass


class ReplayDrafter:
    """``token``: seconds per batch of draft tokens; ``row``: what each further row of the batch adds, as a share."""

    model_name = "replay"
    vocab_size = 0
    vocab_hash = ""

    def __init__(self, texts: list[RecordedText], *, token: float, row: float) -> None:
        self.texts = texts
        self.token_seconds = token
        self.row_share = row

    def open(self, offer: SessionOffer) -> ReplayDraftSource:
        return ReplayDraftSource(self, self.texts[number_of(offer.prompt, self.texts)], offer.committed)

    def measure(self) -> float:
        return self.token_seconds


class ReplayDraftSource:
    """Drafts what the recorded drafter said after the same text; nothing where it was never asked."""

    def __init__(self, drafter: ReplayDrafter, recorded: RecordedText, committed: bytes) -> None:
        self._drafter = drafter
        self._drafts: dict[bytes, list[list[tuple[str, float]]]] = {}
        text = b""
        for token, draft in zip(recorded.tokens, recorded.drafts, strict=True):
            self._drafts[text] = draft
            text += token.encode("latin-1")
        self._text = committed
        self._words: list[bytes] = []

    def move(self, path: draft_source.Path, keep: int, text: bytes | None) -> None:
        self._text = self._at(path)
        if text is not None:
            self._text = self._text[:keep] + text

    def expand(self, paths: Sequence[draft_source.Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        time.sleep(self._drafter.token_seconds * (1 + self._drafter.row_share * (len(paths) - 1)))
        return [self._choices(path)[:choices] for path in paths]

    def _choices(self, path: draft_source.Path) -> list[DraftToken]:
        # The longest known text that this place continues with tokens drafted from there.
        for back in range(len(path) + 1):
            known = self._drafts.get(self._at(path[: len(path) - back]))
            if known is None:
                continue
            tail = [self._words[handle].decode("latin-1") for handle in path[len(path) - back :]]
            if len(known) > back and [draft[0][0] for draft in known[:back]] == tail:
                return [self._draft_token(text, probability) for text, probability in known[back]]
        return [DraftToken(b"", stops=True)]

    def _draft_token(self, text: str, probability: float) -> DraftToken:
        self._words.append(text.encode("latin-1"))
        return DraftToken(self._words[-1], probability, stops=not text, token=len(self._words) - 1)

    def _at(self, path: draft_source.Path) -> bytes:
        return self._text + b"".join(self._words[handle] for handle in path)

    def close(self) -> None:
        self._drafts.clear()


class WrongDrafter:
    """Is sure of itself and never right, for any target."""

    model_name = "wrong"
    vocab_size = 0
    vocab_hash = ""

    def __init__(self, *, token: float, row: float) -> None:
        self.token_seconds = token
        self.row_share = row

    def open(self, offer: SessionOffer) -> WrongDraftSource:
        return WrongDraftSource(self)

    def measure(self) -> float:
        return self.token_seconds


class WrongDraftSource:
    """Drafts one word that no one says."""

    def __init__(self, drafter: WrongDrafter) -> None:
        self._drafter = drafter

    def move(self, path: draft_source.Path, keep: int, text: bytes | None) -> None:
        pass

    def expand(self, paths: Sequence[draft_source.Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        time.sleep(self._drafter.token_seconds * (1 + self._drafter.row_share * (len(paths) - 1)))
        return [[DraftToken(b"\x00wrong", 0.99)] for _ in paths]

    def close(self) -> None:
        pass


app = typer.Typer(add_completion=False)
Recording = Annotated[Path, typer.Option(help="Made by benchmarks.recording")]


@app.command()
def verifier(
    recording: Recording,
    target: str = "qwen2.5-coder-1.5b",
    step: float = 0.025,
    step_per_token: float = 0.0002,
    listen: str = "127.0.0.1:0",
    width: int = 8,
    lookahead: int = 8,
    stop_threshold: float = 0.3,
    span_tokens: int = 4,
    alternatives: int = 0,
    alternative_threshold: float = 0.9,
    patience: Annotated[int, typer.Option(help="Milliseconds")] = 0,
    adaptive: bool = True,
) -> None:
    """A target that steps at the given speed. Says ready in JSON."""
    engine = ReplayEngine(load(recording), target, step=step, step_per_token=step_per_token)
    plan = SpeculationPlan(
        width, lookahead, stop_threshold, span_tokens, patience / 1000, alternatives, alternative_threshold
    )
    address = Address.parse(listen, field="listen", allow_port_zero=True)
    serve_verifier(engine, address, plan, adaptive=adaptive, ready_json=True)


@app.command()
def drafter(
    verifier: Annotated[str, typer.Option(help="Address of the verifier, host:port")],
    recording: Annotated[Path | None, typer.Option(help="Without one: a drafter that is never right")] = None,
    token: float = 0.003,
    row: float = 0.15,
) -> None:
    """A drafter of the given speed. Says ready in JSON."""
    replaying: ReplayDrafter | WrongDrafter
    if recording is None:
        replaying = WrongDrafter(token=token, row=row)
    else:
        replaying = ReplayDrafter(load(recording), token=token, row=row)
    serve_drafter(replaying, Address.parse(verifier, field="verifier"), ready_json=True)


if __name__ == "__main__":
    app()
