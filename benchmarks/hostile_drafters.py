"""Drafters that a verifier must bear: each speaks the wire by hand, with a certificate that is good, and does harm.

    DRAGOMAN_TLS_CERT=... python -m benchmarks.hostile_drafters flood --verifier 127.0.0.1:50051 --seconds 20

Prints how often its stream was ended, and why at last.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import grpc
import typer

from benchmarks.command import run_command
from dragoman.security_options import secured
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.text.digest import EMPTY_DIGEST, extend_digest
from transport.address import Address
from transport.bundles import bundled, unbundled
from transport.limits import PROTOCOL_VERSION, WireLimits
from transport.pem_files import pem_files
from transport.security import Security

#: What an honest drafter would never send: more than a span, or a message, may have.
_HUGE: Final = 100 << 20
#: Bytes of a span, and of a draft, that are the most that is taken.
_SPAN, _LONG = WireLimits().span_bytes, WireLimits().pool_bytes
#: Seconds before it dials in again.
_PAUSE: Final = 0.2
#: Seconds for which one stays that dials in again and again.
_GLANCE: Final = 0.02


class Attack(enum.StrEnum):
    """FLOOD: spans as fast as they go, well formed. LIES: it says that it takes no time and is always right, and never
    is. GARBAGE: malformed spans. HUGE: spans of 100 MB. DIGESTS: spans for a text that was never written. PLACES: the
    same, for places far inside a long draft, which take the longest to look for. NAMES: spans for sessions of others.
    SLOW: it never reads. STORM: it dials in, again and again."""

    FLOOD = "flood"
    LIES = "lies"
    GARBAGE = "garbage"
    HUGE = "huge"
    DIGESTS = "digests"
    PLACES = "places"
    NAMES = "names"
    SLOW = "slow"
    STORM = "storm"


@dataclass
class Outcome:
    """``ended``: streams that the verifier ended, by status and words."""

    dialled: int = 0
    sent: int = 0
    ended: dict[str, int] = field(default_factory=dict)

    def end(self, error: grpc.aio.AioRpcError) -> None:
        """One more."""
        words = f"{error.code().name}: {error.details()}"
        self.ended[words] = self.ended.get(words, 0) + 1


class HostileDrafter:
    """``seed``: of what it makes up."""

    def __init__(self, verifier: Address, *, security: Security | None = None, seed: int = 1) -> None:
        self._verifier = verifier
        self._security = security or Security.from_environment()
        self._chance = random.Random(seed)
        self._stands: dict[str, tuple[int, int]] = {}
        self.outcome = Outcome()

    async def run(self, attack: Attack, seconds: float, *, once: bool = False) -> Outcome:
        """Attack for so long, dialling in again whenever the stream is ended; ``once``: up to its end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._channel() as channel:
                stub = pb_grpc.VerifierServiceStub(channel)
                while True:
                    try:
                        async with self._attached(stub, reads=attack is not Attack.SLOW) as call:
                            await _ATTACKS[attack](self, call)
                    except grpc.aio.AioRpcError as error:
                        self.outcome.end(error)
                        if once:
                            break
                    await asyncio.sleep(0 if attack is Attack.STORM else _PAUSE)
        return self.outcome

    @contextlib.asynccontextmanager
    async def _attached(self, stub: pb_grpc.VerifierServiceStub, *, reads: bool) -> AsyncIterator[Any]:
        call = stub.Assist()
        hello = pb.Hello(
            protocol_version=PROTOCOL_VERSION,
            name="hostile",
            model="m",
            max_sessions=64,
            seconds_per_token=1e-9,
            takes_several=True,
        )
        reading: asyncio.Task[None] | None = None
        self._stands = {}
        try:
            await call.write(pb.AssistRequest(hello=hello))
            self.outcome.dialled += 1
            if reads:
                reading = asyncio.create_task(self._read(call))
            yield call
        except (asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AioRpcError):
            raise await _status(call) from None  # the stream is over; a write that fails hides why, now and then
        finally:
            call.cancel()
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, call: Any) -> None:
        """Where each text stands that it was offered: offset and digest."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (message := await call.read()) is not grpc.aio.EOF:
                for one in unbundled(message):
                    if one.HasField("offer"):
                        text = one.offer.committed
                        self._stands[one.offer.session] = len(text), extend_digest(EMPTY_DIGEST, text)
                    elif one.HasField("verdict"):
                        verdict = one.verdict
                        self._stands[verdict.session] = verdict.base_offset + len(verdict.text), verdict.digest
                    elif one.HasField("closed"):
                        self._stands.pop(one.closed.session, None)
        self._stands.clear()

    async def _place(self, call: Any) -> dict[str, Any]:
        """Where a text stands that it was offered, as fields of a span. Raises the status of a stream that is over."""
        while not self._stands:
            if call.done():
                raise await _status(call)
            await asyncio.sleep(0.01)
        session = self._chance.choice(list(self._stands))
        offset, digest = self._stands[session]
        return {"session": session, "base_offset": offset, "base_digest": digest}

    def _channel(self) -> grpc.aio.Channel:
        """As an honest one's, but for the size of what it sends."""
        options = [("grpc.max_send_message_length", -1)]
        if not self._security.dials_tls:
            return grpc.aio.insecure_channel(str(self._verifier), options=options)
        pem = pem_files(self._security).newest()
        credentials = grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)
        return grpc.aio.secure_channel(str(self._verifier), credentials, options=options)

    async def _send(self, call: Any, *spans: pb.DraftSpan) -> None:
        messages = [pb.AssistRequest(span=span) for span in spans]
        for whole in bundled(messages, takes_several=True):
            await call.write(whole)
        self.outcome.sent += len(spans)

    async def _flood(self, call: Any) -> None:
        while True:
            place, text = await self._place(call), self._chance.randbytes(8)
            await self._send(call, *(pb.DraftSpan(**place, text=text, alternative=number % 9) for number in range(64)))

    async def _lie(self, call: Any) -> None:
        while True:
            text = self._chance.randbytes(16)
            await self._send(call, pb.DraftSpan(**await self._place(call), text=text, tokens=4, confidence=1.0))
            await asyncio.sleep(0.002)

    async def _garble(self, call: Any) -> None:
        while True:
            await self._send(call, pb.DraftSpan(**await self._place(call), text=b"x", confidence=float("nan")))

    async def _swell(self, call: Any) -> None:
        while True:
            await self._send(call, pb.DraftSpan(**await self._place(call), text=bytes(_HUGE)))
            await asyncio.sleep(_PAUSE)

    async def _mislead(self, call: Any) -> None:
        while True:
            place = await self._place(call) | {"base_digest": self._chance.getrandbits(60)}
            await self._send(call, pb.DraftSpan(**place, text=b"the"))
            await asyncio.sleep(0.001)

    async def _lead_astray(self, call: Any) -> None:
        while True:
            place = await self._place(call)
            offset, digest = place["base_offset"], place["base_digest"]
            await self._send(call, *_long_draft(place, self._chance))
            for _ in range(20):
                if self._stands.get(place["session"]) != (offset, digest):
                    break
                inside = place | {"base_offset": offset + _LONG - 1 - self._chance.randrange(64)}
                inside["base_digest"] = self._chance.getrandbits(60)
                await self._send(call, *[pb.DraftSpan(**inside, text=b"the")] * 4)
                await asyncio.sleep(0.002)

    async def _intrude(self, call: Any) -> None:
        while True:
            name = f"s-{self._chance.getrandbits(40):x}"
            await self._send(call, pb.DraftSpan(session=name, base_digest=EMPTY_DIGEST, text=b"the"))
            await asyncio.sleep(0.001)

    async def _hold(self, call: Any) -> None:
        while not call.done():
            await asyncio.sleep(0.1)
        raise await _status(call)

    async def _leave(self, call: Any) -> None:
        await asyncio.sleep(_GLANCE)
        if call.done():
            raise await _status(call)


