"""The table of architectures: made by checks of today's code, and about every architecture that the tests know."""

from __future__ import annotations

from pathlib import Path

from benchmarks.architectures import check_all, table
from language_models.config import ModelConfig
from language_models.quiet import quiet
from language_models.weights import ModelFiles
from tests.support.architecture_settings import ARCHITECTURES
from tests.support.tiny_architectures import architecture_config

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"


def test_a_row_says_what_is_served_and_why_not(tmp_path: Path, dragoman_home: Path):
    chosen = [architecture for architecture in ARCHITECTURES if architecture.name in ("llama", "gemma2", "mamba")]
    rows = list(check_all(chosen, tmp_path))
    assert [(row.architecture.name, row.served) for row in rows] == [
        ("llama", "yes"),
        ("gemma2", "yes"),
        ("mamba", "no"),
    ]
    head, _, body = table(rows).partition("|---|---|---|---|\n")
    assert "2 of these 3 kinds" in head
    llama, _, mamba = body.splitlines()
    assert llama == "| llama | full, RoPE | yes |  |"
    assert mamba.startswith("| mamba | state space | no | has linear_attention layers")


def test_the_document_has_every_architecture():
    """Else run python -m benchmarks.architectures --output docs/architectures.md."""
    lines = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[:2] for line in lines] == [[f"| {a.name}", a.attention] for a in ARCHITECTURES]


def test_configurations_say_what_the_document_says(tmp_path: Path):
    """Of all these a configuration tells, without weights, what comes of the self-test."""
    lines = [line.split(" | ") for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    for (name, _, served, _), architecture in zip(lines, ARCHITECTURES, strict=True):
        with quiet():
            architecture_config(architecture).save_pretrained(tmp_path)
        config = ModelConfig.read(ModelFiles(name, str(tmp_path), local=True))
        cannot = config.cannot_roll_back or config.cannot_write or config.cannot_pass
        assert (served == "no") is bool(cannot), f"{name}: {cannot}"
