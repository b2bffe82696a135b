"""Which continuations share a pass."""

from __future__ import annotations

import pytest

from language_models.continuation import in_groups


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([], []),
        ([4], [[4]]),
        ([1, 2, 1], [[1, 2, 1]]),
        ([3, 2, 2, 1], [[3], [2, 2], [1]]),
        ([5, 1, 9, 1], [[5], [1], [9], [1]]),
    ],
)
def test_groups_keep_the_order_and_hold_as_many_as_fit(rows: list[int], groups: list[list[int]]):
    assert list(in_groups(rows, lambda count: count, 4)) == groups
