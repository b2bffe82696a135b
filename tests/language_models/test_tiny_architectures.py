"""The zoo is what it says: random models whose logits depend on what came before, and load as they were saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from language_models.quiet import quiet
from language_models.tokenizer import TextTokenizer
from language_models.weights import resolve
from tests.support.architecture_settings import ARCHITECTURES
from tests.support.tiny_architectures import NAMES, shared_tokenizer, tiny_architecture


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("name", NAMES)
def test_later_tokens_depend_on_earlier_ones(name: str, tmp_path: Path, tokenizer: Path):
    """As far as its windows reach, by enough to be seen; what comes before only where the attention is two-way."""
    folder = tiny_architecture(name, tmp_path / "model", tokenizer=tokenizer)
    with quiet():
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    assert not loaded["missing_keys"] and not loaded["mismatched_keys"]
    ids = torch.randint(3, 380, (1, 24), generator=torch.Generator().manual_seed(1))
    altered = ids.clone()
    altered[0, 16] = 7 if ids[0, 16] != 7 else 8
    with torch.inference_mode():
        before, after = model.eval()(input_ids=ids).logits[0], model(input_ids=altered).logits[0]
    assert before.isfinite().all()
    difference = (after - before).abs().amax(dim=-1)
    seen = 1e-3 * before.std()  # what experts run together moves the last bits, and no more
    assert difference[17:].min() > seen
    attention = next(architecture.attention for architecture in ARCHITECTURES if architecture.name == name)
    assert bool(difference[:16].max() < seen) is ("sees later tokens" not in attention)
    texts = TextTokenizer.from_pretrained(resolve(str(folder)), model.config.get_text_config(decoder=True).vocab_size)
    assert texts.self_test() == []
    assert len(texts.vocab.padding_ids) == 8


def test_a_model_is_the_same_each_time(tmp_path: Path, tokenizer: Path):
    first = tiny_architecture("gpt_oss", tmp_path / "a", tokenizer=tokenizer)
    second = tiny_architecture("gpt_oss", tmp_path / "b")
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_the_names_are_of_their_own():
    assert len(set(NAMES)) == len(NAMES) >= 45
