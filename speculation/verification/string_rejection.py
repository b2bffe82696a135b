"""String-level rejection sampling (SLRS, Timor et al. 2025, algorithm 3): the drafter's distribution of target tokens.

The paper's drafter draws d_1, ..., d_i from its own vocabulary D; t is the first token of the target's vocabulary T in
the text d_1 + ... + d_i. It is accepted with probability min(1, p(t) / psi(t)), else the token is drawn from the
normalised p(t) - min(p(t), psi(t)), where

    psi(t) = sum of q(d_1) q(d_2 | d_1) ... q(d_i | d_1 ... d_(i-1))  over all d_1, ..., d_i whose text begins with t

is the probability that t is what the drafter proposes: the expected acceptance rate is sum_t min(p(t), psi(t)).

"Begins with t" has to name one t for each text, or psi is no distribution and the proof fails. Here it is the longest
token of T that the text begins with, which a longer text leaves as it is once no longer token can come of it: most
sums end after one or two tokens, though i may be larger. The drafter's end token ends a text; alone it is the end.

The number of terms grows as K^i, K being the tokens that the drafter draws from: all are enumerated, level by level, in
one batch each. K and i are settings, and too large ones are refused before the session starts. A psi that was cut at
K and i is exact for the drafter that is cut so, and that is the one that t is drawn from.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from speculation.errors import SessionError
from speculation.text.byte_vocab import ByteVocab

#: The paper's i: drafter tokens in one text. A third level would take K^2 more rows of the drafter for each token.
DEPTH = 2
#: A draft token takes the drafter so many times as long as under other rules: the enumeration runs a batch of its own,
#: and a target token may be several of the drafter's (2.4 measured, SmolLM2-135M in int8 on one core).
ENUMERATION_COST = 2.4
#: Texts that one psi may have to enumerate.
MAX_TEXTS = 1024

Path = tuple[int, ...]
#: Paths of drafter tokens -> for each, its K likeliest next tokens with their probabilities, which add up to 1.
NextTokens = Callable[[Sequence[Path]], Sequence[Sequence[tuple[int, float]]]]


def check_enumeration(top_k: int, *, depth: int = DEPTH) -> None:
    """Raises SessionError if psi could take more terms than are reasonable."""
    if top_k**depth > MAX_TEXTS:
        raise SessionError(
            f"string-rejection over the {top_k} likeliest tokens may have to enumerate {top_k**depth} texts of {depth} "
            f"tokens for each draft token; the limit is {MAX_TEXTS}",
            remedy=f"set top_k to at most {int(MAX_TEXTS ** (1 / depth) + 1e-9)}, or use the rule rejection",
        )


class FirstToken:
    """The first target token of a text: the longest one that it begins with."""

    def __init__(self, target: ByteVocab) -> None:
        self.target = target
        self._sorted = sorted({data for data in target.token_bytes if data})

    def of(self, text: bytes) -> int | None:
        """None if no token fits."""
        return self.target.longest_match(text, 0)

    def is_settled(self, text: bytes) -> bool:
        """Whether no longer text can have another first token."""
        after = bisect_right(self._sorted, text)
        return after == len(self._sorted) or not self._sorted[after].startswith(text)


def psi(next_tokens: NextTokens, drafter: ByteVocab, first: FirstToken, *, depth: int = DEPTH) -> Mapping[int, float]:
    """Target id -> psi. Texts whose first token does not exist in T, or of special tokens alone, have no share."""
    found: dict[int, float] = defaultdict(float)
    texts: list[_Text] = [_Text((), b"", 1.0)]
    for level in range(1, depth + 1):
        rows = next_tokens([text.path for text in texts]) if texts else []
        grown = [text.grown(token, q, drafter) for text, row in zip(texts, rows, strict=True) for token, q in row]
        texts = []
        for text in grown:
            if text.has_bytes and level < depth and not first.is_settled(text.data):
                texts.append(text)
            elif (meant := _first_token(text, drafter, first)) is not None:
                found[meant] += text.share
    return found


class _Text(NamedTuple):
    """A text that the drafter may write. ``has_bytes``: its last token has any."""

    path: Path
    data: bytes
    share: float
    has_bytes: bool = True

    def grown(self, token: int, q: float, drafter: ByteVocab) -> _Text:
        data = drafter.bytes_of(token)
        return _Text(path=(*self.path, token), data=self.data + data, share=self.share * q, has_bytes=bool(data))


def _first_token(text: _Text, drafter: ByteVocab, first: FirstToken) -> int | None:
    """A text that is over before it began means the target's end."""
    if text.path[-1] in drafter.end_ids and not text.data:
        return first.target.end_ids[0] if first.target.end_ids else None
    return first.of(text.data)
