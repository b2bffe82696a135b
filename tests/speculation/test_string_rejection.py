"""psi of string-level rejection sampling against its definition, term by term."""

from __future__ import annotations

import itertools
import math
import zlib

import pytest

from speculation.errors import SessionError
from speculation.verification.string_rejection import MAX_TEXTS, FirstToken, check_enumeration, psi
from tests.support.tiny_pairs import PAIRS, TinyPair, vocabulary

WORDY = vocabulary("a", "b", "aab", "abba", "aabab", None, end=5)
LETTERS = vocabulary("a", "b", "ba", None, end=3)


def next_tokens(paths):
    """Every token of LETTERS, with shares that depend on the path."""
    rows = []
    for path in paths:
        whims = [1 + zlib.crc32(bytes((*path, token))) % 97 for token in range(LETTERS.size)]
        rows.append([(token, whim / sum(whims)) for token, whim in enumerate(whims)])
    return rows


def by_definition(depth: int, first: FirstToken) -> dict[int, float]:
    """All texts of ``depth`` tokens, or up to an end, each with the first target token that it begins with."""
    found: dict[int, float] = {}
    for path in itertools.product(range(LETTERS.size), repeat=depth):
        ended = path.index(3) if 3 in path else depth
        if any(path[ended + 1 :]):  # one path stands for all that differ after the end
            continue
        share = math.prod(dict(next_tokens([path[:i]])[0])[path[i]] for i in range(min(ended + 1, depth)))
        text = LETTERS.text(path[:ended])
        token = first.of(text) if text else 5
        assert token is not None
        found[token] = found.get(token, 0.0) + share
    return found


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_psi_is_the_sum_over_the_tokenisations_that_begin_with_the_token(depth: int):
    first = FirstToken(WORDY)
    found = psi(next_tokens, LETTERS, first, depth=depth)
    expected = by_definition(depth, first)
    assert found.keys() == expected.keys()
    assert all(found[token] == pytest.approx(share, abs=1e-14) for token, share in expected.items())
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-14)


def test_texts_are_enumerated_level_by_level_and_no_further_than_needed():
    asked = []

    def counted(paths):
        asked.append(list(paths))
        return next_tokens(paths)

    psi(counted, LETTERS, FirstToken(vocabulary("a", "b", None, end=2)), depth=5)
    assert asked == [[()]], "every first letter is settled"
    asked.clear()
    psi(counted, LETTERS, FirstToken(WORDY), depth=5)
    assert [len(paths[0]) for paths in asked] == [0, 1, 2, 3, 4]
    assert asked[1] == [(0,)], "only 'a' may become something longer"


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_settled_text_keeps_its_first_token(pair: TinyPair):
    first = FirstToken(pair.target.vocab)
    texts = [b"".join(parts) for n in range(1, 4) for parts in itertools.product((b"a", b"b", b"\n"), repeat=n)]
    for text in texts:
        if first.is_settled(text):
            assert {first.of(text + more) for more in (b"", *texts)} == {first.of(text)}


def test_text_that_the_target_cannot_say_has_no_share():
    found = psi(next_tokens, LETTERS, FirstToken(vocabulary("b", None, end=1)), depth=2)
    assert set(found) == {0, 1}
    assert 0 < math.fsum(found.values()) < 1


def test_an_end_alone_is_the_end_and_a_special_token_has_no_share():
    drafter = vocabulary("a", None, None, end=1, special={2: "<pause>"})
    found = psi(lambda paths: [[(0, 0.25), (1, 0.5), (2, 0.25)]], drafter, FirstToken(LETTERS), depth=1)
    assert found == {0: 0.25, 3: 0.5}


def test_what_would_take_too_long_is_refused_with_a_remedy():
    check_enumeration(8, depth=3)
    check_enumeration(MAX_TEXTS, depth=1)
    with pytest.raises(SessionError, match=r"262144 texts.*limit is 1024.*top_k to at most 10.*rejection"):
        check_enumeration(64, depth=3)
