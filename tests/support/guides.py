"""Guides of the tiny vocabulary, and what they allow."""

from __future__ import annotations

from speculation.guide import Guide
from speculation.protocol.guide_spec import GuideSpec
from speculation.text.byte_vocab import ByteVocab
from tests.support.text_models import TARGET_VOCAB, longest_words
from verifier_service.guides import Guides

#: With a double, a byte of the fallback, padding, a special token, and two ends.
ODD = ByteVocab(
    (b"a", b"b", b"ab", b"a", None, None, None, b"", b"ba", None),
    {4: "<pause>", 5: "<end>", 9: "<stop>"},
    (5, 9),
    frozenset({3}),
)


async def guide_for(spec: GuideSpec, vocab: ByteVocab = TARGET_VOCAB) -> Guide:
    """Compiled, as a verifier does it."""
    made = Guides(vocab)
    try:
        return await made.compile(spec)
    finally:
        made.close()


def allowed(guide: Guide, path: tuple[int, ...] = (), vocab: ByteVocab = TARGET_VOCAB) -> set[int]:
    """The tokens that may come behind the path."""
    [mask] = guide.masks([path])
    return {token for token in range(vocab.size) if mask[token // 8] >> token % 8 & 1}


def write(guide: Guide, text: str) -> None:
    """The guide follows the text."""
    for token in longest_words(TARGET_VOCAB)(text):
        guide.advance(token)
