"""The common beginning of two sequences."""

from __future__ import annotations

import pytest

from speculation.shared_length import shared_length


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [
        ("", "", 0),
        ("a", "", 0),
        ("ab", "b", 0),
        ("abc", "abd", 2),
        ("ab", "abc", 2),
        ("abc", "abc", 3),
        ("xbc", "abc", 0),
    ],
)
def test_it_ends_at_the_first_that_differs_or_where_one_ends(one: str, other: str, length: int):
    assert shared_length(one, list(other)) == shared_length(list(other), one) == length
