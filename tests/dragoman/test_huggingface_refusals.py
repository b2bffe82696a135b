"""What cannot be drafted for is told in a line that names it, before anything runs; and nothing is left behind."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LogitsProcessorList,
    StoppingCriteriaList,
    T5Config,
    T5ForConditionalGeneration,
)

from dragoman import Client, ConnectionFailedError, DrainingError, InputError, RemoteDrafting, SessionError
from language_models.attention import ROW_INVARIANT
from language_models.generate_call import GenerateCall, Unhanded
from language_models.quiet import quiet
from speculation.errors import UnsupportedModelError
from tests.support.held_models import Held, hold

NOWHERE = "127.0.0.1:0"


@pytest.fixture(scope="module")
def held(tiny_llama: Path) -> Held:
    return hold(tiny_llama)


@pytest.fixture(scope="module")
def drafting(held: Held) -> Iterator[RemoteDrafting]:
    with RemoteDrafting(held.model, held.tokenizer, NOWHERE) as drafting:
        yield drafting


def attention_mask(ids: torch.Tensor) -> torch.Tensor:
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    return mask


REFUSED: dict[str, Any] = {
    "num_beams": lambda held, ids: {"num_beams": 2},
    "num_return_sequences": lambda held, ids: {"num_return_sequences": 2, "do_sample": True},
    "input_ids": lambda held, ids: {"input_ids": ids.expand(2, -1)},
    "inputs_embeds": lambda held, ids: {"input_ids": None, "inputs_embeds": held.model.get_input_embeddings()(ids)},
    "attention_mask": lambda held, ids: {"attention_mask": attention_mask(ids)},
    "position_ids": lambda held, ids: {"position_ids": 3 + torch.arange(ids.shape[1])[None]},
    "past_key_values": lambda held, ids: {"past_key_values": DynamicCache(config=held.model.config)},
    "cache_implementation": lambda held, ids: {"cache_implementation": "static"},
    "assistant_model": lambda held, ids: {"assistant_model": held.model},
    "prompt_lookup_num_tokens": lambda held, ids: {"prompt_lookup_num_tokens": 3},
    "output_attentions": lambda held, ids: {"output_attentions": True, "return_dict_in_generate": True},
    "output_hidden_states": lambda held, ids: {"output_hidden_states": True, "return_dict_in_generate": True},
    "messages": lambda held, ids: {"messages": [{"role": "user"}]},
    "messages.role": lambda held, ids: {"messages": [{"role": "poet", "content": "x"}]},
    "seed": lambda held, ids: {"seed": -1, "do_sample": True},
    "prompt": lambda held, ids: {"input_ids": ids.repeat(1, 400)},
}


@pytest.mark.parametrize("field", REFUSED)
def test_an_argument_that_cannot_be_drafted_for_is_named(held: Held, drafting: RemoteDrafting, field: str):
    ids = held.ids("The heron")
    options = {"input_ids": ids, "do_sample": False, "max_new_tokens": 4, **REFUSED[field](held, ids)}
    with quiet(), pytest.raises(InputError) as raised:
        held.model.generate(custom_generate=drafting, **options)
    assert raised.value.field == field and "\n" not in str(raised.value)
    fine = held.model.generate(ids, custom_generate=drafting, do_sample=False, max_new_tokens=4)
    assert fine.shape[1] == ids.shape[1] + 4


def test_a_mask_that_hides_nothing_is_none(held: Held):
    """transformers 5.17 hands it on, later ones do not."""
    ids = held.ids("The heron")
    made = held.model.generation_config
    for mask, refused in ((torch.ones_like(ids), False), (attention_mask(ids), True)):
        expected = pytest.raises(InputError, match="attention_mask") if refused else contextlib.nullcontext()
        with expected:
            GenerateCall(
                ids,
                LogitsProcessorList(),
                StoppingCriteriaList(),
                made,
                unhanded=Unhanded(),
                model_kwargs={"attention_mask": mask},
            )


def test_another_model_and_one_in_training_are_refused(held: Held, drafting: RemoteDrafting, tiny_llama: Path):
    ids, other = held.ids("The"), hold(tiny_llama)
    with pytest.raises(InputError, match="not the one that this was opened for"):
        other.model.generate(ids, custom_generate=drafting, max_new_tokens=4)
    held.model.train()
    try:
        with pytest.raises(InputError, match=r"call model\.eval\(\)"):
            held.model.generate(ids, custom_generate=drafting, max_new_tokens=4)
        with pytest.raises(InputError, match="in training mode"), RemoteDrafting(held.model, held.tokenizer, NOWHERE):
            pass
    finally:
        held.model.eval()


def test_what_is_not_open_writes_nothing(held: Held):
    drafting = RemoteDrafting(held.model, held.tokenizer, NOWHERE)
    with pytest.raises(SessionError, match="with RemoteDrafting"):
        held.model.generate(held.ids("The"), custom_generate=drafting, max_new_tokens=4)
    with pytest.raises(SessionError):
        _ = drafting.address


def test_models_of_other_kinds_are_refused(held: Held):
    small = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    for model, words in (
        (T5ForConditionalGeneration(T5Config(**small)).eval(), "encoder"),
        ("gpt2", "no language model"),
    ):
        with pytest.raises(InputError, match=words), RemoteDrafting(model, held.tokenizer, NOWHERE):
            pass
    with pytest.raises(UnsupportedModelError, match="no fast tokenizer"), RemoteDrafting(held.model, None, NOWHERE):
        pass


def test_addresses_are_checked_before_the_model_is_tried():
    for options, field in (
        ({"listen": "nowhere"}, "listen"),
        ({"listen": "0.0.0.0:50061"}, "listen"),
        ({"coordinator": "nowhere:x"}, "coordinator"),
    ):
        with pytest.raises(InputError) as raised, RemoteDrafting(None, None, **options):
            pass
        assert raised.value.field == field
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConnectionFailedError, match="in use"):
        RemoteDrafting(None, None, f"127.0.0.1:{taken.getsockname()[1]}").__enter__()


async def test_clients_that_dial_the_port_are_sent_away(drafting: RemoteDrafting):
    async with Client(drafting.address) as client:
        with pytest.raises(DrainingError):
            await client.complete("The heron", max_tokens=4)


def test_nobody_comes(drafting: RemoteDrafting):
    with pytest.raises(ConnectionFailedError, match=r"0 of 2 drafters .*\(start one: dragoman drafter"):
        drafting.wait_for_drafters(2, seconds=0.0)
    with pytest.raises(ConnectionFailedError, match=r"0 of 1 drafter has dialled"):
        drafting.wait_for_drafters(seconds=0.0)


def test_a_text_that_fails_leaves_nothing_behind(held: Held):
    def fail(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raise KeyError("of the user's own")

    before = set(threading.enumerate())
    with RemoteDrafting(held.model, held.tokenizer, NOWHERE) as drafting:
        ids, greedy = held.ids("The heron"), {"max_new_tokens": 8, "do_sample": False, "custom_generate": drafting}
        for processor in (fail, lambda ids, scores: scores * torch.nan):
            with pytest.raises((KeyError, Exception), match=r"of the user's own|usable maximum"):
                held.model.generate(ids, logits_processor=[processor], **greedy)
        with pytest.raises(KeyError):
            held.model.generate(ids, custom_generate=drafting, max_new_tokens=8, stopping_criteria=[fail])
        assert (
            held.model.generate(ids, custom_generate=drafting, max_new_tokens=8, do_sample=False).shape[1]
            > ids.shape[1]
        )
        assert drafting.drafters == ()
        drafting.close()
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"tqdm_monitor"}


def test_16_bits_on_a_cpu_are_kept_from_depending_on_drafts(tiny_llama: Path, held: Held):
    """In attention of its own, which is taken back; or the model is refused, where the processor's sums are not so."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).eval()
    before = model.config._attn_implementation
    try:
        with RemoteDrafting(model, held.tokenizer, NOWHERE) as drafting:
            assert model.config._attn_implementation == ROW_INVARIANT
            ids = held.ids("The heron")
            assert model.generate(ids, custom_generate=drafting, max_new_tokens=8).shape[1] > ids.shape[1]
    except UnsupportedModelError as error:
        assert "torch.float32" in str(error)
    assert model.config._attn_implementation == before != ROW_INVARIANT
