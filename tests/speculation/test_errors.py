"""The tree of exceptions: its exit codes, and what a message says."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from speculation import errors
from speculation.errors import DragomanError, InputError, UnknownModelError


def test_every_kind_has_the_exit_code_and_the_place_that_the_tree_shows():
    assert errors.__doc__ is not None
    rows = re.findall(r"^    ([ |'-]*)(\w+Error) +exit (\d)", errors.__doc__, re.M)
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__doc__}
    assert {name for _, name, _ in rows} == {name for name, kind in kinds.items() if issubclass(kind, DragomanError)}
    above: list[type] = []
    for indent, name, code in rows:
        del above[len(indent) // 3 :]
        assert kinds[name].exit_code == int(code)
        assert kinds[name].__base__ is (above[-1] if above else Exception)
        above.append(kinds[name])


def test_a_remedy_follows_in_brackets():
    assert str(DragomanError("it broke")) == "it broke"
    assert str(UnknownModelError("no model", remedy="look")) == "no model (look)"


@pytest.mark.parametrize(
    "value, shown",
    [
        ("x" * 78, "'" + "x" * 78 + "'"),
        ("x" * 79, "'" + "x" * 36 + "..." + "x" * 39 + "'"),
        # The name of a file is at the end of its path.
        (
            PurePosixPath("/folder" * 12, "drafts.jsonl"),
            "'" + "/folder" * 5 + "/..." + "older" + "/folder" * 3 + "/drafts.jsonl'",
        ),
        (999_999_999_999_999.0, "999999999999999"),
        (1e15, "1000000000000000.0"),
        (-1e15, "-1000000000000000.0"),
        ([70.0], "[70]"),
        ((70.0,), "70"),
        ((), "[]"),
        ((1, 2.0), "[1, 2]"),
    ],
)
def test_how_a_value_is_written(value: object, shown: str):
    error = InputError("f", value, "is wrong")
    assert error.message == f"f={shown}: is wrong"
    assert (error.field, error.value, error.problem) == ("f", value, "is wrong")


@pytest.mark.parametrize("message, field", [("top_p=3: a=b: c", "top_p"), ("prompt: is x=y", "prompt")])
def test_a_relayed_message_names_its_field_first(message: str, field: str):
    error = InputError.relayed(message)
    assert (error.field, error.value, error.problem, str(error)) == (field, None, message, message)
