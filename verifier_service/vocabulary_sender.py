"""The table of the target's vocabulary, for drafters that draft in its tokens and have not seen it before."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ProtocolError
from speculation.text.byte_vocab import ByteVocab
from speculation.text.vocab_table import table_of
from transport.limits import CHUNK_BYTES
from verifier_service.drafter_link import DrafterLink


class VocabularySender:
    """Makes the table when it is first asked for, beside the event loop. Use from one event loop."""

    def __init__(self, vocab: ByteVocab) -> None:
        self._vocab = vocab
        self._chunks: asyncio.Future[list[pb.AssistResponse]] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def ask(self, link: DrafterLink, content_hash: str) -> None:
        """Send the table. Raises ProtocolError for another vocabulary, and for a second request on one stream."""
        if content_hash != self._vocab.content_hash:
            raise ProtocolError(f"vocabulary {content_hash[:12]!r} is not that of this target")
        if link.has_vocabulary:
            raise ProtocolError("the vocabulary was asked for twice")
        link.has_vocabulary = True
        self._start(self._send(link))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, link: DrafterLink) -> None:
        if self._chunks is None:
            self._chunks = asyncio.ensure_future(asyncio.to_thread(chunks_of, self._vocab))
        for message in await asyncio.shield(self._chunks):
            link.outbox.send(message)


def chunks_of(vocab: ByteVocab) -> list[pb.AssistResponse]:
    """The table in messages."""
    table = table_of(vocab)
    parts = [table[start : start + CHUNK_BYTES] for start in range(0, len(table), CHUNK_BYTES)]
    return [
        pb.AssistResponse(
            vocabulary=pb.VocabularyChunk(vocab_hash=vocab.content_hash, index=index, chunks=len(parts), data=part)
        )
        for index, part in enumerate(parts)
    ]