_ATTACKS: Final[dict[Attack, Callable[[HostileDrafter, Any], Awaitable[None]]]] = {
    Attack.FLOOD: HostileDrafter._flood,
    Attack.LIES: HostileDrafter._lie,
    Attack.GARBAGE: HostileDrafter._garble,
    Attack.HUGE: HostileDrafter._swell,
    Attack.DIGESTS: HostileDrafter._mislead,
    Attack.PLACES: HostileDrafter._lead_astray,
    Attack.NAMES: HostileDrafter._intrude,
    Attack.SLOW: HostileDrafter._hold,
    Attack.STORM: HostileDrafter._leave,
}


def _long_draft(place: dict[str, Any], chance: random.Random) -> list[pb.DraftSpan]:
    """As long as a draft may be, span by span."""
    offset, digest, spans = place["base_offset"], place["base_digest"], []
    while offset < place["base_offset"] + _LONG:
        text = chance.randbytes(_SPAN)
        spans.append(pb.DraftSpan(session=place["session"], base_offset=offset, base_digest=digest, text=text))
        offset, digest = offset + len(text), extend_digest(digest, text)
    return spans


async def _status(call: Any) -> grpc.aio.AioRpcError:
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    return grpc.aio.AioRpcError(await call.code(), initial, trailing, await call.details())


@secured
def main(
    *,
    attack: Annotated[Attack, typer.Argument(help="What it does")],
    verifier: Annotated[str, typer.Option(help="Whom it attacks")] = "127.0.0.1:50051",
    seconds: Annotated[float, typer.Option(help="How long", min=0.1)] = 20.0,
    seed: Annotated[int, typer.Option(help="Of what it makes up")] = 1,
    security: Security,
) -> None:
    """Attack."""
    drafter = HostileDrafter(Address.parse(verifier, field="verifier"), security=security, seed=seed)
    outcome = asyncio.run(drafter.run(attack, seconds))
    print(f"{attack}: dialled in {outcome.dialled} times, sent {outcome.sent} spans")
    for words, times in sorted(outcome.ended.items(), key=lambda item: -item[1])[:5]:
        print(f"  ended {times} times: {words}")


if __name__ == "__main__":
    run_command(main)
