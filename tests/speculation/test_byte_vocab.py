"""Byte vocabularies: spellings, copies, lookups, and the content hash."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from speculation.errors import ModelError
from speculation.text.byte_vocab import ByteVocab, intersection

# token bytes, small so that copies and prefixes are common; None is padding
TABLES = st.lists(st.none() | st.binary(max_size=3).map(lambda b: bytes(x % 3 for x in b)), max_size=12)


def vocab_of(*tokens: bytes | None, **kwargs) -> ByteVocab:
    return ByteVocab(tuple(tokens), **kwargs)


def byte_level(tokens: dict[int, str], *, added=None, special=(), end_ids=(), size=None) -> ByteVocab:
    added = added or {}
    size = size if size is not None else max([*tokens, *added]) + 1
    return ByteVocab.from_byte_level(tokens, added=added, special=special, end_ids=end_ids, size=size)


def test_byte_level_spelling():
    vocab = byte_level({0: "Ġhello", 1: "Ċ", 2: "Ã©", 3: "猫", 4: "Ā"})
    assert vocab.token_bytes == (b" hello", b"\n", "é".encode(), "猫".encode(), b"\0")


def test_byte_level_alphabet_is_the_one_of_the_tokenizers_library():
    """Every byte, through the library's own decoder table: encode bytes as their stand-ins, one token each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = byte_level(dict(enumerate(alphabet)))
    assert sorted(vocab.token_bytes) == [bytes((byte,)) for byte in range(256)]
    text = "naïve\t猫\u00ad\r\n"
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    stand_ins = "".join(piece for piece, _ in pieces)
    assert vocab.text(alphabet.index(character) for character in stand_ins) == text.encode()


def test_added_tokens_are_literal_and_special_tokens_have_no_text():
    vocab = byte_level({0: "a", 1: "</s>"}, added={2: "<é>", 3: "<|im_end|>"}, special=[3], end_ids=[3, 1], size=6)
    assert vocab.token_bytes == (b"a", None, "<é>".encode(), None, None, None)
    assert vocab.special == {3: "<|im_end|>", 1: "</s>"}
    assert vocab.end_ids == (3, 1)
    assert vocab.padding_ids == (4, 5)
    assert vocab.is_special(1) and not vocab.is_special(4) and not vocab.is_special(2)
    assert vocab.text([0, 3, 2, 4, 1]) == b"a" + "<é>".encode()


def test_ids_beyond_the_model_are_left_out():
    """Gemma 3's tokenizer knows id 262144, the text model's output ends at 262143."""
    vocab = byte_level({0: "a", 1: "b"}, added={2: "<x>", 3: "<y>"}, special=[2, 3], end_ids=[2, 3], size=2)
    assert vocab.token_bytes == (b"a", b"b")
    assert vocab.special == {} and vocab.end_ids == ()


def test_sentencepiece_spelling_and_fallback():
    tokens = {0: "<s>", 1: "<0x41>", 2: "▁the", 3: "A", 4: "<0xE7>", 5: "▁▁"}
    vocab = ByteVocab.from_sentencepiece(
        tokens, added={0: "<s>", 5: "▁▁", 6: "<0x42>"}, special=[0], end_ids=[0], size=8
    )
    assert vocab.token_bytes == (None, b"A", b" the", b"A", b"\xe7", b"  ", b"<0x42>", None)
    assert vocab.byte_fallback == {1, 4}
    assert vocab.id_of(b"A") == 3, "the ordinary token comes before the byte of the fallback"
    assert (vocab.copy_number(3), vocab.copy_number(1)) == (0, 1)


def test_trained_tokenizers_decode_to_the_same_text():
    corpus = ["the cat sat on the mat", "naïve café 猫が座った 🐶", "  def f(x):\n\treturn x\r\n"] * 3
    byte_bpe = Tokenizer(models.BPE())
    byte_bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_bpe.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet))
    vocab = byte_level({id_: token for token, id_ in byte_bpe.get_vocab().items()})
    for text in [*corpus, "unseen ßtuff\0 ☃"]:
        ids = byte_bpe.encode(text).ids
        assert vocab.text(ids) == text.encode() == byte_bpe.decode(ids).encode()


