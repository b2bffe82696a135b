"""Between wire messages and plain values, both ways: how likely tokens were."""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.logprobs import TokenLogprob, TokenLogprobs
from speculation.protocol.tokenizing import TokenPiece


def logprobs_to_wire(place: TokenLogprobs) -> pb.TokenLogprobs:
    return pb.TokenLogprobs(chosen=_to_wire(place.chosen), top=[_to_wire(each) for each in place.top])


def logprobs_from_wire(message: pb.TokenLogprobs) -> TokenLogprobs:
    return TokenLogprobs(_from_wire(message.chosen), tuple(_from_wire(each) for each in message.top))


def _to_wire(found: TokenLogprob) -> pb.TokenLogprob:
    piece = found.piece
    return pb.TokenLogprob(token=found.token, logprob=found.logprob, text=piece.text, special=piece.special)


def _from_wire(message: pb.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(message.token, message.logprob, TokenPiece(message.text, message.special))
