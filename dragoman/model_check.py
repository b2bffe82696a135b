"""`dragoman models check`: can this model be served, and if not, why?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.text import Text

from dragoman.loading import load_model
from dragoman.terminal import show_error
from speculation.errors import ModelError


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of loading one model. ``tokenizer_problems``: texts that do not come back byte for byte.

    A refused one has a ``reason`` and no dtype, vocabulary or context.
    """

    model: str
    serves: bool
    reason: str = ""
    remedy: str = ""
    dtype: str = ""
    vocabulary: int | None = None
    context_length: int | None = None
    tokenizer_problems: list[str] = field(default_factory=list)


def check_model(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> Checked:
    """Load ``model`` as a verifier does, with all the tests that this comes with. Raises InputError."""
    try:
        loaded = load_model(model, device=device, dtype=dtype, threads=threads, trust_remote_code=trust_remote_code)
    except ModelError as error:
        return Checked(model, serves=False, reason=error.message, remedy=error.remedy)
    return Checked(
        model,
        serves=True,
        dtype=loaded.dtype_name,
        vocabulary=loaded.vocab_size,
        context_length=loaded.context_length,
        tokenizer_problems=loaded.tokenizer.self_test(),
    )


def check_models(
    models: Sequence[str], *, device: str, dtype: str, threads: int | None, trust_remote_code: bool, as_json: bool
) -> bool:
    """Prints what was found, model by model; returns whether all can be served. Raises InputError."""
    console, found = Console(), []
    for model in models:
        found.append(
            check_model(model, device=device, dtype=dtype, threads=threads, trust_remote_code=trust_remote_code)
        )
        if not as_json:
            show(found[-1], console)
    if as_json:
        print(json.dumps({"models": [asdict(checked) for checked in found]}))
    return all(checked.serves for checked in found)


def show(checked: Checked, console: Console) -> None:
    """One line, and one for what is not as it should be."""
    if not checked.serves:
        console.print(Text.assemble(checked.model, ": ", ("refused", "bold red")), soft_wrap=True)
        show_error(ModelError(checked.reason, remedy=checked.remedy), console)
        return
    what = f", {checked.dtype}, {checked.vocabulary:,} ids, {checked.context_length:,} tokens of context"
    console.print(Text.assemble(checked.model, ": ", ("serves", "bold green"), what), soft_wrap=True)
    for problem in checked.tokenizer_problems:
        console.print(f"  but its tokenizer is not exact: {problem}", style="yellow", highlight=False, soft_wrap=True)
