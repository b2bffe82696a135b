"""A GGUF file -> a folder with bfloat16 safetensors, tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path

from speculation.errors import WeightsError


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise ``gguf`` into ``folder``. Raises WeightsError if it cannot be read."""
    # Heavy imports, and only for the one time that a model is converted.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from language_models.quiet import quiet

    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                local_files_only=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # the readers raise what they like on a broken file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{gguf} cannot be converted: {reason}", remedy="check the file") from error
