"""What mutual TLS adds to a round on loopback: a message out and one back on a stream that stands.

Drafts and verdicts go so. A server in a process of its own listens twice, in plaintext and in mutual TLS, through the
project's own channels and ports; rounds go over both by turns and are compared pair by pair.

    python -m benchmarks.tls_rounds --pairs 5000 --up 300 --down 100
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer

from benchmarks.certificates import PLAINTEXT, Certificates
from benchmarks.command import run_command
from benchmarks.results import write_results
from dragoman.bench.percentiles import percentile
from transport.address import Address
from transport.channels import open_channel
from transport.grpc_options import server_options
from transport.identity import Role
from transport.security import Security
from transport.servers import bind

_SERVICE, _METHOD = "dragoman.benchmarks", "Rounds"
_RANKS: Final = (50, 90, 99)
#: Rounds of each kind before those that count.
_WARM_UP: Final = 200


@dataclass(frozen=True, slots=True)
class Rounds:
    """Seconds of each round, plaintext and TLS by turns."""

    plaintext: list[float]
    tls: list[float]

    def row(self) -> dict[str, Any]:
        """Milliseconds by percentile, and what TLS adds at the median and pair by pair."""
        plaintext, tls = (_milliseconds(times) for times in (self.plaintext, self.tls))
        differences = [encrypted - plain for plain, encrypted in zip(self.plaintext, self.tls, strict=True)]
        return {
            "plaintext_ms": plaintext,
            "tls_ms": tls,
            "added_p50_ms": tls["p50"] - plaintext["p50"],
            "median_of_differences_ms": _milliseconds(differences)["p50"],
            "rounds": len(self.tls),
        }


def _milliseconds(times: list[float]) -> dict[str, float]:
    return {f"p{rank}": percentile(times, rank) * 1000 for rank in _RANKS}


def _serve(securities: list[Security], down: int, told: Connection) -> None:
    """In the child: answers each message with ``down`` bytes, until the process ends."""
    asyncio.run(_answer(securities, b"x" * down, told))


async def _answer(securities: list[Security], answer: bytes, told: Connection) -> None:
    async def rounds(requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for _request in requests:
            yield answer

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(rounds)
    server = grpc.aio.server(options=server_options())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
    told.send([str(bind(server, Address("127.0.0.1", 0), security)) for security in securities])
    await server.start()
    await server.wait_for_termination()


class Caller:
    """A stream that stands."""

    def __init__(self, address: str, security: Security) -> None:
        self._channel = open_channel(Address.parse(address, field="address"), security)
        stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
        self._call = stream()

    async def round(self, message: bytes) -> float:
        """Its seconds."""
        began = time.perf_counter()
        await self._call.write(message)
        await self._call.read()
        return time.perf_counter() - began

    async def close(self) -> None:
        await self._channel.close()


async def measure(addresses: list[str], securities: list[Security], *, pairs: int, up: int) -> Rounds:
    """Plaintext first in every other pair. Raises gRPC's errors."""
    callers = [Caller(address, security) for address, security in zip(addresses, securities, strict=True)]
    times: list[list[float]] = [[], []]
    message = b"x" * up
    for number in range(_WARM_UP + pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            seconds = await callers[which].round(message)
            if number >= _WARM_UP:
                times[which].append(seconds)
    for caller in callers:
        await caller.close()
    return Rounds(*times)


def run(*, pairs: int, up: int, down: int) -> Rounds:
    """Start the server, measure, and end it."""
    spawning = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder) / "certs")
        served = [PLAINTEXT, certificates.mutual(Role.VERIFIER)]
        heard, told = spawning.Pipe(duplex=False)
        server = spawning.Process(target=_serve, args=(served, down, told), daemon=True)
        server.start()
        told.close()  # so that a server that ends before it says where it listens is an error here
        try:
            dialled = [PLAINTEXT, certificates.mutual(Role.DRAFTER)]
            return asyncio.run(measure(heard.recv(), dialled, pairs=pairs, up=up))
        finally:
            server.terminate()
            server.join()


def main(
    pairs: Annotated[int, typer.Option(help="Of rounds, plaintext and TLS", min=1)] = 5000,
    up: Annotated[int, typer.Option(help="Bytes of a message out", min=1)] = 300,
    down: Annotated[int, typer.Option(help="Bytes of the answer", min=1)] = 100,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Compare rounds in mutual TLS with rounds in plaintext."""
    write_results({"up": up, "down": down, **run(pairs=pairs, up=up, down=down).row()}, output)


if __name__ == "__main__":
    run_command(main)
