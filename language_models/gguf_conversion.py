"""A GGUF file -> a folder with bfloat16 safetensors, tokenizer and chat template."""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Iterator
from pathlib import Path

from language_models.gguf_parts import part_of_more
from speculation.errors import WeightsError


def convert_gguf(gguf: Path, folder: Path, *, name: str) -> None:
    """Dequantise ``gguf`` into ``folder``. ``name``: of the model, for messages.

    Raises WeightsError if it cannot be read or lacks tensors, OSError if ``folder`` cannot be written.
    """
    # Heavy imports, and only for the one time that a model is converted.
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from language_models.pretrained import check_complete
    from language_models.quiet import quiet

    try:
        with quiet(), _one_reader():
            model, loaded = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # to name them
                output_loading_info=True,
            )
            check_complete(name, model, loaded, remedy=lambda: _remedy(gguf))
            tokenizer = AutoTokenizer.from_pretrained(
                gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
            )
    except WeightsError:
        raise
    except Exception as error:  # the readers raise what they like on a broken file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{name} cannot be converted: {reason}", remedy=_remedy(gguf)) from error
    try:
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except SafetensorError as error:  # says no number, but what the system said
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(folder)) from error


@contextlib.contextmanager
def _one_reader() -> Iterator[None]:
    """transformers reads the file once for each of configuration, tokenizer and weights; with a vocabulary of 262,144
    tokens that is most of the time of a conversion."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.lru_cache(maxsize=1)(reader)  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = reader  # type: ignore[misc]


def _remedy(gguf: Path) -> str:
    if part := part_of_more(gguf):
        return f"{part}: give all of them the names that they had, or join them with `llama-gguf-split --merge`"
    return "check the file, or download it again"
