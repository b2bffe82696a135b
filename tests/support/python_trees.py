"""What the rules of the house read from Python's syntax trees: imports, exceptions, and what has no docstring."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path


def imported_modules(tree: ast.Module, package: str) -> Iterator[str]:
    """Dotted names of all modules that the tree imports, lazily or not. `package` resolves relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield _origin(node, package)


def imported_names(tree: ast.Module, package: str) -> Iterator[str]:
    """Likewise, each `from` with what is taken out of the module: that may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{_origin(node, package)}.{alias.name}" for alias in node.names)


def _origin(node: ast.ImportFrom, package: str) -> str:
    """The module that it imports from."""
    if not node.level:
        assert node.module is not None
        return node.module
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, node.module] if node.module else parents)


def exception_classes(trees: dict[Path, ast.Module]) -> dict[str, Path]:
    """Names of the exception classes that these files define, with their files.

    A class is one when a base is a built-in exception, another such class, or has the name of one from elsewhere.
    """
    classes = [
        (path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    known = {
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
    }
    found: dict[str, Path] = {}
    while True:
        new = {
            node.name: path
            for path, node in classes
            if node.name not in found
            and any(
                name in known or name in found or re.search(r"(Error|Exception|Interrupt|Exit)$", name)
                for name in (ast.unparse(base).split(".")[-1] for base in node.bases)
            )
        }
        if not new:
            return found
        found |= new


def undocumented(tree: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, list[str]]]:
    """The public classes, functions and methods that lack a docstring or type hints, with what they lack."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        lacks = [] if ast.get_docstring(node) else ["docstring"]
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node, f"{node.name}.")
        else:
            given = [child for child in ast.iter_child_nodes(node.args) if isinstance(child, ast.arg)]
            lacks += [name.arg for name in given if name.annotation is None and name.arg not in ("self", "cls")]
            lacks += [] if node.returns else ["return"]
        if lacks:
            yield within + node.name, lacks
