"""Retokenising a draft: byte exact whatever the draft and whatever the tokenizer does."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from speculation.text.byte_vocab import ByteVocab
from speculation.text.retokenize import BYTES_PER_TOKEN, complete_utf8_prefix, retokenize

CORPUS = [
    "the cat sat on the mat, and the dog sat too.\r\n",
    "def naïve(x):\n    return x  # 猫が座った 🐶\n",
    "cafe\u0301 e\u0301te\u0301 \0 == <= !=\t\n",
]


def trained() -> tuple[ByteVocab, Tokenizer]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 5, trainer)
    size = tokenizer.get_vocab_size()
    tokens = {token: text for text, token in tokenizer.get_vocab().items()}
    end = {size: "<end>"}
    return ByteVocab.from_byte_level(tokens, added=end, special=[size], end_ids=[size], size=size + 4), tokenizer


VOCAB, TOKENIZER = trained()
END = VOCAB.end_ids[0]


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text).ids


# ---- tokenizers that misbehave ------------------------------------------------------------------------------------


def normalising(text: str) -> list[int]:
    return encode(unicodedata.normalize("NFC", text).lower())


def with_leading_space(text: str) -> list[int]:
    return encode(" " + text)


def parsing_specials(text: str) -> list[int]:
    return [END if piece == "<end>" else id_ for piece in text.split("|") for id_ in encode(piece) or [END]]


def with_bos(text: str) -> list[int]:
    return [END, *encode(text)]


def nonsense(text: str) -> list[int]:
    return [len(text) % VOCAB.size, VOCAB.size + 7, -3]


def silent(text: str) -> list[int]:
    return []


ENCODERS = [encode, normalising, with_leading_space, parsing_specials, with_bos, nonsense, silent]

TEXTS = st.text(st.sampled_from("the cat\r\n\0ésat猫🐶e\u0301|"), max_size=30) | st.sampled_from(CORPUS)
# text, cut anywhere, or plain rubbish
DRAFTS = st.tuples(TEXTS, st.integers(0, 4)).map(lambda t: t[0].encode()[: -t[1] or None]) | st.binary(max_size=20)
TAILS = st.lists(st.integers(0, VOCAB.size - 1), max_size=16) | TEXTS.map(lambda text: encode(text)[-16:])


@settings(deadline=None, max_examples=400)
@given(DRAFTS, TAILS, st.sampled_from(ENCODERS), st.integers(0, 12))
def test_any_draft_any_tail_any_tokenizer(draft, tail, encoder, limit):
    ids = retokenize(draft, tail, VOCAB, encoder, limit=limit)
    assert len(ids) <= limit
    assert all(0 <= token < VOCAB.size and VOCAB.bytes_of(token) for token in ids)
    assert draft.startswith(VOCAB.text(ids))


@settings(deadline=None, max_examples=300)
@given(DRAFTS, TAILS, st.sampled_from(ENCODERS))
def test_nothing_is_lost_but_an_unfinished_character(draft, tail, encoder):
    """This vocabulary has every byte, so with room enough all complete characters come out."""
    ids = retokenize(draft, tail, VOCAB, encoder, limit=len(draft) + 1)
    missing = len(draft) - len(VOCAB.text(ids))
    tail_text = VOCAB.text(tail)
    assert missing <= 3
    if missing and complete_utf8_prefix(draft) == len(draft):
        # a draft that looks complete waits only as the continuation of a character that the tail began
        assert complete_utf8_prefix(tail_text + draft) < len(tail_text + draft)
    if not missing and not tail:
        assert complete_utf8_prefix(draft) == len(draft)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(CORPUS), st.data())
def test_at_a_boundary_it_is_the_tokenizers_own_choice(text, data):
    ids = encode(text)
    cut = data.draw(st.integers(0, len(ids) - 1))
    tail, rest = ids[:cut][-16:], ids[cut:]
    draft = VOCAB.text(rest)
    if cut <= 16 and complete_utf8_prefix(VOCAB.text(tail)) == len(VOCAB.text(tail)):
        assert retokenize(draft, tail, VOCAB, encode, limit=len(rest)) == rest
        assert retokenize(draft, tail, VOCAB, encode, limit=2) == rest[:2]


def test_context_matters():
    """ " mat" after "the" is one token; a tokenizer of the draft alone must not be asked when the tail fits."""
    vocab = ByteVocab((b"a", b"b", b"ab", b"c", b"bc"))

    def left_to_right(text: str) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            token = vocab.longest_match(text.encode(), at)
            assert token is not None
            ids.append(token)
            at += len(vocab.bytes_of(token))
        return ids

    assert retokenize(b"bc", [0], vocab, left_to_right, limit=9) == [4], "merged across the boundary: on its own"
    assert retokenize(b"bc", [2], vocab, left_to_right, limit=9) == [4]
    asked = []
    retokenize(b"bc", [2], vocab, lambda text: asked.append(text) or left_to_right(text), limit=9)
    assert asked == ["abbc"]


def test_a_tokenizer_that_adds_a_leading_space_still_chooses():
    ids = retokenize(b" cat sat", encode("the"), VOCAB, with_leading_space, limit=9)
    assert ids == encode("the cat sat")[len(encode("the")) :]


def test_special_tokens_in_the_tail_part_the_text():
    asked = []

    def spying(text: str) -> list[int]:
        asked.append(text)
        return encode(text)

    ids = retokenize(b"the cat", [*encode("sat on "), END], VOCAB, spying, limit=9)
    assert asked == ["the cat"]
    assert ids == encode("the cat")


@pytest.mark.parametrize("character", ["é", "猫", "🐶"])
def test_a_committed_partial_character_is_finished(character):
    data = character.encode()
    for cut in range(1, len(data)):
        tail = [VOCAB.id_of(bytes((byte,))) for byte in data[:cut]]
        draft = data[cut:] + b" cat"
        assert VOCAB.text(retokenize(draft, tail, VOCAB, encode, limit=9)) == draft
        assert retokenize(draft, tail, VOCAB, encode, limit=9)[-1] == encode(" cat")[-1]
        for end in range(1, len(data) - cut):
            assert retokenize(draft[:end], tail, VOCAB, encode, limit=9) == [], "still unfinished: it waits"


def test_invalid_bytes_are_not_lost():
    draft = b"the \xff\xfe cat \x80"
    assert VOCAB.text(retokenize(draft, [], VOCAB, encode, limit=99)) == draft


def test_text_that_spells_a_special_token_is_text():
    ids = retokenize(b"a|<end>|b", [], VOCAB, parsing_specials, limit=99)
    assert END not in ids
    assert VOCAB.text(ids) == b"a|<end>|b"


def test_a_byte_without_a_token_ends_the_candidates():
    vocab = ByteVocab((b"a", b"b"))
    assert retokenize(b"abxab", [], vocab, silent, limit=9) == [0, 1]


def test_work_is_bounded_by_the_limit():
    asked = []

    def counting(text: str) -> list[int]:
        asked.append(len(text.encode()))
        return encode(text)

    draft = ("the cat sat " * 100_000).encode()
    assert VOCAB.text(retokenize(draft, encode("on "), VOCAB, counting, limit=4)) == b"the cat sat the"
    assert max(asked) <= 3 + 4 * BYTES_PER_TOKEN
    assert sum(asked) <= 2 * max(asked)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=6), st.binary(max_size=5))
def test_complete_utf8_prefix(text, rubbish):
    data = text.encode()
    for end in range(len(data) + 1):
        complete = complete_utf8_prefix(data[:end])
        assert data[:complete].decode() == data[:end].decode("utf-8", "ignore")
    mixed = data + rubbish
    complete = complete_utf8_prefix(mixed)
    assert len(mixed) - complete <= 3
    if complete < len(mixed):  # what waits can still become one character
        waiting = mixed[complete:]
        assert any(is_character(waiting + more) for more in CONTINUATIONS)


CONTINUATIONS = [bytes((b,)) * n for n in (1, 2, 3) for b in (0x80, 0x90, 0xA0, 0xBF)]


def is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize(
    ("data", "complete"),
    [(b"", 0), (b"\xe7", 0), (b"\xe7\x8c", 0), (b"\xe0\x80", 2), (b"\xed\xa0", 2), (b"\xc0", 1), (b"\xf5", 1),
     (b"\xf0\x9f\x90", 0), (b"a\xf0\x9f\x90", 1), (b"\x80\x80\x80\x80", 4), (b"\xf4\x90", 2), (b"x\xc3", 1)],
)  # fmt: skip
def test_complete_utf8_prefix_cases(data, complete):
    assert complete_utf8_prefix(data) == complete
