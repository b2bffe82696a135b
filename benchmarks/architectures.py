"""Which architectures can be served: a tiny random model of each through `dragoman models check`, as a Markdown table.

    python -m benchmarks.architectures --output docs/architectures.md

Takes some two minutes on one core, and needs no weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import transformers
import typer

from benchmarks.command import run_command
from dragoman.model_check import Checked, check_model
from tests.support.architecture_settings import ARCHITECTURES, Architecture
from tests.support.tiny_architectures import shared_tokenizer, tiny_architecture

DTYPES = ("float32", "bfloat16")
_HEAD = """# Architectures

{served} of these {all} kinds of models are served, as targets and as drafters (transformers {version}, float32 and
bfloat16 on a CPU). Each row is a tiny random model, put to the tests that every model has to pass when it is loaded:
the same logits for the same text whether its tokens run one by one, in one pass or as a tree of drafts, at the start,
beyond the windows of its layers and at the end of its context, also after some were taken back. Speculation rests on
that: without it, a text would depend on its drafts.

The same of a model of your own, with its real weights; exit code 3 if it is refused:

```
dragoman models check MODEL
```

This table is written by `python -m benchmarks.architectures --output docs/architectures.md`.

| architecture | attention and positions | served | why not |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """An architecture and what came of it, by dtype."""

    architecture: Architecture
    checked: dict[str, Checked]

    @property
    def served(self) -> str:
        """In which dtypes as a target."""
        dtypes = [dtype for dtype, found in self.checked.items() if found.target]
        return "yes" if len(dtypes) == len(self.checked) else f"in {', '.join(dtypes)}" if dtypes else "no"

    @property
    def reason(self) -> str:
        """Of the first dtype that is not served, without the model's name."""
        reasons = (found.reason for found in self.checked.values() if not found.target)
        reason = next(reasons, "")
        for name in (f"{self.architecture.name} ({self.architecture.model_type}) ", f"{self.architecture.model_type} "):
            reason = reason.removeprefix(name)
        return reason.removeprefix("cannot be served: ")


def check_all(architectures: Sequence[Architecture], folder: Path) -> Iterator[Row]:
    """Make each in ``folder`` and load it. Raises nothing for one that is refused."""
    tokenizer = shared_tokenizer(folder / "tokenizer")
    for number, architecture in enumerate(architectures):
        # A folder has the name of its model: it is in the messages.
        model = tiny_architecture(architecture.name, folder / str(number) / architecture.name, tokenizer=tokenizer)
        checked = {dtype: check_model(str(model), device="cpu", dtype=dtype) for dtype in DTYPES}
        yield Row(architecture, checked)


def table(rows: Sequence[Row]) -> str:
    """The Markdown document."""
    head = _HEAD.format(
        version=transformers.__version__, served=sum(row.served == "yes" for row in rows), all=len(rows)
    )
    cells = ((row.architecture.name, row.architecture.attention, row.served, row.reason) for row in rows)
    return head + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in cells)


def main(
    output: Annotated[Path | None, typer.Option(help="Write the table here instead of to standard output")] = None,
    only: Annotated[str, typer.Option(help="Architectures with this in their names")] = "",
) -> None:
    chosen = [architecture for architecture in ARCHITECTURES if only in architecture.name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DRAGOMAN_HOME"] = f"{folder}/home"  # nothing of before counts
        rows = []
        for row in check_all(chosen, Path(folder)):
            typer.echo(f"{row.architecture.name}: {row.served} {row.reason}", err=True)
            rows.append(row)
    if output is None:
        typer.echo(table(rows), nl=False)
    else:
        output.write_text(table(rows), "utf-8")


if __name__ == "__main__":
    run_command(main)
