"""A target and a drafter that say what a recording says, at any speed one likes: fast machines that one does not have.

Real processes, sockets and sessions; only the two forward passes are replaced by waiting. One prompt per recorded
text: its number. Greedy only.

    python -m benchmarks.replay verifier --recording recording.json --step 0.025 --step-per-token 0.0002
    python -m benchmarks.replay drafter --recording recording.json --token 0.003 --verifier 127.0.0.1:50061
"""

from __future__ import annotations

import time
import zlib
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
from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.errors import InputError
from speculation.planning.plan import START
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sessions.drafter_session import DraftToken
from speculation.text.byte_vocab import ByteVocab
from transport.address import Address
from transport.security import Security
from verifier_service.engine import OneByOne, WholePrompt
from verifier_service.server import GRACE
from verifier_service.settings import PlanSettings, VerifierSettings

TlsFile = Annotated[str | None, typer.Option(help="As of `dragoman`")]


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

    kv_cache_bytes = 0

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


class ReplayDrafter:
    """``token``: seconds per draft token. ``row``: what a second row of a batch adds, as a share; ``batch_seconds``."""

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


def batch_seconds(token: float, row: float, rows: int) -> float:
    """Of a batch with so many rows: the second adds the share ``row``, all from there on ever less.

    The exponent makes 15 % for two rows 25 % for three, 63 % for eight.
    """
    return token * (1 + row * (rows - 1) ** 0.74)


class ReplayDraftSource:
    """Drafts what the recorded drafter said after the same text. Where it was never asked, on a branch that is wrong
    already, it drafts words that no one says, with confidences that the recorded drafter had elsewhere: a real drafter
    does not know that it is lost, and spends its time there."""

    def __init__(self, drafter: ReplayDrafter, recorded: RecordedText, committed: bytes) -> None:
        self._drafter = drafter
        self._drafts: dict[bytes, list[list[tuple[str, float]]]] = {}
        self._elsewhere = [choices for draft in recorded.drafts for choices in draft]
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
        time.sleep(batch_seconds(self._drafter.token_seconds, self._drafter.row_share, len(paths)))
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
        lost = self._at(path)
        confidences = self._elsewhere[zlib.crc32(lost) % len(self._elsewhere)]
        return [self._draft_token(f"\0{choice}??", p) for choice, (_, p) in enumerate(confidences)]

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
        time.sleep(batch_seconds(self._drafter.token_seconds, self._drafter.row_share, len(paths)))
        return [[DraftToken(b"\x00wrong", 0.99)] for _ in paths]

    def close(self) -> None:
        pass


def security_of(certificate: str | None, key: str | None, authority: str | None) -> Security:
    """Plaintext without files, of namespaces as well: they are of one machine."""
    return Security(tls_cert=certificate, tls_key=key, tls_ca=authority, allow_plaintext=True)


app = typer.Typer(add_completion=False)
Recording = Annotated[Path, typer.Option(help="Made by benchmarks.recording")]


@app.command()
def verifier(
    recording: Recording,
    target: str = "qwen2.5-coder-1.5b",
    step: float = 0.025,
    step_per_token: float = 0.0002,
    listen: str = "127.0.0.1:0",
    width: int = START.width,
    lookahead: int = START.lookahead,
    stop_threshold: float = START.stop_threshold,
    span_tokens: int = START.span_tokens,
    alternatives: int = START.alternatives,
    alternative_threshold: float = START.alternative_threshold,
    verify_threshold: float = START.verify_threshold,
    patience: Annotated[int, typer.Option(help="Milliseconds")] = 0,
    adaptive: bool = True,
    lookup: bool = True,
    tls_cert: TlsFile = None,
    tls_key: TlsFile = None,
    tls_ca: TlsFile = None,
) -> None:
    """A target that steps at the given speed. Says ready in JSON."""
    engine = ReplayEngine(load(recording), target, step=step, step_per_token=step_per_token)
    plan = PlanSettings(
        width=width,
        lookahead=lookahead,
        stop_threshold=stop_threshold,
        span_tokens=span_tokens,
        patience=patience / 1000,
        alternatives=alternatives,
        alternative_threshold=alternative_threshold,
        verify_threshold=verify_threshold,
    )
    settings = VerifierSettings(model=target, adaptive=adaptive, lookup=lookup, grace=GRACE, plan=plan)
    address = Address.parse(listen, field="listen", allow_port_zero=True)
    security = security_of(tls_cert, tls_key, tls_ca)
    serve_verifier(lambda: engine, address, settings, security=security, ready_json=True)


@app.command()
def drafter(
    verifier: Annotated[str, typer.Option(help="Address of the verifier, host:port")],
    recording: Annotated[Path | None, typer.Option(help="Without one: a drafter that is never right")] = None,
    token: float = 0.003,
    row: float = 0.15,
    tls_cert: TlsFile = None,
    tls_key: TlsFile = None,
    tls_ca: TlsFile = None,
) -> None:
    """A drafter of the given speed. Says ready in JSON."""
    replaying: ReplayDrafter | WrongDrafter
    if recording is None:
        replaying = WrongDrafter(token=token, row=row)
    else:
        replaying = ReplayDrafter(load(recording), token=token, row=row)
    security = security_of(tls_cert, tls_key, tls_ca)
    serve_drafter(replaying, Address.parse(verifier, field="verifier"), security=security, ready_json=True)


if __name__ == "__main__":
    app()
