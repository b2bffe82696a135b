"""Mutation tests of the pure core: would the tests notice if a line of it said something else?

Cosmic Ray makes the mutants; here are the choice of them, the tests of each module, and the report. No file is
changed: each mutant is imported in place of its module by a forked process, which runs the module's tests to the first
that fails. One that hangs, or eats up its memory, is noticed.

    python -m benchmarks.mutants --sample 150 --seed 1
    python -m benchmarks.mutants --module speculation/drafts/reliability.py
"""

from __future__ import annotations

import ast
import gc
import importlib.machinery
import importlib.util
import itertools
import multiprocessing
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Annotated, Any

import pytest
import typer
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from hypothesis import Phase, settings

from benchmarks.command import run_command
from benchmarks.mutant_tests import TESTS

ROOT = Path(__file__).resolve().parents[1]
CORE = "speculation"
SERVICES = ("coordinator", "dragoman", "drafter_service", "engine", "language_models", "transport", "verifier_service")
OURS = (CORE, "benchmarks", "tests", *SERVICES)

#: Of Cosmic Ray's operators: arithmetic and conditions become their opposites, bounds move by one, numbers by one
#: either way, loops do nothing. Its other replacements of the same operators say hardly more.
_BINARY = "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul RShift_LShift LShift_RShift"
_BITS = "BitXor_BitAnd BitAnd_BitOr"
_COMPARISON = "Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is"
_WORDS = "TrueWithFalse FalseWithTrue AndWithOr OrWithAnd BreakWithContinue ContinueWithBreak"
OPERATORS = (
    *(f"core/ReplaceBinaryOperator_{pair}" for pair in f"{_BINARY} {_BITS}".split()),
    *(f"core/ReplaceComparisonOperator_{pair}" for pair in _COMPARISON.split()),
    *(f"core/Replace{pair}" for pair in _WORDS.split()),
    *(f"core/ReplaceUnaryOperator_{pair}" for pair in ("Delete_Not", "Delete_USub", "Delete_Invert")),
    *("core/AddNot", "core/NumberReplacer", "core/ZeroIterationForLoop"),
)


@dataclass(frozen=True)
class Mutant:
    """``path``: from the root of the repository. ``source``: of the whole module, changed in ``line``."""

    path: str
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}\n    {self.before}\n    {self.after}"


def _program(source: str) -> str | None:
    """What the source does, None if it is no Python: without annotations, ways to pass an argument, slots, and the
    ``strict`` of a zip, which no right program needs."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("slots", "strict")]
        elif isinstance(node, ast.arguments):  # a lone * is no product
            node.args, node.posonlyargs, node.kwonlyargs = node.posonlyargs + node.args + node.kwonlyargs, [], []
            node.defaults, node.kw_defaults = node.defaults + [given for given in node.kw_defaults if given], []
    return ast.dump(tree)


def places_of(path: Path) -> list[tuple[Path, str, int]]:
    """Where a module can be changed: module, operator, and which of the operator's places."""
    nodes = list(ast_nodes(get_ast(path.read_text("utf-8"))))
    found = []
    for name in OPERATORS:
        operator = get_operator(name)()
        count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
        found += [(path, name, number) for number in range(count)]
    return found


def mutant_at(path: Path, name: str, number: int) -> Mutant | None:
    """None if the change makes no program, or none that does anything else."""
    source = path.read_text("utf-8")
    changed = mutate_code(source, get_operator(name)(), number)
    if changed is None or _program(changed) in (None, _program(source)):
        return None
    pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
    line, (old, new) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
    return Mutant(str(path.relative_to(ROOT)), line, old.strip(), new.strip(), changed)


def modules() -> list[Path]:
    """Those of the core that hold code."""
    return sorted(path for path in (ROOT / CORE).rglob("*.py") if path.name != "__init__.py")


def tests_of(path: str) -> list[str]:
    """The test files of a module of the core, from the root of the repository."""
    names = [*TESTS[path.removeprefix(f"{CORE}/").removesuffix(".py")].split(), "test_values"]
    return [f"tests/{name if '/' in name else f'speculation/{name}'}.py" for name in dict.fromkeys(names)]


