"""The mutation tests of the core: every module has tests that answer for it, and a mutant is imported in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.mutant_tests import TESTS
from benchmarks.mutants import CORE, ROOT, Mutant, choose, is_noticed, modules, mutant_at, places_of

PLURAL = ROOT / CORE / "plural.py"


def test_every_module_of_the_core_has_its_tests():
    assert {str(path.relative_to(ROOT / CORE).with_suffix("")) for path in modules()} == set(TESTS)
    tests = {name for path in modules() for name in mutants.tests_of(str(path.relative_to(ROOT)))}
    assert [name for name in sorted(tests) if not (ROOT / name).is_file()] == []


def test_a_sample_is_the_same_for_a_seed_and_only_programs_that_differ_are_taken():
    everything, some = choose([PLURAL], 0, 1), choose([PLURAL], 3, 1)
    assert some == choose([PLURAL], 3, 1) and len(some) == 3 and set(some) <= set(everything)
    assert len(everything) == len({mutant.source for mutant in everything})
    assert "number != 1" in {mutant.after.partition("if ")[2].partition(" else")[0] for mutant in everything}


def test_annotations_and_ways_to_pass_an_argument_are_no_program(tmp_path: Path):
    module = tmp_path / "module.py"
    module.write_text("def f(x: tuple[1 + 1], *, z) -> tuple[1 + 1]:\n    y: tuple[1 + 1] = x\n    return y\n", "utf-8")
    places = places_of(module)
    assert len(places) > 3 and [mutant_at(*place) for place in places] == [None] * len(places)


@pytest.mark.process
def test_a_mutant_takes_the_place_of_its_module(tmp_path: Path):
    test = tmp_path / "test_plural.py"
    test.write_text(
        "from speculation.plural import count_of\ndef test_one():\n    assert count_of(1, 'cat') == '1 cat'\n", "utf-8"
    )
    path, source = str(PLURAL.relative_to(ROOT)), PLURAL.read_text("utf-8")
    for after, noticed in (("number == 2", True), ("number <= 1", False)):
        mutant = Mutant(path, 1, "number == 1", after, source.replace("number == 1", after))
        assert is_noticed([str(test)], mutant, timeout=280) is noticed
