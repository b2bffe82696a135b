"""``generate`` of Hugging Face transformers, its drafts from a process with another model of another vocabulary.

    python examples/huggingface.py --target qwen2.5-coder-1.5b --drafter smollm2-135m

The drafter may as well run on another machine: ``dragoman drafter --model smollm2-135m --verifier HOST:50061``.
"""

from __future__ import annotations

import subprocess
import sys
import time

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from dragoman import RemoteDrafting
from dragoman.taking_turns import TAKING_TURNS
from language_models.weights import resolve


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    prompt: str = "def fibonacci(n):",
    max_tokens: int = 64,
    temperature: float = 0.0,
) -> None:
    """Write one text without a drafter and with one."""
    folder = resolve(target).source  # from_pretrained takes a hub id as well, and knows no embedded names
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings: dict[str, object] = {"max_new_tokens": max_tokens, "do_sample": temperature > 0}
    if temperature > 0:
        settings["temperature"] = temperature

    def write(drafting: RemoteDrafting) -> torch.Tensor:
        torch.manual_seed(7)
        inputs, started = tokenizer(prompt, return_tensors="pt"), time.perf_counter()
        written = model.generate(**inputs, custom_generate=drafting, **settings)
        done, seconds = drafting.last, time.perf_counter() - started
        print(
            f"{len(drafting.drafters)} drafters: {done.tokens / seconds:5.1f} tokens/s, "
            f"{done.tokens_per_step:.2f} a step, {done.accepted_tokens} of {done.draft_tokens} draft tokens accepted"
        )
        return written

    # A plan for two that share the processors of one machine. Without it, how far to speculate is found out.
    with RemoteDrafting(model, tokenizer, listen="127.0.0.1:0", plan=TAKING_TURNS) as drafting:
        alone = write(drafting)
        command = [sys.executable, "-m", "dragoman", "drafter", f"--model={drafter}", f"--verifier={drafting.address}"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            drafting.wait_for_drafters(seconds=120)
            drafted = write(drafting)
            process.terminate()
    assert torch.equal(alone, drafted), "speculation never changes the text"
    print("\n" + tokenizer.decode(drafted[0]))


if __name__ == "__main__":
    typer.run(main)
