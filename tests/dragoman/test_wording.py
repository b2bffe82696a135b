"""How values and numbers are said to people: as they wrote them, and with the right noun."""

from __future__ import annotations

import asyncio
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.config import CoordinatorConfig
from coordinator.fleet import Fleet
from drafter_service.waiting_offers import WaitingOffers
from dragoman.drafting import model_and_speed
from dragoman.terminal import summary
from gateway.admission import Admission
from gateway.translation import number_of_choices
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError, InputError, LimitExceededError, ProtocolError, QuotaExceededError
from speculation.plural import count_of
from speculation.protocol.completion import Completion
from speculation.sampling.params import Rule
from speculation.text.text_stream import TextRun
from tests.support.fleet_members import FakeVerifier
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine
from transport import codec
from transport.identity import Identity, Role
from transport.limits import WireLimits
from verifier_service.quotas import Quotas


@pytest.mark.parametrize(
    "value, shown",
    [
        ("a 'b'", '''f="a 'b'"'''),
        (Path("/x/y"), "f='/x/y'"),
        ((70.0,), "f=70"),
        ((0.5, 1.25), "f=[0.5, 1.25]"),
        ([], "f=[]"),
        (-1.0, "f=-1"),
        (0.1, "f=0.1"),
        (float("nan"), "f=nan"),
        (float("inf"), "f=inf"),
        (1e300, "f=1e+300"),
        (True, "f=True"),
        (b"", "f=''"),
        ("\u00e9".encode(), "f='\u00e9'"),
        (b"\xff", r"f='\\xff'"),
        (Rule.RACE, "f='race'"),
        (None, "f"),
        ("line\nline\x1b[31m", r"f='line\nline\x1b[31m'"),
    ],
)
def test_a_value_is_shown_as_a_person_writes_it(value: object, shown: str):
    error = InputError("f", value, "is wrong", remedy="right it")
    assert error.message == f"{shown}: is wrong"
    assert str(pickle.loads(pickle.dumps(error))) == f"{shown}: is wrong (right it)"


def test_a_long_value_is_cut():
    message = InputError("f", "x" * 1000, "is wrong").message
    assert message == f"f='{'x' * 36}...{'x' * 39}': is wrong"


@pytest.mark.parametrize("value", ["x", None, (1.0,)])
def test_a_relayed_error_knows_its_field(value: object):
    assert InputError.relayed(str(InputError("top_p", value, "is wrong"))).field == "top_p"


def test_numbers_have_their_noun():
    assert [count_of(number, "session") for number in (0, 1, 2)] == ["0 sessions", "1 session", "2 sessions"]
    assert count_of(3001, "token") == "3,001 tokens"
    assert count_of(1, "reply", "replies") == "1 reply" and count_of(2, "reply", "replies") == "2 replies"


def _refused(error: type[DragomanError], refusing: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        refusing()
    return str(caught.value)


def a_client_with_a_text() -> str:
    quotas, anna = Quotas(1), Identity(Role.CLIENT, "anna")
    with quotas.session(anna):
        return _refused(LimitExceededError, lambda: quotas.session(anna).__enter__())


def a_request_for_two_texts() -> str:
    asked: Any = SimpleNamespace(n=2)
    return _refused(InputError, lambda: number_of_choices(asked, 1, most=1))


def a_fleet_of_one() -> str:
    fleet = Fleet(CoordinatorConfig(max_members=1), 0.0)
    fleet.join(FakeVerifier("v1").registration(), 0.0)
    return _refused(LimitExceededError, lambda: fleet.join(FakeVerifier("v2").registration(), 0.0))


def a_holder_of_one() -> str:
    fleet, anna = Fleet(CoordinatorConfig(max_members_each=1), 0.0), Identity(Role.VERIFIER, "anna")
    fleet.join(FakeVerifier("v1").registration(), 0.0, anna)
    return _refused(QuotaExceededError, lambda: fleet.join(FakeVerifier("v2").registration(), 0.0, anna))


def a_span_after_a_byte() -> str:
    span = pb.DraftSpan(base_offset=9)
    limits = WireLimits(pool_bytes=4)
    return _refused(ProtocolError, lambda: codec.span_from_wire(span, limits, committed=1, vocab_size=4))


def a_vocabulary_that_lacks_a_part() -> str:
    waiting = WaitingOffers()
    offer: Any = SimpleNamespace(session="s", vocab_hash="h")
    waiting.hold(offer)
    waiting.add_chunk(pb.VocabularyChunk(vocab_hash="h", index=0, chunks=3))
    return _refused(ProtocolError, lambda: waiting.add_chunk(pb.VocabularyChunk(vocab_hash="h", index=2, chunks=3)))


@pytest.mark.parametrize(
    ("saying", "words"),
    [
        (a_client_with_a_text, "client anna has 1 text written at once"),
        (a_request_for_two_texts, "1 text in one request at most"),
        (a_fleet_of_one, "the fleet has 1 member already"),
        (a_holder_of_one, "verifier anna has 1 member already"),
        (a_span_after_a_byte, "1 byte is committed and 4 may be ahead"),
        (a_vocabulary_that_lacks_a_part, "part 2 of 3 of a vocabulary, after 1 part"),
        (lambda: summary(Completion([TextRun(b"x", False)], [1])).plain, "1 token ·"),
    ],
)
def test_one_of_a_kind_has_the_singular(saying: Callable[[], str], words: str):
    assert re.search(rf"{re.escape(words)}(?!\w)", said := saying()), said


async def test_a_queue_of_one_behind_one_text_has_the_singular():
    admission = Admission(max_concurrent=1, max_queue=1)
    async with admission.places(1):
        waiting = asyncio.create_task(admission.places(1).__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(LimitExceededError, match=r"^1 text is written, and 1 request waits"):
            await admission.places(1).__aenter__()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def test_a_drafter_that_takes_no_time_does_not_say_how_much():
    assert model_and_speed("lookup", 0.00004) == "lookup"
    assert model_and_speed("smollm2", 0.0031) == "smollm2 (3.1 ms a token)"


async def test_a_lookup_drafter_says_for_whom_it_drafts():
    async with serving(TextEngine()) as (_, address):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dragoman", "drafter", "--model=lookup", f"--verifier={address}",
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            said = (await asyncio.wait_for(process.stderr.readline(), 200)).decode()
        finally:
            process.terminate()
            await process.communicate()
    # Beside other processes even a lookup may take its time, and then says so.
    assert re.fullmatch(rf"drafting for text-target at {address} with lookup( \(\d+\.\d ms a token\))?\n", said)
