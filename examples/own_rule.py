"""A verification rule of one's own, and the proof that it is lossless.

A rule is a pure function: target distributions and a draft in, committed tokens out. This one couples target and
drafter by inverse transform sampling: both turn the same uniform number into a token, each by its own cumulative
distribution. They agree where the two overlap, and the target's token is an exact draw of p whatever the draft was.
``speculation/verification/rules.py`` has the rules of the project, ``docs/rules.md`` says where a new one goes.

    python examples/own_rule.py
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate

Distribution = Sequence[Fraction]
Model = Callable[[tuple[int, ...]], Distribution]


def draw(p: Distribution, uniform: Fraction) -> int:
    """The token whose stretch of [0, 1) holds ``uniform``."""
    return bisect_right(list(accumulate(p)), uniform)


def accept_inverse(target: Sequence[Distribution], draft: Sequence[int], uniforms: Sequence[Fraction]) -> list[int]:
    """``target``: the distribution at each draft position and after the last, all from one forward pass."""
    committed = []
    for position, p in enumerate(target):
        token = draw(p, uniforms[position])
        committed.append(token)
        if position == len(draft) or token != draft[position]:
            break  # what was computed behind a token that the target did not draw is of no use
    return committed


def sequences(model: Model, length: int, known: tuple[int, ...] = ()) -> dict[tuple[int, ...], Fraction]:
    """The exact probability of every sequence that plain decoding writes."""
    if len(known) == length:
        return {known: Fraction(1)}
    found = {}
    for token, chance in enumerate(model(known)):
        for sequence, rest in sequences(model, length, (*known, token)).items():
            found[sequence] = chance * rest
    return found


def speculative(target: Model, drafter: Model, length: int, grid: int) -> dict[tuple[int, ...], Fraction]:
    """The same with the rule, over all uniform numbers: those between two steps of a grid that has every probability
    of both models as a multiple draw the same, so a sum over its cells is exact."""
    found: dict[tuple[int, ...], Fraction] = {}

    def write(text: tuple[int, ...], uniforms: list[Fraction]) -> None:
        if len(text) == length:
            found[text] = found.get(text, Fraction(0)) + Fraction(1, grid**length)
            return
        draft: list[int] = []
        while len(text) + len(draft) < length - 1:
            known = (*text, *draft)
            draft.append(draw(drafter(known), uniforms[len(known)]))
        rows = [target((*text, *draft[:n])) for n in range(len(draft) + 1)]
        write((*text, *accept_inverse(rows, draft, uniforms[len(text) :])), uniforms)

    def over_all_numbers(uniforms: list[Fraction]) -> None:
        if len(uniforms) == length:
            write((), uniforms)
            return
        for cell in range(grid):
            over_all_numbers([*uniforms, Fraction(2 * cell + 1, 2 * grid)])

    over_all_numbers([])
    return found


def target_model(text: tuple[int, ...]) -> Distribution:
    """Three tokens; what is likely depends on the last one."""
    shares = {None: (5, 4, 3), 0: (1, 9, 2), 1: (6, 0, 6), 2: (4, 4, 4)}[text[-1] if text else None]
    return [Fraction(share, 12) for share in shares]


def drafter_model(text: tuple[int, ...]) -> Distribution:
    """Another model of them."""
    shares = {None: (6, 3, 3), 0: (3, 6, 3), 1: (12, 0, 0), 2: (3, 3, 6)}[text[-1] if text else None]
    return [Fraction(share, 12) for share in shares]


def main() -> None:
    exact, found = sequences(target_model, 3), speculative(target_model, drafter_model, 3, grid=12)
    for sequence, chance in exact.items():
        print(sequence, chance, found.get(sequence, 0))
        assert found.get(sequence, 0) == chance
    print("lossless: every sequence has the target's own probability")


if __name__ == "__main__":
    main()
