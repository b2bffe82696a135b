"""A model that is held attends as before once nobody holds it, whoever lets go first and whatever failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from dragoman import RemoteDrafting, SessionError
from language_models.attention import ROW_INVARIANT
from language_models.quiet import quiet
from language_models.steady_attention import steady_attention


@pytest.fixture
def model(tiny_llama: Path) -> PreTrainedModel:
    with quiet():
        return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).eval()


def test_the_last_of_two_takes_it_back(model: PreTrainedModel):
    before = model.config._attn_implementation
    first, second = steady_attention(model), steady_attention(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert model.config._attn_implementation == ROW_INVARIANT
    second.__exit__(None, None, None)
    assert model.config._attn_implementation == before != ROW_INVARIANT


def test_what_fails_half_way_is_taken_back(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    before = model.config._attn_implementation

    def half_way(implementation: str) -> None:
        model.config._attn_implementation = implementation
        raise ValueError("not that one")

    monkeypatch.setattr(model, "set_attn_implementation", half_way)
    with pytest.raises(ValueError, match="not that one"), steady_attention(model):
        pass
    assert model.config._attn_implementation == before


def test_configurations_of_parts_keep_their_own():
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, **tiny},
        text_config={"model_type": "llama", "vocab_size": 64, **tiny},
    )
    model = LlavaForConditionalGeneration(config).eval().to(torch.bfloat16)
    with quiet():
        model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    own = [part._attn_implementation for part in (model.config, model.config.text_config, model.config.vision_config)]
    with steady_attention(model):
        assert model.config.text_config._attn_implementation == ROW_INVARIANT
    parts = (model.config, model.config.text_config, model.config.vision_config)
    assert [part._attn_implementation for part in parts] == own and "eager" in own


def test_one_that_is_open_is_not_opened_again(tiny_llama: Path):
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    drafting = RemoteDrafting(model, AutoTokenizer.from_pretrained(tiny_llama), "127.0.0.1:0")
    for _ in range(2):
        with drafting, pytest.raises(SessionError, match="open already"):
            drafting.__enter__()
