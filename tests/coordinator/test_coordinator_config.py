"""Settings of the coordinator: the commented file, and mistakes in one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import EXAMPLE, CoordinatorConfig, read_config
from speculation.errors import InputError


def read(tmp_path: Path, text: str) -> CoordinatorConfig:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return read_config(path)


def test_the_commented_file_holds_the_defaults_all_of_them():
    import yaml

    assert read_config(EXAMPLE) == CoordinatorConfig()
    written = yaml.safe_load(EXAMPLE.read_text())

    def names(model) -> dict:
        inner = {name: getattr(model, name) for name in type(model).model_fields}
        return {name: names(value) if hasattr(value, "model_fields_set") else None for name, value in inner.items()}

    def keys(values) -> dict | None:
        return {name: keys(value) for name, value in values.items()} if isinstance(values, dict) else None

    assert keys(written) == names(CoordinatorConfig())


def test_what_is_left_out_keeps_its_default(tmp_path: Path):
    config = read(tmp_path, "plan:\n  max_width: 4\nmissed_reports: 8\n")
    assert config.plan.max_width == 4 and config.plan.max_lookahead == 32
    assert config.dead_after == 2.0
    assert read(tmp_path, "") == read(tmp_path, "# nothing\n") == CoordinatorConfig()
    assert read(tmp_path, "report_seconds: 1") == CoordinatorConfig(report_seconds=1)


@pytest.mark.parametrize(
    "text, words",
    [
        ("listen: a:1\nplan:\n  max_width: 0\n", ["line 3", "plan.max_width=0", "greater than or equal to 1"]),
        ("placment:\n  margin: 1\n", ["line 1", "placment", "no such setting", "placement"]),
        ("plan:\n\n  max_with: 2\n", ["line 3", "plan.max_with=2", "max_width, max_lookahead"]),
        ("report_seconds: .nan", ["report_seconds=nan", "finite"]),
        ("report_seconds: fast", ["report_seconds='fast'", "valid number"]),
        ("missed_reports: 2.5", ["missed_reports=2.5", "integer"]),
        ("placement:\n  margin: 2", ["line 2", "placement.margin=2", "less than or equal to 1"]),
        ("plan: 3", ["line 1", "plan=3", "settings of its own"]),
        ("a: [", ["not YAML, line 1"]),
        ("- 1\n- 2", ["holds no settings"]),
        ("1: 2", ["keys should be strings"]),
        ("plan:\n  max_with: 2\n", ["line 2", "did you mean max_width?"]),
        (
            "missed_reports: 8\nplan:\n  max_width: 4\nmissed_reports: 9\n",
            ["lines 1, 4", "missed_reports=9", "more than once", "keep one"],
        ),
        (
            "plan:\n  max_width: 4\n  margin: 0.1\n  max_width: 4\n  'max_width': 8\n",
            ["lines 2, 4, 5", "plan.max_width=8", "more than once"],
        ),
        ("plan:\n  max_width: 4\nplan:\n  margin: 0.1\n", ["lines 1, 3", "plan={'margin': 0.1}"]),
        ("listen: 2026-99-99\n", ["cannot be parsed", "month"]),
        ("[" * 5000, ["cannot be parsed"]),
    ],
)
def test_mistakes_name_line_field_value_and_remedy(tmp_path: Path, text: str, words: list[str]):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "mine.yaml" in str(caught.value) and caught.value.remedy


def test_anchors_and_merged_mappings_are_not_taken_for_doubles(tmp_path: Path):
    written = "plan: &same\n  margin: 0.5\nplacement:\n  <<: *same\n  margin: 0.25\n"
    config = read(tmp_path, written)
    assert (config.plan.margin, config.placement.margin) == (0.5, 0.25)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(InputError, match="No such file"):
        read_config(tmp_path / "absent.yaml")
    (tmp_path / "latin1.yaml").write_bytes("listen: café".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_config(tmp_path / "latin1.yaml")
