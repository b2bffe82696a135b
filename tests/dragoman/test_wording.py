"""How values and numbers are said to people: as they wrote them, and with the right noun."""

from __future__ import annotations

import asyncio
import pickle
import re
import sys
from pathlib import Path

import pytest

from dragoman.drafting import model_and_speed
from speculation.errors import InputError
from speculation.plural import count_of
from speculation.sampling.params import Rule
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine


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
