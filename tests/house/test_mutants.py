"""The mutation tests of the core: every module has tests that answer for it, and a mutant is imported in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.mutant_tests import TESTS
from benchmarks.mutants import CORE, ROOT, choose, modules, mutant_at, places_of

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


#: In a process of its own, as `make mutants` is: forked from a worker of the tests, with threads of gRPC, it may hang.
PROGRAM = """
import sys
from benchmarks.mutants import ROOT, Mutant, is_noticed
test, path, after = sys.argv[1:]
source = (ROOT / path).read_text("utf-8").replace("number == 1", after)
print(is_noticed([test], Mutant(path, 1, "number == 1", after, source), timeout=280))
"""


@pytest.mark.process
def test_a_mutant_takes_the_place_of_its_module(tmp_path: Path):
    test = tmp_path / "test_plural.py"
    test.write_text(
        "from speculation.plural import count_of\ndef test_one():\n    assert count_of(1, 'cat') == '1 cat'\n", "utf-8"
    )
    for after, noticed in (("number == 2", True), ("number <= 1", False)):
        command = [sys.executable, "-c", PROGRAM, str(test), str(PLURAL.relative_to(ROOT)), after]
        answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=500)
        assert answer.stdout.split()[-1] == str(noticed)
