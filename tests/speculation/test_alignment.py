"""Common tokens of two vocabularies, and the table that a vocabulary travels as."""

from __future__ import annotations

import random
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speculation.errors import ProtocolError
from speculation.sampling.alignment import Alignment
from speculation.text.byte_vocab import ByteVocab
from speculation.text.vocab_table import table_of, vocab_of_table
from tests.support.tiny_pairs import DOUBLES, PAIRS, SAME, TinyPair, vocabulary

BYTE_LEVEL = {0: "a", 1: "Ċ", 2: "Ġa", 3: "<end>", 4: "Ã©"}
PIECES = {0: "<end>", 1: "<0x0A>", 2: "▁a", 3: "é", 4: "a", 5: "<0x61>", 6: "zz"}


def byte_level(tokens: dict[int, str]) -> ByteVocab:
    return ByteVocab.from_byte_level(tokens, added={}, special=[3], end_ids=[3], size=6)


def pieces(tokens: dict[int, str]) -> ByteVocab:
    return ByteVocab.from_sentencepiece(tokens, added={}, special=[0], end_ids=[0], size=8)


def test_tokens_are_common_by_their_bytes_whatever_the_tokenizer_writes():
    """Newline, leading space, a byte of the fallback, a letter of two bytes, and the end."""
    assert Alignment(pieces(PIECES), byte_level(BYTE_LEVEL)).target_ids.tolist() == [3, 1, 2, 4, 0, 0, -1, -1]
    assert Alignment(byte_level(BYTE_LEVEL), pieces(PIECES)).target_ids.tolist() == [4, 1, 2, 0, 3, -1]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_a_tokenizers_listing_does_not_matter(seed: int):
    listing = list(PIECES.items())
    random.Random(seed).shuffle(listing)
    shuffled = pieces(dict(listing))
    assert shuffled.content_hash == pieces(PIECES).content_hash
    straight = Alignment(pieces(PIECES), byte_level(BYTE_LEVEL))
    assert Alignment(shuffled, byte_level(BYTE_LEVEL)).target_ids.tolist() == straight.target_ids.tolist()


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_common_token_has_one_meaning_of_equal_bytes(pair: TinyPair):
    drafter, target = pair.drafter.vocab, pair.target.vocab
    alignment = Alignment(drafter, target)
    for token, meaning in enumerate(alignment.target_ids.tolist()):
        if meaning >= 0:
            assert target.token_bytes[meaning] == drafter.token_bytes[token]
            assert meaning not in target.padding_ids
            assert alignment.drafter_id(meaning) <= token
    assert alignment.common == len(set(alignment.target_ids.tolist()) - {-1})


def test_an_end_means_nothing_to_a_target_without_one():
    endless = ByteVocab((b"a", b"b", b"c"))
    alignment = Alignment(vocabulary("b", None, "zz", end=1), endless)
    assert alignment.target_ids.tolist() == [1, -1, -1] and alignment.common == 1
    assert alignment.in_target_ids([(0, 0.5), (1, 0.25), (2, 0.25)]) == {1: 0.5}
    assert alignment.drafter_id(1) == 0


def test_probabilities_of_doubles_add_up():
    alignment = Alignment(DOUBLES.drafter.vocab, DOUBLES.target.vocab)
    q = {token: (token + 1) / 64 for token in range(8)}
    found = alignment.in_target_ids(q.items())
    assert found == {5: 1 / 64, 1: (2 + 6) / 64, 0: (3 + 4) / 64, 2: 5 / 64}
    masked = alignment.masked(torch.zeros(8))
    assert masked.isfinite().tolist() == [True, True, True, True, True, True, False, False]


def test_equal_content_is_one_vocabulary_and_padding_is_none():
    alignment = Alignment(SAME.drafter.vocab, SAME.target.vocab)
    assert SAME.drafter.vocab.size != SAME.target.vocab.size
    assert alignment.same and alignment.target_ids.tolist() == [0, 1, 2, 3, 4, -1, -1]
    assert not Alignment(DOUBLES.drafter.vocab, DOUBLES.target.vocab).same


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_table_brings_the_vocabulary_back(pair: TinyPair):
    for vocab in (pair.target.vocab, pair.drafter.vocab):
        back = vocab_of_table(table_of(vocab), content_hash=vocab.content_hash)
        assert back.token_bytes == vocab.token_bytes and dict(back.special) == dict(vocab.special)
        assert (back.end_ids, back.byte_fallback) == (vocab.end_ids, vocab.byte_fallback)


def test_a_table_of_another_vocabulary_is_refused():
    table = table_of(vocabulary("a", None, end=1))
    with pytest.raises(ProtocolError, match="in place of"):
        vocab_of_table(table, content_hash=DOUBLES.target.vocab.content_hash)


@given(at=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_damaged_table_is_refused_whatever_is_wrong_with_it(at: int, byte: int, cut: int):
    vocab = DOUBLES.target.vocab
    plain = bytearray(zlib.decompress(table_of(vocab)))
    before = bytes(plain)
    plain[at % len(plain)] = byte
    for damaged in (bytes(plain), before[: cut % len(before)]):
        if damaged == before:
            continue
        try:
            back = vocab_of_table(zlib.compress(damaged), content_hash=vocab.content_hash)
        except ProtocolError:
            continue
        # Only what the hash leaves out may differ: which doubles are of the byte fallback, and trailing padding.
        assert back.content_hash == vocab.content_hash


def test_what_is_no_table_is_refused():
    for data in (b"", b"\x00" * 50, table_of(SAME.target.vocab)[:-1], zlib.compress(b"\xff" * 9)):
        with pytest.raises(ProtocolError):
            vocab_of_table(data, content_hash="x")