@settings(deadline=None)
@given(TABLES, st.sets(st.integers(0, 11)))
def test_copies_and_lookups(table, fallback):
    vocab = ByteVocab(tuple(table), byte_fallback=frozenset(t for t in fallback if t < len(table)))
    by_bytes = {}
    for token, data in enumerate(table):
        if data is not None:
            by_bytes.setdefault(data, []).append(token)
    for data, tokens in by_bytes.items():
        order = sorted(tokens, key=lambda token: (token in vocab.byte_fallback, token))
        assert [vocab.copy_number(token) for token in order] == list(range(len(order)))
        assert vocab.id_of(data) == (order[0] if data else None)


@settings(deadline=None)
@given(TABLES, st.binary(max_size=6).map(lambda b: bytes(x % 3 for x in b)), st.integers(0, 7))
def test_longest_match(table, data, start):
    vocab = ByteVocab(tuple(table))
    fits = [token for token in table if token and data[start:].startswith(token)]
    found = vocab.longest_match(data, start)
    assert (vocab.token_bytes[found] if found is not None else None) == max(fits, key=len, default=None)


@settings(deadline=None)
@given(TABLES, TABLES)
def test_intersection(left, right):
    a, b = ByteVocab(tuple(left)), ByteVocab(tuple(right))
    pairs = intersection(a, b)
    assert [a.bytes_of(i) for i, _ in pairs] == [b.bytes_of(j) for _, j in pairs]
    assert {a.bytes_of(i) for i, _ in pairs} == (set(left) & set(right)) - {None, b""}
    assert list(pairs) == sorted(pairs)
    assert intersection(b, a) == tuple(sorted((j, i) for i, j in pairs))


@settings(deadline=None)
@given(TABLES, TABLES, st.integers(0, 3))
def test_content_hash_is_equal_for_equal_content_only(left, right, padding):
    def trimmed(table):
        while table and table[-1] is None:
            table = table[:-1]
        return table

    a, b = ByteVocab(tuple(left)), ByteVocab(tuple(right))
    assert (a.content_hash == b.content_hash) == (trimmed(left) == trimmed(right))
    assert ByteVocab((*left, *[None] * padding)).content_hash == a.content_hash


def test_the_content_hash_is_the_one_that_every_peer_computes():
    """Padding, kind, length and content of each id but trailing padding, then the end ids; all numbers in 4 bytes."""
    vocab = vocab_of(b"ab", None, None, b"", None, None, special={4: "<e>"}, end_ids=(4,))
    content = b"t\x02\0\0\0ab" + b"pp" + b"t\0\0\0\0" + b"s\x03\0\0\0<e>" + b"e\x04\0\0\0"
    assert vocab.content_hash == hashlib.sha256(content).hexdigest()
    assert vocab.padding_ids == (1, 2, 5) and vocab.size == 6


def test_content_hash_sees_names_ends_and_gaps():
    hashes = {
        vocab.content_hash
        for vocab in (
            vocab_of(b"a", None, b"b"),
            vocab_of(b"a", b"b"),
            vocab_of(b"a", b"b", None, special={2: "x"}),
            vocab_of(b"a", b"b", None, special={2: "y"}),
            vocab_of(b"a", b"b", None, special={2: "x"}, end_ids=(2,)),
            vocab_of(b"a", b"b", b"x"),
        )
    }
    assert len(hashes) == 6


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        ({"special": {0: "x"}}, "special token has bytes"),
        ({"special": {9: "x"}}, "outside"),
        ({"end_ids": (1,)}, "end ids"),
        ({"special": {1: "x"}, "end_ids": (1, 1)}, "end ids"),
    ],
)
def test_contradictions_are_refused(kwargs, problem):
    with pytest.raises(ModelError, match=problem):
        vocab_of(b"a", None, **kwargs)
