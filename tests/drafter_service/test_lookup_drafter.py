"""The lookup drafter: longest suffix match by bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drafter_service.linear_draft import LinearDraft
from drafter_service.lookup_drafter import LookupDrafter
from speculation.drafts.lookup import MAX_MATCH, MIN_MATCH, longest_suffix_match
from speculation.protocol.messages import ChatMessage, Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams


def naive_match(text: bytes) -> tuple[int, int]:
    for length in range(min(MAX_MATCH, len(text) - 1), MIN_MATCH - 1, -1):
        at = text.rfind(text[-length:], 0, len(text) - 1)
        if at >= 0:
            return at + length, length
    return 0, 0


@given(st.binary(max_size=60) | st.text("ab", max_size=80).map(str.encode))
def test_bisection_finds_the_longest_match(text: bytes):
    assert longest_suffix_match(text) == naive_match(text)


def open_source(prompt: Prompt, committed: bytes = b""):
    offer = SessionOffer("s", prompt, SamplingParams(), Rule.RACE, committed, 0, SpeculationPlan())
    return LinearDraft(LookupDrafter().open(offer))


def draft(source, tokens: int = 50) -> bytes:
    text = b""
    for _ in range(tokens):
        token = source.next_token()
        assert 0 < token.confidence <= 1
        if token.stops:
            break
        text += token.text
    return text


def test_copies_what_followed_last_time():
    prompt = "The heron stands in the reeds. Quote: "
    source = open_source(Prompt(text=prompt), b"The heron st")
    assert draft(source, 4) == b"ands in the reeds"
    source.correct(4, b"dog. The heron sta")
    assert draft(source, 3) == b"nds in the"


def test_non_latin_text_and_messages():
    prompt = Prompt(messages=(ChatMessage("user", "猫が座った。犬も座った。"),))
    source = open_source(prompt, "猫が".encode())
    assert draft(source, 20).startswith("座った。犬も座った。".encode())


def test_nothing_to_copy_rests():
    source = open_source(Prompt(text="abcdefg"))
    assert source.next_token().stops
