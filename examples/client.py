"""A client of a running verifier: a completion as it grows, and what speculation did for it.

dragoman verifier --model qwen2.5-coder-1.5b &
dragoman drafter --model smollm2-135m &
python examples/client.py
"""

from __future__ import annotations

import asyncio

import typer

from dragoman import Client, DragomanError, SamplingParams


async def complete(verifier: str, prompt: str, max_tokens: int) -> None:
    async with Client(verifier) as client:
        stream = client.stream(prompt, sampling=SamplingParams(temperature=0.7, seed=7), max_tokens=max_tokens)
        async for chunk in stream:
            print(chunk.text, end="", flush=True)
        done = stream.completion
        print(f"\n\n{done.completion_tokens} tokens, {done.tokens_per_step:.2f} a step, ended by {done.finish_reason}")


def main(verifier: str = "127.0.0.1:50061", prompt: str = "def is_prime(n):", max_tokens: int = 64) -> None:
    """Ask the verifier for a completion."""
    try:
        asyncio.run(complete(verifier, prompt, max_tokens))
    except DragomanError as error:  # every error has words for people, and an exit code
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    typer.run(main)
