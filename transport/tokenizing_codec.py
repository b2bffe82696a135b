"""Between wire messages and plain values, both ways: what a verifier is asked, and tells, of its tokens.

Decoding validates as ``transport/codec.py`` does. Sizes are checked where a message is made, of requests as well where
it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from speculation.protocol.messages import Prompt
from speculation.protocol.tokenizing import TokenPiece
from transport import codec
from transport.limits import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, WireLimits
from transport.prompt_codec import check_read, prompt_from_wire, prompt_to_wire

_LARGEST_ID = (1 << 32) - 1


def tokenize_request_to_wire(prompt: Prompt) -> pb.TokenizeRequest:
    """Raises InputError for a prompt that is too long for a message."""
    message = pb.TokenizeRequest(protocol_version=PROTOCOL_VERSION, prompt=prompt_to_wire(prompt))
    _check_prompt(message, WireLimits())
    return message


def tokenize_request_from_wire(message: pb.TokenizeRequest, limits: WireLimits) -> Prompt:
    """Raises VersionMismatchError, or InputError with the field."""
    codec.check_version(message.protocol_version, who="the client")
    _check_prompt(message, limits)
    return prompt_from_wire(message.prompt)


def _check_prompt(message: pb.TokenizeRequest, limits: WireLimits) -> None:
    _check("messages" if message.prompt.messages else "prompt", message.prompt, limits.prompt_bytes)


def tokenize_response_to_wire(prompt: Prompt, token_ids: Sequence[int]) -> pb.TokenizeResponse:
    """Raises InputError for more tokens than a message holds."""
    told = {"template_kwargs": bool(prompt.template_kwargs), "special_tokens": prompt.special_tokens}
    message = pb.TokenizeResponse(token_ids=token_ids, **told)
    _check("prompt", message, MAX_MESSAGE_BYTES)
    return message


def tokenize_response_from_wire(message: pb.TokenizeResponse, prompt: Prompt) -> tuple[int, ...]:
    """Raises ProtocolError if the verifier is too old to have read all of the prompt."""
    check_read(prompt, template_kwargs=message.template_kwargs, special_tokens=message.special_tokens)
    return tuple(message.token_ids)


def detokenize_request_to_wire(token_ids: Sequence[int]) -> pb.DetokenizeRequest:
    """Raises InputError for what is no id of any vocabulary, and for more ids than one may ask about."""
    _check_count(token_ids, WireLimits())
    for token in token_ids:
        if not 0 <= token <= _LARGEST_ID:
            raise InputError("token_ids", token, "is no token id", remedy="ids are 0 or more")
    return pb.DetokenizeRequest(protocol_version=PROTOCOL_VERSION, token_ids=token_ids)


def detokenize_request_from_wire(message: pb.DetokenizeRequest, limits: WireLimits) -> tuple[int, ...]:
    """Raises VersionMismatchError, or InputError with the field."""
    codec.check_version(message.protocol_version, who="the client")
    _check_count(message.token_ids, limits)
    return tuple(message.token_ids)


def detokenize_response_to_wire(pieces: Sequence[TokenPiece]) -> pb.DetokenizeResponse:
    """Raises InputError for more text than a message holds."""
    message = pb.DetokenizeResponse(pieces=[pb.TokenPiece(text=piece.text, special=piece.special) for piece in pieces])
    _check("token_ids", message, MAX_MESSAGE_BYTES)
    return message


def detokenize_response_from_wire(message: pb.DetokenizeResponse) -> tuple[TokenPiece, ...]:
    """One for each token that was asked for."""
    return tuple(TokenPiece(piece.text, piece.special) for piece in message.pieces)


def _check_count(token_ids: Sequence[int], limits: WireLimits) -> None:
    if len(token_ids) > limits.token_ids:
        problem = f"are too many; the limit is {limits.token_ids}"
        raise InputError("token_ids", f"{len(token_ids)} ids", problem, remedy="send them in parts")


def _check(field: str, message: Message, limit: int) -> None:
    size = message.ByteSize()
    if size > limit:
        raise InputError(field, f"{size} bytes", f"is too long; the limit is {limit} bytes", remedy="send it in parts")
