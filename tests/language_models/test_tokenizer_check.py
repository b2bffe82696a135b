"""Tokenizers that do not fit, and what follows: names stay text, a target is refused, a drafter does what it can."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from tokenizers import decoders

from drafter_service.draft_prompts import draft_prompt_ids
from drafter_service.model_drafter import ModelDrafter
from dragoman.doctor import PairVerdict, diagnose
from language_models.tokenizer import TextTokenizer
from language_models.tokenizer_check import Role, check_tokenizer, findings, judge
from speculation.errors import InputError, UnsupportedModelError
from speculation.protocol.messages import ChatMessage, Prompt
from tests.support.service_drivers import WARM, drafters, drafting, request, serving, text_of
from tests.support.tiny_models import CHAT_TEMPLATE, load_tiny
from tests.support.tiny_tokenizers import changed, load, unigram, with_weights
from transport import prompt_codec
from verifier_service.transformers_engine import TransformersEngine

START, END = "<|im_start|>", "<|im_end|>"
HELLO = Prompt(messages=(ChatMessage("user", "hello"),))
#: What a fine-tuner adds to a tokenizer, and forgets to add to the model.
NEW_TURNS: dict[str, Any] = {
    "added": {"<|turn|>": True, "<|done|>": True},
    "template": CHAT_TEMPLATE.replace(START, "<|turn|>").replace(END, "<|done|>"),
}


def reading(tokenizer: TextTokenizer, role: Role) -> tuple[str, str]:
    refusals, costs = judge(findings(tokenizer), role)
    return "; ".join(refusals), "; ".join(costs)


# ---- names are text ---------------------------------------------------------------------------------------------


def test_marks_that_were_added_as_not_special_are_text(tiny_llama: Path, tmp_path: Path):
    tokenizer = load(changed(tiny_llama, tmp_path / "m", not_special=[START, END, "<|endoftext|>"]))
    assert tokenizer.self_test() == []
    for name, token in ((START, 1), (END, 2), ("<|endoftext|>", 0)):
        if token in tokenizer.vocab.end_ids or name == START:
            assert token not in tokenizer.encode(f"a{name}b")
            assert tokenizer.vocab.text(tokenizer.encode(f"a{name}b")) == f"a{name}b".encode()
            assert token not in tokenizer.encode_prompt(f"a{name}b")
    ids = tokenizer.encode_chat([{"role": "user", "content": f"a{END}\n{START}system\nb"}])
    assert (ids.count(1), ids.count(2)) == (2, 1), "the template's own"


def test_other_added_tokens_are_what_they_were(tiny_llama: Path, tmp_path: Path):
    """Runs of spaces and words that the template happens to write, and marks that only models write, have tokens."""
    added = {"\n\n": False, "user": False, "<think>": False, "<tool>": False}
    template = CHAT_TEMPLATE.replace(f"{END}\n", f"{END}\n\n").replace("assistant\n{%", "assistant\n<think>\n{%")
    tokenizer = load(changed(tiny_llama, tmp_path / "m", added=added, template=template))
    lines, user, think, tool = range(tokenizer.vocab.size - 8, tokenizer.vocab.size - 4)
    assert set(tokenizer.encode("a user\n\n<think><tool>")) >= {lines, user, think, tool}, "as a model writes it"
    asked = tokenizer.encode_chat([{"role": "user", "content": "a user\n\n<think><tool>"}])
    assert asked.count(think) == 1, "the template's own; a user's words begin no thought"
    assert asked.count(user) == 2 and asked.count(tool) == 1 and asked.count(lines) == 2
    assert tokenizer.self_test() == []


def test_pieces_of_a_unigram_model_that_spell_special_tokens_are_not_used(tmp_path: Path):
    tokenizer = load(unigram(tmp_path))
    assert tokenizer.self_test() == []
    for text in ("a</s>b", "<s>", "the <unk>"):
        assert tokenizer.vocab.text(tokenizer.encode(text)) == text.encode()
        assert tokenizer.vocab.text(tokenizer.encode_prompt(text)) == text.encode()


def test_a_decoder_that_disagrees_refuses_a_target_and_is_told_of_a_drafter(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = changed(tiny_llama, tmp_path / "m")
    description = json.loads((path / "tokenizer.json").read_text())
    parts = [decoders.ByteLevel(), decoders.Replace("world", "mouse")]
    description["decoder"] = json.loads(decoders.Sequence(parts).__getstate__())
    (path / "tokenizer.json").write_text(json.dumps(description))
    model = load_tiny(with_weights(path))
    with pytest.raises(UnsupportedModelError, match=r"cannot be a target: .*'Hello, mouse!' by the decoder"):
        TransformersEngine(model)
    ModelDrafter(model)
    assert "'Hello, mouse!' by the decoder" in caplog.text and "its drafts are lost" in caplog.text


def test_a_tokenizer_that_changes_texts_is_served_and_told(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = changed(tiny_llama, tmp_path / "m")
    description = json.loads((path / "tokenizer.json").read_text())
    description["normalizer"] = {"type": "Replace", "pattern": {"String": "world"}, "content": "mouse"}
    (path / "tokenizer.json").write_text(json.dumps(description))
    caplog.set_level(logging.WARNING)
    check_tokenizer(load(path), Role.TARGET, "changer")
    [record] = caplog.records
    assert "changer" in record.getMessage() and "Hello, mouse!" in record.getMessage()
    assert "drafts of such text are lost" in record.getMessage()
    found = diagnose(str(path), str(tiny_llama))
    assert found.verdict is PairVerdict.WORKS and any("Hello, mouse!" in remark for remark in found.remarks)


# ---- tokens that the model does not have ------------------------------------------------------------------------


def test_a_template_beyond_the_model_refuses_a_target_and_not_a_drafter(tiny_llama: Path, tmp_path: Path):
    size = json.loads((tiny_llama / "config.json").read_text())["vocab_size"]
    path = changed(tiny_llama, tmp_path / "m", **NEW_TURNS, config={"vocab_size": size - 8})
    model = load_tiny(with_weights(path))
    with pytest.raises(UnsupportedModelError) as caught:
        TransformersEngine(model)
    for words in ("chat template", f"{size - 8} <|turn|>", f"{size - 7} <|done|>", f"the model has {size - 8} tokens"):
        assert words in str(caught.value)
    drafter = ModelDrafter(model)
    assert drafter.notes == ("the drafter's template takes no conversation: read as a plain transcript",)
    assert model.tokenizer.vocab.text(draft_prompt_ids(model.tokenizer, HELLO)) == b"User: hello\nAssistant:"
    found = diagnose(str(path), str(tiny_llama))
    assert found.verdict is PairVerdict.CANNOT and "<|turn|>" in found.cannot[0]
    found = diagnose(str(tiny_llama), str(path))
    assert found.verdict is PairVerdict.WORKS and any("<|turn|>" in remark for remark in found.remarks)


def test_a_beginning_beyond_the_model_refuses_both(tiny_gemma: Path, tmp_path: Path):
    path = changed(tiny_gemma, tmp_path / "m", added={"<begin>": True})
    description = json.loads((path / "tokenizer.json").read_text())
    size = json.loads((path / "config.json").read_text())["vocab_size"]
    text = json.dumps(description["post_processor"]).replace("<bos>", "<begin>").replace("[2]", f"[{size}]")
    (path / "tokenizer.json").write_text(json.dumps(description | {"post_processor": json.loads(text)}))
    tokenizer = load(path)
    assert tokenizer.bos_ids() == {size}
    for role in Role:
        with pytest.raises(UnsupportedModelError, match=f"{role.value}: every prompt begins with token {size} <begin>"):
            check_tokenizer(tokenizer, role, "m")
    assert len(diagnose(str(path), str(path)).cannot) == 2


def test_an_end_beyond_the_model_refuses_a_target(tiny_llama: Path, tmp_path: Path):
    settings = {"eos_token": "<|over|>"}
    size = json.loads((tiny_llama / "config.json").read_text())["vocab_size"] - 8
    path = changed(
        tiny_llama,
        tmp_path / "m",
        template="{% for m in messages %}{{ m.content }}\n{% endfor %}",
        added={"<|over|>": True},
        tokenizer_settings=settings,
        config={"vocab_size": size},
    )
    refusals, _ = reading(load(path), Role.TARGET)
    assert f"its texts end with token {size} <|over|>" in refusals
    refusals, costs = reading(load(path), Role.DRAFTER)
    assert not refusals and "it drafts no end" in costs


def test_a_vocabulary_cut_to_the_model_is_the_one_of_a_tokenizer_that_fits(tiny_llama: Path, tmp_path: Path):
    size = json.loads((tiny_llama / "config.json").read_text())["vocab_size"]
    path = changed(tiny_llama, tmp_path / "m", added={"<a>": False, "<b>": True}, config={"vocab_size": size - 8})
    vocab = load(path).vocab
    assert vocab.size == size - 8
    assert vocab.content_hash == load(tiny_llama).vocab.content_hash, "there the model has padding in that place"


def test_prompts_that_need_tokens_beyond_the_model_are_refused_by_name(tiny_llama: Path, tmp_path: Path):
    size = json.loads((tiny_llama / "config.json").read_text())["vocab_size"] - 8
    tokenizer = load(changed(tiny_llama, tmp_path / "m", added={"<extra>": False}, config={"vocab_size": size}))
    for prompt in (Prompt(text="a <extra> b"), Prompt(messages=(ChatMessage("user", f"<extra>{END}"),))):
        with pytest.raises(InputError, match=f"'<extra>': is token {size} of the tokenizer.*{size} tokens only"):
            tokenizer.prompt_ids(prompt)
    assert tokenizer.prompt_ids(HELLO)
    _, costs = reading(tokenizer, Role.TARGET)
    assert f"text may need token {size} <extra>" in costs and "prompts that do are refused" in costs
    # An ordinary token of the tokenizer's, at the end of its vocabulary, is one as well.
    small = load(changed(tiny_llama, tmp_path / "n", config={"vocab_size": size - 40}))
    with pytest.raises(InputError, match=r"messages='.+': is token \d+ of the tokenizer"):
        small.prompt_ids(Prompt(messages=(ChatMessage("user", "The heron waits for a fish. mul(a, b)"),)))


async def test_a_prompt_beyond_the_model_costs_its_session_only(tiny_llama: Path, tmp_path: Path):
    """At the verifier it is an error of the request; a drafter declines, and drafts for the next one."""
    size = json.loads((tiny_llama / "config.json").read_text())["vocab_size"] - 8
    path = with_weights(changed(tiny_llama, tmp_path / "m", added={"<extra>": False}, config={"vocab_size": size}))
    wild, tame = (prompt_codec.prompt_to_wire(Prompt(text=text)) for text in ("a <extra> b", "a b"))

    def asking(prompt, **kwargs):
        asked = request(WARM, max_tokens=8, **kwargs)
        asked.prompt.CopyFrom(prompt)
        return asked

    async with serving(TransformersEngine(load_tiny(path))) as (_, address):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await text_of(address, asking(wild))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "<extra>" in (caught.value.details() or "")
        assert (await text_of(address, asking(tame)))[1].completion_tokens == 8
    async with (
        serving(TransformersEngine(load_tiny(tiny_llama)), adaptive=False, lookup=False) as (verifier, address),
        drafting(address, ModelDrafter(load_tiny(path))),
    ):
        await drafters(verifier, 1)
        assert (await text_of(address, asking(wild, ignore_end=True)))[1].speculation.spans == 0
        drafted = 0
        while not drafted:  # a short text may be over before its drafter has looked at it
            drafted = (await text_of(address, asking(tame, ignore_end=True)))[1].speculation.spans
