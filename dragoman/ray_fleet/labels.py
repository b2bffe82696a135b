"""Labels of Ray's nodes: whether a selector is well formed, what fulfils it, the fewest nodes that fulfil several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import AfterValidator

_WORD: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_NAME: Final = re.compile(rf"(?:[a-zA-Z0-9][a-zA-Z0-9.-]{{0,252}}/)?{_WORD}")
_SELECTOR: Final = re.compile(rf"(?P<no>!?)(?:in\((?P<several>{_WORD}(?:, ?{_WORD})*)\)|(?P<one>{_WORD}))")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("should be the name of a label: letters, digits, `-`, `_`, `.`, at most 63 of them")
    return name


def _checked_selector(selector: str) -> str:
    if not _SELECTOR.fullmatch(selector):
        raise ValueError("should be a selector of Ray: `edge`, `!edge`, `in(edge, cloud)` or `!in(edge, cloud)`")
    return selector


#: Labels of a node, and what each must be.
Labels = dict[Annotated[str, AfterValidator(_checked_name)], Annotated[str, AfterValidator(_checked_selector)]]


def _asked(selector: str) -> tuple[list[str], bool]:
    """(the values it names, whether they are wanted)."""
    parts = _SELECTOR.fullmatch(selector)
    assert parts is not None, selector
    several = parts["several"]
    named = [word.strip() for word in several.split(",")] if several is not None else [parts["one"]]
    return named, not parts["no"]


def fulfils(value: str | None, selector: str) -> bool:
    """Whether a label with this value (None: the node has none) is what Ray's label selector asks for."""
    named, wanted = _asked(selector)
    return (value in named) is wanted


def label_sets(selectors: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """The fewest sets of labels, each for one node, so that each mapping of selectors has a node that fulfils it."""
    found: list[tuple[dict[str, str], list[Mapping[str, str]]]] = [({}, [])]
    for asked in selectors:
        for node, others in found:
            merged = node | _wanted(asked, node)
            if all(fulfils(merged.get(name), each) for those in (*others, asked) for name, each in those.items()):
                node |= merged
                others.append(asked)
                break
        else:
            found.append((_wanted(asked, {}), [asked]))
    return [node for node, _ in found]


def _wanted(asked: Mapping[str, str], node: Mapping[str, str]) -> dict[str, str]:
    """Labels that a node lacks to fulfil the selectors, if it can be done by adding some."""
    return {
        name: _asked(selector)[0][0]
        for name, selector in asked.items()
        if _asked(selector)[1] and not fulfils(node.get(name), selector)
    }
