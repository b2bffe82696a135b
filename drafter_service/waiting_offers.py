"""Offers that wait for the target's vocabulary, and the vocabulary as it comes in."""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import LimitExceededError, ProtocolError
from speculation.plural import count_of
from speculation.protocol.messages import SessionOffer
from speculation.text.vocab_table import MAX_TABLE_BYTES


class WaitingOffers:
    """Of one connection. A vocabulary is asked for once, whatever becomes of the sessions that need it."""

    def __init__(self) -> None:
        self._offers: dict[str, SessionOffer] = {}
        self._asked: set[str] = set()
        self._parts: dict[str, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._offers)

    def hold(self, offer: SessionOffer) -> bool:
        """Keep an offer; whether its vocabulary is to be asked for now."""
        self._offers[offer.session] = offer
        new = offer.vocab_hash not in self._asked
        self._asked.add(offer.vocab_hash)
        return new

    def forget(self, session: str) -> None:
        """The session is over, or offered anew."""
        self._offers.pop(session, None)

    def add_chunk(self, chunk: pb.VocabularyChunk) -> bytes | None:
        """The table, once its last part is here. Raises ProtocolError for parts not asked for, or out of order."""
        if chunk.vocab_hash not in self._asked:
            raise ProtocolError(f"a vocabulary that was not asked for, {chunk.vocab_hash[:12]!r}")
        parts = self._parts.setdefault(chunk.vocab_hash, [])
        if chunk.index != len(parts) or chunk.index >= chunk.chunks:
            after = count_of(len(parts), "part")
            raise ProtocolError(f"part {chunk.index} of {chunk.chunks} of a vocabulary, after {after}")
        parts.append(chunk.data)
        if sum(map(len, parts)) > MAX_TABLE_BYTES:
            raise LimitExceededError(f"a vocabulary's table of more than {MAX_TABLE_BYTES} bytes")
        return b"".join(self._parts.pop(chunk.vocab_hash)) if len(parts) == chunk.chunks else None

    def release(self, vocab_hash: str) -> list[SessionOffer]:
        """The offers that waited for it, which is known now, or can't be had."""
        ready = [offer for offer in self._offers.values() if offer.vocab_hash == vocab_hash]
        for offer in ready:
            del self._offers[offer.session]
        return ready
