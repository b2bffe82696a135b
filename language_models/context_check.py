"""A text that is longer than a model's context, said to people; whichever engine runs the model."""

from __future__ import annotations

from speculation.errors import InputError


def check_context(model: str, context_length: int, tokens: int) -> None:
    """Raises InputError if a text of so many tokens is longer than the context."""
    if tokens > context_length:
        problem = f"exceed the context of {model}, {context_length} tokens"
        raise InputError("tokens", f"{tokens} tokens", problem, remedy="shorten the prompt")
