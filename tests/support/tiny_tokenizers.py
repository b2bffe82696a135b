"""Folders with a tokenizer and a configuration, as much as doctor needs; with weights if asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from language_models.config import ModelConfig
from language_models.tokenizer import TextTokenizer
from language_models.weights import ModelFiles

#: Roles alternate, the system's words stand in the first turn, everything is trimmed.
MISTRAL_LIKE = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'].strip() + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ (system if loop.first else '') + m['content'].strip() }}<|im_end|>{% endfor %}"
)
#: Refuses the system's role, as Gemma's does.
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load(path: Path) -> TextTokenizer:
    """The tokenizer of a folder, as a service would load it."""
    files = ModelFiles(path.name, str(path), local=True)
    return TextTokenizer.from_pretrained(files, ModelConfig.read(files).vocab_size)


def changed(
    model: Path,
    path: Path,
    *,
    template: str | None = None,
    not_special: Sequence[str] = (),
    added: Mapping[str, bool] | None = None,
    tokenizer_settings: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """A copy of a tiny model's folder without weights. ``added``: further tokens, and whether they are special.

    ``generation``: generation_config.json; None: there is none.
    """
    shutil.copytree(model, path, ignore=shutil.ignore_patterns("*.safetensors", "generation_config.json"))
    if template is not None:
        (path / "chat_template.jinja").write_text(template)
    description = json.loads((path / "tokenizer.json").read_text())
    for token in description["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in not_special
    free = 1 + max([*description["model"]["vocab"].values(), *(t["id"] for t in description["added_tokens"])])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for number, (name, special) in enumerate((added or {}).items(), free):
        description["added_tokens"].append({"id": number, "content": name, "special": special, **plain})
    (path / "tokenizer.json").write_text(json.dumps(description))
    _update(path / "tokenizer_config.json", tokenizer_settings or {})
    _update(path / "config.json", config or {})
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


def _update(file: Path, settings: Mapping[str, Any]) -> None:
    """None removes a setting."""
    found = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def with_template(model: Path, path: Path, template: str) -> TextTokenizer:
    """The tokenizer of a tiny model's folder, of which ``path`` becomes a copy with this chat template."""
    return load(changed(model, path, template=template))


def with_weights(path: Path) -> Path:
    """Random ones, as its config.json wants them."""
    torch.manual_seed(5)
    config = LlamaConfig.from_pretrained(path)
    LlamaForCausalLM(config).eval().save_pretrained(path)
    (path / "generation_config.json").unlink(missing_ok=True)
    return path


def unigram(path: Path) -> Path:
    """A Unigram tokenizer, which knows its special tokens as pieces of text too, in the way of T5 and XGLM."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [("▁", -3.0), *((letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyzHW<>|/_!"), ("▁the", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _saved(tokenizer, path, size=len(pieces))


def metaspace(path: Path, model: Path, *, legacy: bool) -> Path:
    """The tokens of ``tiny_gemma`` with a space before every text, by the normaliser or by the pre-tokenizer."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return _saved(tokenizer, path, size=tokenizer.get_vocab_size(), eos_token="<eos>", bos_token="<bos>")


def _saved(tokenizer: Tokenizer, path: Path, *, size: int, **names: str) -> Path:
    names = names or {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(path)
    eos = tokenizer.token_to_id(names["eos_token"])
    LlamaConfig(vocab_size=size, eos_token_id=eos, bos_token_id=None).save_pretrained(path)
    return path
