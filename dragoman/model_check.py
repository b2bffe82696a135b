"""`dragoman models check`: can this model be served, and if not, why?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.text import Text

from dragoman.loading import show_licence
from dragoman.terminal import progress_bar
from language_models.causal_lm import CausalLM
from language_models.weights import Progress
from speculation.errors import DragomanError, InputError, ModelError
from verifier_service.transformers_engine import TransformersEngine


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of loading a model and of its self-tests. ``target``, ``drafter``: what it can serve as.

    ``reason`` and ``remedy``: why not as both. ``unproven``: what the self-test could not try here.
    ``tokenizer_problems``: texts that do not come back from tokens byte for byte. One that does not load has no kind,
    dtype, vocabulary or context.
    """

    model: str
    target: bool = False
    drafter: bool = False
    reason: str = ""
    remedy: str = ""
    model_type: str = ""
    dtype: str = ""
    vocabulary: int | None = None
    context_length: int | None = None
    unproven: list[str] = field(default_factory=list)
    tokenizer_problems: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return not (self.target or self.drafter)


def check_model(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """Load ``model`` as a verifier does, with the tests that this comes with. Raises InputError."""
    try:
        loaded = CausalLM.load(
            model, device=device, dtype=dtype, threads=threads, trust_remote_code=trust_remote_code, progress=progress
        )
    except ModelError as error:
        return Checked(model, reason=error.message, remedy=error.remedy)
    refusal: DragomanError | None = None
    try:
        TransformersEngine(loaded)
    except (InputError, ModelError) as error:
        refusal = error
    return Checked(
        model,
        target=refusal is None,
        drafter=True,
        reason=refusal.message if refusal else "",
        remedy=refusal.remedy if refusal else "",
        model_type=loaded.config.model_type,
        dtype=loaded.dtype_name,
        vocabulary=loaded.vocab_size,
        context_length=loaded.context_length,
        unproven=list(loaded.self_test.unproven),
        tokenizer_problems=loaded.tokenizer.self_test(),
    )


def check_models(
    models: Sequence[str], *, device: str, dtype: str, threads: int | None, trust_remote_code: bool, as_json: bool
) -> bool:
    """Prints what was found, model by model; returns whether none is refused. Raises InputError."""
    console, found = Console(), []
    for model in models:
        show_licence(model)
        with progress_bar() as progress:
            checked = check_model(
                model,
                device=device,
                dtype=dtype,
                threads=threads,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
        found.append(checked)
        if not as_json:
            show(checked, console)
    if as_json:
        print(json.dumps({"models": [asdict(checked) for checked in found]}))
    return not any(checked.refused for checked in found)


def show(checked: Checked, console: Console) -> None:
    """A line with the verdict, and one for whatever else there is to say."""
    if checked.refused:
        verdict, style, what = "refused", "bold red", ""
    else:
        verdict, style = ("serves", "bold green") if checked.target else ("serves as a drafter only", "bold yellow")
        what = (
            f"  {checked.model_type}, {checked.dtype}, {checked.vocabulary:,} ids, context {checked.context_length:,}"
        )
    console.print(Text.assemble(checked.model, ": ", (verdict, style), (what, "dim")), soft_wrap=True)
    if checked.reason:
        console.print(Text(f"  {checked.reason}"), soft_wrap=True)
    if checked.remedy:
        console.print(Text.assemble(("  fix: ", "bold"), checked.remedy), soft_wrap=True)
    for problem in checked.unproven:
        console.print(Text(f"  not tried: {problem}", style="yellow"), soft_wrap=True)
    for problem in checked.tokenizer_problems:
        console.print(Text(f"  its tokenizer is not exact: {problem}", style="yellow"), soft_wrap=True)
