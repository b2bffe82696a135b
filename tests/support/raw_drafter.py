"""A drafter that speaks the wire by hand, for sending what an honest one would not."""

from __future__ import annotations

from typing import Any

from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from transport.limits import PROTOCOL_VERSION


class RawDrafter:
    """One stream to a verifier; ``hello``: fields of its first message, in place of good ones."""

    def __init__(self, stub: pb_grpc.VerifierServiceStub, **hello: Any) -> None:
        self.call = stub.Assist()
        fields: dict[str, Any] = {"protocol_version": PROTOCOL_VERSION, "name": "raw", "model": "m", "max_sessions": 4}
        self.hello = pb.Hello(**(fields | hello))

    async def dial(self) -> pb.Welcome:
        """Says hello and takes the answer, which the verifier may refuse."""
        await self.call.write(pb.AssistRequest(hello=self.hello))
        return (await self.call.read()).welcome

    async def offer(self) -> pb.SessionOffer:
        """The next session that it is offered; what comes before is dropped."""
        while True:
            message = await self.call.read()
            if message.HasField("offer"):
                return message.offer

    async def span(self, **fields: Any) -> None:
        """Sends a span of just these fields."""
        await self.call.write(pb.AssistRequest(span=pb.DraftSpan(**fields)))
