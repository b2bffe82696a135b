"""Special tokens by the names that spell them: where a text spells one, and how to parse only some of those places."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from tokenizers import AddedToken, Tokenizer

#: Characters from..to.
Spot = tuple[int, int]


class SpecialNames:
    """Names of added tokens, to be found in texts; of those that overlap the first one counts, and the longest."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name for name in names if name)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        ordered = sorted(self._names, key=lambda name: (-len(name), name))
        return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")

    @functools.cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(name[:length] for name in self._names for length in range(1, len(name)))

    @functools.cached_property
    def _endings(self) -> frozenset[str]:
        return frozenset(name[length:] for name in self._names for length in range(1, len(name)))

    @functools.cached_property
    def _longest(self) -> int:
        return max(map(len, self._names), default=0)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def spots(self, text: str) -> list[Spot]:
        """Where the text spells a name."""
        return [match.span() for match in self._pattern.finditer(text)]

    def suspicious(self, content: str) -> list[Spot]:
        """Where a content spells a name, and where it ends or begins with a part of one, which another content that
        a template sets right beside it may complete. White space at its ends is looked through: templates trim it.
        """
        spots = self.spots(content)
        start, end = len(content) - len(content.lstrip()), len(content.rstrip())
        lengths = range(min(self._longest, end - start), 0, -1)
        head = next((start + n for n in lengths if content[start : start + n] in self._endings), start)
        tail = next((end - n for n in lengths if content[end - n : end] in self._beginnings), end)
        return _united([*spots, (start, head), (tail, end)])


def _united(spots: Iterable[Spot]) -> list[Spot]:
    """The same characters in spots that are in order and apart."""
    united: list[Spot] = []
    for start, end in sorted(spot for spot in spots if spot[0] < spot[1]):
        if united and start <= united[-1][1]:
            united[-1] = united[-1][0], max(end, united[-1][1])
        else:
            united.append((start, end))
    return united


#: Around a stand-in. Noncharacters, which no text should have; in one that has them the first is stood in for.
LEFT, RIGHT = "\ufdd0", "\ufdd1"


class PickyParser:
    """Encodes a text in which only certain places are special tokens, whatever else in it spells one.

    Those places are given stand-ins, other names that the tokenizer knows as tokens of the same habits, so that all
    else, spaces, normal forms and merges, is as it is around the special tokens themselves. ``literal`` is a tokenizer
    that parses no special tokens; it becomes this parser's own. ``left``: the ids of the text ``LEFT``.
    """

    def __init__(self, literal: Tokenizer, added: Mapping[int, AddedToken], left: Sequence[int]) -> None:
        self._tokenizer = literal
        self._added = {token.content: (number, token) for number, token in added.items()}
        self._meant: dict[int, Sequence[int]] = {}  # id of a stand-in -> what it stands for
        self._left = left

    def encode(self, text: str, places: Sequence[Spot]) -> list[tuple[int, str]]:
        """Token ids, each with what it spells."""
        pieces, at = [], 0
        for start, end in places:
            pieces += [self._safe(text[at:start]), self._name(text[start:end])]
            at = end
        standing_in = "".join([*pieces, self._safe(text[at:])])
        encoding = self._tokenizer.encode(standing_in, add_special_tokens=False)
        return [
            (meant, standing_in[start:end])
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            for meant in self._meant.get(token, (token,))
        ]

    def _safe(self, text: str) -> str:
        """The text, in which nothing can be taken for a stand-in."""
        return text.replace(LEFT, self._stand_in("", self._left, AddedToken(LEFT))) if LEFT in text else text

    def _name(self, name: str) -> str:
        number, like = self._added[name]
        return self._stand_in(str(number), (number,), like)

    def _stand_in(self, label: str, meant: Sequence[int], like: AddedToken) -> str:
        stand_in = f"{LEFT}{label}{RIGHT}"
        if self._tokenizer.token_to_id(stand_in) is None:
            token = AddedToken(stand_in, lstrip=like.lstrip, rstrip=like.rstrip, normalized=False, special=False)
            self._tokenizer.add_tokens([token])
            added = self._tokenizer.token_to_id(stand_in)
            assert added is not None
            self._meant[added] = meant
        return stand_in
