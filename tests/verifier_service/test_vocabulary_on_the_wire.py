"""The target's vocabulary on its way to a drafter that drafts in its tokens: once, in parts, checked, kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from drafter_service.model_drafter import ModelDrafter
from drafter_service.proposing_source import ProposingSource
from drafter_service.target_vocabularies import TargetVocabularies
from drafter_service.waiting_offers import WaitingOffers
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import LimitExceededError, ProtocolError, SessionError
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.protocol.proposal import WEIGHT_SCALE, propose
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.text.vocab_table import table_of
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import (
    WAITING,
    WARM,
    drafters,
    drafting,
    eventually,
    request,
    serving,
    stub_to,
    text_of,
)
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.tiny_models import load_tiny
from verifier_service.transformers_engine import TransformersEngine
from verifier_service.vocabulary_sender import chunks_of


async def test_the_vocabulary_travels_once_and_is_kept(tiny_qwen2: Path, tiny_gemma: Path, tmp_path: Path):
    engine = TransformersEngine(load_tiny(tiny_qwen2))
    model = load_tiny(tiny_gemma)
    travelled: Counter[str] = Counter()
    async with serving(engine, plan=WAITING, adaptive=False) as (verifier, address):
        for process in ("first", "second"):
            drafter = ModelDrafter(model, vocabularies=tmp_path)
            learn = drafter.learn_vocabulary

            def counted(content_hash: str, table: bytes, process=process, learn=learn) -> None:
                travelled[process] += 1
                learn(content_hash, table)

            drafter.learn_vocabulary = counted  # type: ignore[method-assign]
            async with drafting(address, drafter):
                await drafters(verifier, 1)
                _, raced = await text_of(address, request(WARM, max_tokens=12, ignore_end=True))
                assert raced.speculation.accepted_tokens > 0
                for _ in range(2):
                    asked = request(WARM, max_tokens=24, rule=Rule.REJECTION, ignore_end=True)
                    _, finished = await text_of(address, asked)
                assert finished.speculation.accepted_tokens > 0
            await drafters(verifier, 0)
    assert travelled == {"first": 1}, "the second process has it from the disk"
    assert [file.name for file in tmp_path.iterdir()] == [engine.tokenizer.vocab.content_hash]


async def test_one_vocabulary_needs_no_table(tiny_qwen2: Path):
    model = load_tiny(tiny_qwen2)
    async with (
        serving(TransformersEngine(model), plan=WAITING, adaptive=False) as (verifier, address),
        drafting(address, ModelDrafter(model)),
    ):
        await drafters(verifier, 1)
        _, finished = await text_of(address, request(WARM, max_tokens=64, rule=Rule.REJECTION, ignore_end=True))
        # Four draft tokens a step, nearly all accepted; one would make it two tokens a step at most.
        assert 64 / finished.speculation.steps > 2.5
        assert not verifier.roster.links[0].has_vocabulary


@torch.inference_mode()
def test_with_one_vocabulary_what_is_sent_is_the_targets_distribution(tiny_qwen2: Path):
    """But for rounding, by half a unit in each token: the chance of acceptance, sum min(p, q), says so exactly."""
    model = load_tiny(tiny_qwen2)
    vocab, prompt = model.tokenizer.vocab, Prompt(text="a story: ")
    ids = model.tokenizer.prompt_ids(prompt)
    sampler = TokenSampler(WARM, vocab, RaceNoise(vocab), prompt_ids=ids)
    p = sampler.probabilities(model.forward(ids, model.new_cache())[-1])
    plan = SpeculationPlan(top_k=model.vocab_size)
    offer = SessionOffer("s", prompt, WARM, Rule.REJECTION, b"", 0, plan, 1, vocab.content_hash)
    source = ModelDrafter(model).open(offer)
    assert isinstance(source, ProposingSource)
    sent = propose(source.distribution(), 0)
    assert sent is not None
    q = torch.tensor(sent.weights, dtype=torch.float64) / sent.total
    assert float(torch.minimum(p[list(sent.ids)], q).sum()) > 1 - model.vocab_size * 0.5 / WEIGHT_SCALE


def test_a_kept_vocabulary_that_is_damaged_is_thrown_away(tmp_path: Path):
    own, other = TextDrafter(), TextEngine()
    vocab = other.tokenizer.vocab
    known = TargetVocabularies(own.model.vocab, tmp_path)
    with pytest.raises(SessionError, match="not known"):
        known.get(vocab.content_hash)
    (tmp_path / vocab.content_hash).write_bytes(b"nonsense")
    assert vocab.content_hash in known
    with pytest.raises(ProtocolError):
        known.get(vocab.content_hash)
    assert vocab.content_hash not in known
    assert "../../etc/passwd" not in known
    known.add_table(vocab.content_hash, table_of(vocab))
    assert TargetVocabularies(own.model.vocab, tmp_path).get(vocab.content_hash).alignment.common > 256


def test_parts_of_a_vocabulary_come_in_order_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("verifier_service.vocabulary_sender.CHUNK_BYTES", 100)
    vocab = TextEngine.tokenizer.vocab
    first, second, *rest = [message.vocabulary for message in chunks_of(vocab)]
    waiting = WaitingOffers()
    with pytest.raises(ProtocolError, match="not asked for"):
        waiting.add_chunk(first)
    offers = [
        SessionOffer(name, Prompt(text="x"), WARM, Rule.REJECTION, b"", 0, WAITING, 1, vocab.content_hash)
        for name in ("a", "b", "c")
    ]
    assert [waiting.hold(offer) for offer in offers] == [True, False, False]
    with pytest.raises(ProtocolError, match="part 1 of"):
        waiting.add_chunk(second)
    tables = [waiting.add_chunk(part) for part in (first, second, *rest)]
    assert tables == [None] * (len(tables) - 1) + [table_of(vocab)]
    waiting.forget("b")
    assert waiting.release(vocab.content_hash) == [offers[0], offers[2]] and len(waiting) == 0
    monkeypatch.setattr("drafter_service.waiting_offers.MAX_TABLE_BYTES", 150)
    waiting.add_chunk(first)
    with pytest.raises(LimitExceededError):
        waiting.add_chunk(second)


async def test_a_vocabulary_is_asked_for_once_and_for_this_target_only():
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        raw = RawDrafter(stub)
        await raw.dial()
        for asked in ("no such", engine.tokenizer.vocab.content_hash, engine.tokenizer.vocab.content_hash):
            await raw.call.write(pb.AssistRequest(vocabulary=pb.VocabularyRequest(vocab_hash=asked)))
        await eventually(lambda: verifier.describe().drafters[0].rejected_messages == 2)
        while not (message := await raw.call.read()).HasField("vocabulary"):
            pass
        assert message.vocabulary.vocab_hash == engine.tokenizer.vocab.content_hash
