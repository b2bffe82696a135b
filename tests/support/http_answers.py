"""An HTTP server that answers as it is told, well or badly, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any


def answer(body: bytes, *, status: int = 200, kind: str = "application/json") -> bytes:
    """A whole response."""
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


def json_answer(body: Any, *, status: int = 200) -> bytes:
    """A whole response with this object."""
    return answer(json.dumps(body).encode(), status=status)


def event_stream(*events: Any) -> bytes:
    """A whole response with these objects as server-sent events, and nothing after them."""
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return answer(body, kind="text/event-stream")


@contextlib.asynccontextmanager
async def answering(answers: Mapping[str, bytes]) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL, and the JSON bodies that it was sent. ``answers``: by path, bytes as they go to the wire; 404 else."""
    bodies: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if length := next((line for line in head.split("\r\n") if line.startswith("content-length:")), ""):
                bodies.append(json.loads(await reader.readexactly(int(length.partition(":")[2]))))
            writer.write(answers.get(head.split()[1], answer(b"nothing here", status=404, kind="text/plain")))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies
    finally:
        server.close()
        await server.wait_closed()
