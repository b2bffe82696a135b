"""Log-probabilities of the tokens that a step committed, for a client that asked for them."""

from __future__ import annotations

from torch import Tensor

from speculation.protocol.logprobs import TokenLogprob, TokenLogprobs
from speculation.protocol.tokenizing import TokenPiece, pieces_of
from speculation.sampling.logprobs import rank_tokens
from speculation.text.byte_vocab import ByteVocab
from speculation.verification.step import Acceptance


def logprobs_of(acceptance: Acceptance, logits: Tensor, count: int, vocab: ByteVocab) -> tuple[TokenLogprobs, ...]:
    """Of each token that the target committed, drafted or not. ``logits``: of the step, [1 + candidates, V]."""
    rows = (0, *(1 + node for node in acceptance.path))[: len(acceptance.tokens)]
    ranked = rank_tokens(logits, rows, acceptance.tokens, count)

    def told(token: int, logprob: float) -> TokenLogprob:
        piece = pieces_of(vocab, [token])[0] if token < vocab.size else TokenPiece()
        return TokenLogprob(token, logprob, piece)

    return tuple(
        TokenLogprobs(told(token, row.chosen), tuple(told(*each) for each in row.top))
        for token, row in zip(acceptance.tokens, ranked, strict=True)
    )
