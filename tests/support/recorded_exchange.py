"""An exchange on the wire whose every byte is determined, for comparing releases.

A client asks, a drafter written by hand sends one span for each verdict, and the verifier waits for it; what differs
from run to run (times, the session's name, pings) is taken out. The drafter's side is driven without any wire around
it: its offer and its verdicts are the recorded ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from drafter_service.desk import DeskSession
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from tests.support.service_drivers import drafters, request, serving, stub_to, text_of
from tests.support.text_engine import TextDrafter, TextEngine
from transport import codec
from transport.limits import PROTOCOL_VERSION

#: Every step waits for the span that answers the verdict before it.
PLAN = SpeculationPlan(width=4, lookahead=6, stop_threshold=0.0, span_tokens=2, alternatives=1, patience=10.0)
SAMPLING = SamplingParams(temperature=1.0, top_k=40, seed=11, logit_bias={3: 0.5})
NAME = "s-recorded"


def asked(rule: Rule) -> pb.GenerateRequest:
    """What the client sends."""
    return request(SAMPLING, rule=rule, max_tokens=24, stop=[b"no such text"])


async def verifier_side(rule: Rule) -> dict[str, list[bytes]]:
    """What the verifier sends to the client and to the drafter, message by message."""
    engine = TextEngine()
    async with serving(engine, plan=PLAN, adaptive=False, lookup=False) as (verifier, address):
        plain = asked(rule)
        plain.no_draft = True
        text, _ = await text_of(address, plain)
        async with stub_to(address) as stub:
            assist = stub.Assist()
            hello = pb.Hello(protocol_version=PROTOCOL_VERSION, name="d", model="m", vocab_size=9, max_sessions=1)
            await assist.write(pb.AssistRequest(hello=hello))
            await drafters(verifier, 1)
            answering = asyncio.create_task(_answer(assist, text))
            events = [event async for event in stub.Generate(asked(rule))]
            to_drafter = await answering
    return {
        "to_client": [_settled(event).SerializeToString(deterministic=True) for event in events],
        "to_drafter": [_settled(message).SerializeToString(deterministic=True) for message in to_drafter],
    }


async def _answer(assist: Any, text: bytes) -> list[pb.AssistResponse]:
    """The next byte of the text after each verdict, so that nothing of a draft is left after its step, and something
    else after every third."""
    seen: list[pb.AssistResponse] = []
    while not seen or not seen[-1].HasField("closed"):
        message = await assist.read()
        kind = message.WhichOneof("message")
        if kind == "ping":
            await assist.write(pb.AssistRequest(pong=pb.Pong(number=message.ping.number)))
            continue
        seen.append(message)
        if kind == "verdict":
            end = message.verdict.base_offset + len(message.verdict.text)
            guess = b"?!" if len(seen) % 3 == 0 else text[end : end + 1]
            span = pb.DraftSpan(
                session=message.verdict.session,
                base_offset=end,
                base_digest=message.verdict.digest,
                text=guess or b".",
                tokens=2,
                rests=True,
                confidence=0.75,
            )
            await assist.write(pb.AssistRequest(span=span))
    return seen


def _settled(message: Any) -> Any:
    """Without what differs from run to run."""
    kind = message.WhichOneof("event") if isinstance(message, pb.GenerateResponse) else message.WhichOneof("message")
    inner = getattr(message, kind)
    if hasattr(inner, "session"):
        inner.session = NAME
    if kind == "started":
        inner.drafters = 0
    if kind == "finished":
        inner.speculation.verify_seconds = inner.speculation.overhead_p50_seconds = 0.0
        inner.speculation.bytes_up = inner.speculation.bytes_down = 0
        # The last of them may or may not come before the end.
        inner.speculation.spans = inner.speculation.stale_spans = 0
        for change in inner.speculation.plans:
            change.seconds = 0.0
    return message


def drafter_side(to_drafter: Iterable[bytes]) -> list[bytes]:
    """What a drafter answers to these messages of a verifier."""
    session: DeskSession | None = None
    sent: list[bytes] = []

    def send(messages: Iterable[Any]) -> None:
        for message in messages:
            if isinstance(message, Span):
                request = pb.AssistRequest(span=codec.span_to_wire(NAME, message))
            else:
                request = pb.AssistRequest(resync=pb.Resync(session=NAME, offset=message.offset))
            sent.append(request.SerializeToString(deterministic=True))

    for data in to_drafter:
        message = pb.AssistResponse.FromString(data)
        match message.WhichOneof("message"):
            case "offer":
                session = DeskSession(TextDrafter(), codec.offer_from_wire(message.offer))
            case "verdict":
                assert session is not None
                send(session.on_verdict(codec.verdict_from_wire(message.verdict)))
        while session is not None and session.wants_draft():
            send(session.take(session.prepare().alone()))
    return sent
