"""How the code is written, read from the source with ast: functions of a screen, plain constructions, one language."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.repository import ARROWS, ROOT, sources

MAX_LINES, MAX_DEPTH, MAX_POSITIONAL = 50, 4, 3
#: Longer for a reason: kernels, whose phases share their registers; a command's options, one line each and more; the
#: life of a server, from its port to its end.
LONG = {
    "_multiply",
    "_partials",
    "_rotate_and_write",
    "combine_partials",
    "tree_attention",
    "verifier",
    "bench",
    "generate",
}
#: Of libraries, for any number of columns.
COLUMNS = {"Progress", "Table"}
#: Private by name only, in libraries.
OTHERS = {
    "_replace",
    "_execute_child",
    "_exit",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_global_mapping",
    "_buffers",
}
#: Words of the house's own that have one of the field, or of plain English.
WORDS = re.compile(r"\b(stranger|freak|whereabouts|trie_of|obey)\b", re.IGNORECASE)
_BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.AsyncWith, ast.AsyncFor, ast.Try, ast.Match)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sources(*ARROWS):
        yield path.relative_to(ROOT), ast.parse(path.read_bytes())


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def depth(node: ast.AST, outer: int = 0) -> int:
    """Of blocks within blocks; functions within functions count by themselves."""
    inner = [child for child in ast.iter_child_nodes(node) if not isinstance(child, (*Function.__args__, ast.ClassDef))]
    return max([outer, *(depth(child, outer + isinstance(child, _BLOCKS)) for child in inner)])


def is_class(function: ast.expr) -> bool:
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    return name.lstrip("_")[:1].isupper()


def test_functions_fit_a_screen() -> None:
    found = {
        function.name: function.end_lineno - function.lineno + 1
        for _, tree in trees()
        for function in functions(tree)
        if function.end_lineno is not None and function.end_lineno - function.lineno >= MAX_LINES
    }
    assert found.keys() == LONG, found


def test_blocks_are_not_nested_deeply() -> None:
    deep = {(str(path), function.name): depth(function) for path, tree in trees() for function in functions(tree)}
    assert {name: levels for name, levels in deep.items() if levels > MAX_DEPTH} == {}


def test_what_is_constructed_of_many_parts_names_them() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and is_class(node.func)
        and len(node.args) > MAX_POSITIONAL
        and ast.unparse(node.func) not in COLUMNS
    ]
    assert found == []


def test_nobody_reads_what_is_private_to_another_class() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in sources(*ARROWS, "tests")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr) and node.attr not in OTHERS
        if not re.match(r"(self|cls|other)\._|(torch|ray)\.", ast.unparse(node))
    ]
    assert found == []


def test_words_are_those_of_the_field() -> None:
    found = [f"{path}: {word}" for path in sources(*ARROWS) for word in WORDS.findall(path.read_text("utf-8"))]
    assert found == []


def test_classes_say_what_they_are() -> None:
    """In words of their own, not by pointing at the module."""
    pointing = [
        f"{path}: {node.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and (ast.get_docstring(node) or "").startswith("See the module")
    ]
    assert pointing == []
