"""Messages that travel as one arrive one by one, in their order, whatever their size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ProtocolError
from tests.support.service_drivers import eventually, serving, stub_to
from tests.support.text_engine import TextEngine
from transport.bundles import MOST_BYTES, MOST_MESSAGES, bundled, unbundled
from transport.limits import PROTOCOL_VERSION


def span(size: int) -> pb.AssistRequest:
    return pb.AssistRequest(span=pb.DraftSpan(session="s", text=b"x" * size))


@given(st.lists(st.sampled_from([0, 1, 900, MOST_BYTES // 3, MOST_BYTES + 1]), min_size=1, max_size=400))
def test_what_was_bundled_comes_out_in_its_order(sizes: list[int]):
    sent = [span(size) for size in sizes]
    bundles = list(bundled(sent, takes_several=True))
    assert [message for bundle in bundles for message in unbundled(bundle)] == sent
    for bundle in bundles:
        if bundle.WhichOneof("message") == "several":
            assert 1 < len(bundle.several.messages) <= MOST_MESSAGES and bundle.ByteSize() < MOST_BYTES + 1000
    assert list(bundled(sent, takes_several=False)) == sent


def test_few_messages_travel_as_one_and_one_as_itself():
    pings = [pb.AssistResponse(ping=pb.Ping(number=number)) for number in range(MOST_MESSAGES)]
    [one] = bundled(pings, takes_several=True)
    assert list(one.several.messages) == pings
    assert list(bundled(pings[:1], takes_several=True)) == pings[:1]
    assert len(list(bundled([*pings, *pings], takes_several=True))) == 2


def test_what_nobody_bundles_so_is_refused():
    inner = pb.AssistRequest(several=pb.AssistRequests(messages=[span(1)]))
    with pytest.raises(ProtocolError, match="holds others"):
        unbundled(pb.AssistRequest(several=pb.AssistRequests(messages=[span(1), inner])))
    many = [span(1)] * (MOST_MESSAGES + 1)
    with pytest.raises(ProtocolError, match="129 messages in one, 128 at most"):
        unbundled(pb.AssistRequest(several=pb.AssistRequests(messages=many)))


@pytest.mark.parametrize("takes_several", [False, True])
async def test_a_verifier_bundles_for_whoever_takes_it_and_counts_what_is_malformed(takes_several: bool):
    async with serving(TextEngine()) as (verifier, address), stub_to(address) as stub:
        call = stub.Assist()
        await call.write(
            pb.AssistRequest(
                hello=pb.Hello(
                    protocol_version=PROTOCOL_VERSION,
                    name="d",
                    model="m",
                    vocab_size=10,
                    max_sessions=4,
                    takes_several=takes_several,
                )
            )
        )
        first = await call.read()
        [welcome] = [each for each in unbundled(first) if each.HasField("welcome")]
        assert welcome.welcome.takes_several
        [link] = verifier.roster.links
        for number in range(5):
            link.outbox.send(pb.AssistResponse(closed=pb.SessionClosed(session=str(number))))
        names: list[str] = []
        reads = 0
        while len(names) < 5:
            read = await call.read()
            reads += 1
            names += [each.closed.session for each in unbundled(read) if each.HasField("closed")]
        assert names == list("01234") and (reads < 5) == takes_several
        bad = pb.AssistRequest(several=pb.AssistRequests(messages=[span(1), span(2)]))  # of no session
        await call.write(bad)
        await eventually(lambda: link.rejected_messages == 2)
        await call.write(pb.AssistRequest(several=pb.AssistRequests(messages=[bad, bad])))
        await eventually(lambda: link.rejected_messages == 3)
        call.cancel()
        await eventually(lambda: not verifier.roster.links)
