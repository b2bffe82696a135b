"""`dragoman models`: what is embedded, what is here, fetching, converting, removing."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.console import Console

from dragoman.loading import show_licence
from dragoman.record_table import record_table
from dragoman.terminal import err, progress_bar
from language_models import conversions, weights
from language_models.embedded import EMBEDDED
from language_models.pins import MARK, pinned
from speculation.errors import InputError, UnknownModelError


def show_models(*, everything: bool, console: Console | None = None) -> None:
    """One line a model: the embedded ones; with ``everything``, the converted files as well."""
    console = console or Console()
    found = conversions.conversions()
    total = f", {_size(sum(conversion.bytes_on_disk for conversion in found))}" if found else ""
    title = f"Embedded models, converted in {conversions.models_folder()}{total if everything else ''}"
    console.print(title, highlight=False, soft_wrap=True, end="\n\n")
    embedded = [
        (
            model.name,
            model.licence,
            f"{model.vocabulary:,}",
            "installed" if model.installed else "missing",
            _size(model.bytes_on_disk) if model.converted else "not yet",
        )
        for model in weights.list_models()
    ]
    headings = ("vocabulary", "packages", "converted")
    console.print(record_table(console.width, ("name", "licence"), headings, embedded), highlight=False)
    files = [
        (file.name, file.source or "unknown", _size(file.bytes_on_disk)) for file in found if file.name not in EMBEDDED
    ]
    if not everything:
        if files:
            count = "one converted file" if len(files) == 1 else f"{len(files)} converted files"
            console.print(f"\n{count} more: dragoman models list --all", highlight=False)
    elif files:
        console.print("\nConverted files\n", highlight=False)
        console.print(record_table(console.width, ("name", "file"), ("size",), files), highlight=False)
    else:
        words = "No .gguf file is converted yet: name one wherever a model is asked for, and it is."
        console.print(f"\n{words}", highlight=False)


def show_digests(paths: list[str]) -> None:
    """A line each, ``PATH@sha256:HEX``. Raises UnknownModelError, WeightsError."""
    for path in paths:
        name = path.partition(MARK)[0]
        with progress_bar() as progress:
            found = pinned(Path(name).expanduser(), progress)
        print(f"{name}{MARK}{found}")


def fetch_models(names: list[str], *, force: bool) -> None:
    """Raises UnknownModelError, WeightsError."""
    for name in names:
        show_licence(name)
        with progress_bar() as progress:
            folder = weights.fetch(name, force=force, progress=progress)
        err.print(f"{name} is ready in {folder}", highlight=False, soft_wrap=True)


def convert_model(model: str) -> None:
    """Raises InputError, UnknownModelError, WeightsError."""
    show_licence(model)
    stages: set[str] = set()
    with progress_bar() as progress:

        def noting(stage: str, done: int, total: int) -> None:
            stages.add(stage)
            progress(stage, done, total)

        files = weights.resolve(model, progress=noting)
        if not files.local:
            raise InputError("model", model, "is neither embedded nor a file", remedy="see dragoman models list")
        folder = Path(files.source)
        # What was converted just now needs no second look.
        if "converting" not in stages and (folder / conversions.MANIFEST).is_file():
            again = f"run `dragoman models remove {folder.name}` and convert again"
            conversions.verify(folder, remedy=again, progress=progress)
    err.print(f"{files.name} is ready in {files.source}", highlight=False, soft_wrap=True)


def remove_models(names: list[str], *, yes: bool) -> None:
    """Delete conversions; asks first on a terminal, unless ``yes``. Raises UnknownModelError, WeightsError."""
    found = {conversion.name: conversion for conversion in conversions.conversions()}
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in found]
    if unknown and not found:
        raise UnknownModelError(
            f"nothing is converted in {conversions.models_folder()}, so there is no {unknown[0]!r} to remove",
            remedy="see `dragoman models list --all`",
        )
    if not unknown and not yes and sys.stdin.isatty():
        size = _size(sum(found[name].bytes_on_disk for name in names))
        if not typer.confirm(f"Remove {', '.join(names)} ({size})?", err=True):
            err.print("nothing was removed", highlight=False)
            return
    for name in [*unknown, *names]:  # an unknown one before anything is lost
        freed = conversions.remove(name)
        err.print(f"{name} is removed: {_size(freed)} are free", highlight=False, soft_wrap=True)


def _size(number: int) -> str:
    return f"{number / 1e6:,.0f} MB" if number >= 1e6 else f"{number / 1e3:,.0f} kB"