class _Mutated(importlib.machinery.SourceFileLoader):
    """Imports the mutant where its module is asked for."""

    def __init__(self, mutant: Mutant) -> None:
        self._source = mutant.source
        super().__init__(mutant.path.removesuffix(".py").replace("/", "."), str(ROOT / mutant.path))

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec")


class _FirstExample:
    """Keeps hypothesis from looking for the smallest example of a failure."""

    def pytest_sessionstart(self) -> None:
        phases = Phase.explicit, Phase.generate
        settings.register_profile("mutants", settings.default, phases=phases, report_multiple_bugs=False)
        settings.load_profile("mutants")


#: Exit code of a run with a failed test, and of all that is noticed otherwise.
_PASSED, _MEMORY = 0, 6 << 30


def _run(tests: list[str], mutant: Mutant | None) -> None:
    """In a process of its own."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    _forget_ours()
    if mutant is not None:
        sys.meta_path.insert(0, _Mutated(mutant))
    quick = ["--assert=plain", "--tb=no", "-p", "no:cacheprovider", "-p", "no:anyio"]
    arguments = ["-x", *quick, "-m", "not process and not models and not slow", *tests]
    os._exit(int(pytest.main(arguments, plugins=[_FirstExample()])))


def is_noticed(tests: list[str], mutant: Mutant | None, *, timeout: float) -> bool:
    """Whether a test fails, or is not over in ``timeout`` seconds."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(tests, mutant))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode != _PASSED


def _forget_ours() -> None:
    """Have our modules imported anew; the others are imported once, for all forked processes."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]


def choose(paths: Iterable[Path], sample: int, seed: int) -> list[Mutant]:
    """All mutants of these modules, or so many of them at random, in the order of their lines."""
    places = [place for path in paths for place in places_of(path)]
    random.Random(seed).shuffle(places)
    mutants = filter(None, (mutant_at(*place) for place in places))
    chosen = itertools.islice(mutants, sample or None)
    return sorted(chosen, key=lambda mutant: (mutant.path, mutant.line, mutant.source))


def run_all(mutants: list[Mutant], say: Callable[[str], None]) -> tuple[Counter[str], list[Mutant]]:
    """How many of each module were noticed, and those that were not."""
    noticed: Counter[str] = Counter()
    survivors: list[Mutant] = []
    limits: dict[str, float] = {}
    for mutant in mutants:
        tests = tests_of(mutant.path)
        if mutant.path not in limits:
            began = time.monotonic()
            if is_noticed(tests, None, timeout=600):
                raise typer.BadParameter(f"the tests of {mutant.path} fail without any change")
            limits[mutant.path] = 15 + 4 * (time.monotonic() - began)
        if is_noticed(tests, mutant, timeout=limits[mutant.path]):
            noticed[mutant.path] += 1
        else:
            survivors.append(mutant)
            say(f"survived {mutant}")
    return noticed, survivors


def main(
    module: Annotated[list[str] | None, typer.Option(help="Only this file or folder; may be repeated")] = None,
    sample: Annotated[int, typer.Option(help="So many of the mutants, at random; 0: all")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sample")] = 1,
) -> None:
    """Print the survivors as they are found, and the figures of each module; exit code 1 if any survived."""
    os.chdir(ROOT)
    paths = [path for path in modules() if any(path.is_relative_to(ROOT / name) for name in module or [CORE])]
    if not paths:
        raise typer.BadParameter(f"no module of {CORE}/ is under {', '.join(module or [])}")
    mutants = choose(paths, sample, seed)
    import tests.conftest  # noqa: F401

    gc.freeze()  # what is shared with the forked processes is no garbage of theirs
    noticed, survivors = run_all(mutants, lambda line: print(line, flush=True))
    for path, count in sorted(Counter(mutant.path for mutant in mutants).items()):
        print(f"{noticed[path]:4} of {count:4} killed  {path}")
    print(f"{noticed.total():4} of {len(mutants):4} killed: {noticed.total() / len(mutants):.1%}")
    raise typer.Exit(bool(survivors))


if __name__ == "__main__":
    run_command(main)
