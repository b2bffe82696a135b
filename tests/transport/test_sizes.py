"""Amounts of memory as people write them."""

from __future__ import annotations

import pytest

from speculation.errors import InputError
from transport.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8 << 30), ("1.5 MiB", 3 << 19), ("20GB", 20 * 10**9), ("2TiB", 2 << 40), ("512B", 512)]
)
def test_sizes(text: str, size: int):
    assert parse_size("kv-memory", text) == size


@pytest.mark.parametrize("text", ["", "8", "GiB", "-1GiB", "0GiB", "8 gib", "1e3GB", "8GiB more"])
def test_what_is_no_size_is_named(text: str):
    with pytest.raises(InputError, match=r"kv-memory=.* is no amount of memory"):
        parse_size("kv-memory", text)
