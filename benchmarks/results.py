"""Where a benchmark's figures go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_results(found: dict[str, Any], output: Path | None) -> None:
    """As JSON into the file, or to standard output; what JSON does not know is written as text."""
    text = json.dumps(found, default=str, indent=1)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n")
