"""`dragoman models`: what is embedded, what is here, fetching and converting."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from dragoman.loading import show_licence
from dragoman.terminal import err, progress_bar
from language_models import weights
from speculation.errors import InputError


def show_models() -> None:
    """One line a model."""
    table = Table(title=f"Embedded models, converted in {weights.home() / 'models'}", title_justify="left")
    for heading in ("name", "vocabulary", "licence", "packages", "converted"):
        table.add_column(heading, justify="right" if heading == "vocabulary" else "left")
    for model in weights.list_models():
        table.add_row(
            model.name,
            f"{model.vocabulary:,}",
            model.licence,
            "installed" if model.installed else "missing",
            f"{model.bytes_on_disk / 1e6:,.0f} MB" if model.converted else "not yet",
        )
    Console().print(table)


def fetch_models(names: list[str], *, force: bool) -> None:
    """Raises UnknownModelError, WeightsError."""
    for name in names:
        show_licence(name)
        with progress_bar() as progress:
            folder = weights.fetch(name, force=force, progress=progress)
        err.print(f"{name} is ready in {folder}", highlight=False, soft_wrap=True)


def convert_model(model: str) -> None:
    """Raises UnknownModelError, WeightsError."""
    show_licence(model)
    with progress_bar() as progress:
        files = weights.resolve(model, progress=progress)
        if not files.local:
            raise InputError("model", model, "is neither embedded nor a file", remedy="see dragoman models list")
        if files.local and (Path(files.source) / weights.MANIFEST).is_file():
            weights.verify(Path(files.source), remedy=f"remove {files.source} and convert again", progress=progress)
    err.print(f"{files.name} is ready in {files.source}", highlight=False, soft_wrap=True)
