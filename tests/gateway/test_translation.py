"""From bodies to requests: what is left out, what is meant, and seeds. Nothing runs here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import translation
from gateway.fields import UnknownFields, check_best_of, check_refused
from gateway.json_bytes import json_bytes
from gateway.requests import Body, ChatBody, CompletionBody
from gateway.response_requests import ResponsesBody
from speculation.errors import InputError, UnsupportedFieldError
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.messages import Prompt
from speculation.sampling.params import MAX_SEED, Rule, SamplingParams

PROMPT = Prompt(text="x")
MESSAGES = [{"role": "user", "content": "x"}]


def of_completion(**fields: Any) -> GenerationRequest:
    return translation.request_of(CompletionBody(prompt="x", **fields), PROMPT, seed=7)


def test_what_is_left_out_is_as_openai_has_it():
    expected = GenerationRequest(prompt=PROMPT, sampling=SamplingParams(temperature=1.0, seed=7), max_tokens=16)
    assert of_completion() == expected
    chat = translation.request_of(ChatBody(messages=MESSAGES), PROMPT, seed=7)
    assert chat.max_tokens == 0 and chat.sampling == expected.sampling


def test_everything_that_may_be_said():
    given_fields: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1}
    given_fields |= {"repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": -0.3}
    request = of_completion(
        **given_fields,
        logit_bias={"42": -100.0},
        max_tokens=9,
        stop=["a", "猫"],
        rule="exact",
        draft=False,
        ignore_eos=True,
        prediction="guess",
        priority=-5,
        cache_salt="secret",
    )
    assert request == GenerationRequest(
        prompt=PROMPT,
        sampling=SamplingParams(**given_fields, logit_bias={42: -100.0}, seed=7),
        max_tokens=9,
        stop=(b"a", "猫".encode()),
        rule=Rule.EXACT,
        draft=False,
        ignore_end=True,
        prediction=b"guess",
        priority=-5,
        cache_salt="secret",
    )


@pytest.mark.parametrize(("top_k", "meant"), [(None, 0), (0, 0), (-1, 0), (7, 7)])
def test_top_k_is_off_by_either_number(top_k: int | None, meant: int):
    assert of_completion(top_k=top_k).sampling.top_k == meant


@pytest.mark.parametrize("stop", [None, [], "a", ["a"]])
def test_stops(stop: Any):
    assert of_completion(stop=stop).stop == ((b"a",) if stop else ())


@given(st.integers(-(1 << 63), MAX_SEED))
def test_seeds_of_either_sign_are_64_bits(seed: int):
    found = translation.seed_of(seed, otherwise=1)
    assert 0 <= found <= MAX_SEED and (found - seed) % (1 << 64) == 0


@pytest.mark.parametrize("seed", [MAX_SEED + 1, -(1 << 63) - 1])
def test_other_seeds_are_refused(seed: int):
    with pytest.raises(InputError, match="seed="):
        translation.seed_of(seed, otherwise=1)


@given(st.integers(0, MAX_SEED), st.integers(1, 40))
def test_choices_differ_in_their_seeds_alone_and_the_first_is_the_only_one(seed: int, n: int):
    request = GenerationRequest(prompt=PROMPT, sampling=SamplingParams(temperature=1.0, seed=seed))
    choices = translation.choices_of(request, n)
    seeds = [choice.sampling.seed for choice in choices]
    assert choices[0] == request and len(set(seeds)) == n and all(0 <= each <= MAX_SEED for each in seeds)
    assert translation.choices_of(request, n + 1)[:n] == choices


def test_derived_seeds_are_the_same_for_ever():
    """A client that repeats a request after an update gets the same texts."""
    assert [translation.seed_of_choice(9, choice) for choice in range(3)] == [
        9,
        12842647331002252263,
        10616305857533039142,
    ]


@pytest.mark.parametrize(
    ("prompt", "several"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ("", None),
        ([], None),
        (["a", ""], None),
    ],
)
def test_prompts(prompt: Any, several: list | None):
    body = CompletionBody(prompt=prompt)
    if several is not None:
        assert translation.prompts_of(body) == several
        return
    with pytest.raises(InputError, match="prompt: is empty"):
        translation.prompts_of(body)


def test_n_counts_for_every_prompt():
    assert translation.number_of_choices(CompletionBody(prompt="x", n=3), 2, most=6) == 3
    with pytest.raises(InputError, match="asks for 8 texts, with 2 prompts"):
        translation.number_of_choices(CompletionBody(prompt="x", n=4), 2, most=6)


def test_text_parts_are_joined_by_line_breaks():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert translation.text_of_content(parts, "x") == "a\nb"
    assert translation.prediction_of({"type": "content", "content": parts}) == "a\nb"
    assert translation.text_of_content(None, "x") == translation.prediction_of(None) == ""


@pytest.mark.parametrize("best_of", [None, 1, 2])
def test_best_of_that_chooses_nothing_is_taken(best_of: int | None):
    check_best_of(best_of, 2)


@pytest.mark.parametrize("best_of", [3, "2", True])
def test_best_of_that_would_choose_is_refused(best_of: object):
    with pytest.raises(UnsupportedFieldError, match="best_of"):
        check_best_of(best_of, 2)


def test_fields_that_ask_for_nothing_are_taken_and_zero_is_not_false():
    check_refused({"tools": [], "tool_choice": "none", "use_beam_search": False})
    with pytest.raises(UnsupportedFieldError, match="use_beam_search=0"):
        check_refused({"use_beam_search": 0})


def test_names_of_unknown_fields_do_not_fill_the_memory(caplog: pytest.LogCaptureFixture):
    unknown = UnknownFields()
    for number in range(1000):
        unknown.note(Body.model_validate({f"field-{number}" + "x" * 1000: 1}))
    assert len(caplog.records) == 256 and max(len(record.getMessage()) for record in caplog.records) < 200


def test_unknown_fields_within_fields_are_named(caplog: pytest.LogCaptureFixture):
    message = {"role": "user", "content": "x", "name": "anna", "mood": "good", "refusal": None}
    tools = [{"type": "function", "function": {"name": "f", "depth": 2}}]
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"messages": [message], "tools": tools, "stream_options": options, "truncation": "disabled", "odd": 1}
    UnknownFields().note(ChatBody.model_validate(body))
    named = {record.getMessage().split("'")[1] for record in caplog.records}
    nested = {"messages.mood", "tools.function.depth", "stream_options.continuous_usage_stats"}
    assert named == {"odd", "truncation"} | nested
    caplog.clear()
    UnknownFields().note(ResponsesBody.model_validate({"input": "x", "truncation": "disabled"}))
    assert not caplog.records


def test_json_has_no_character_that_is_none():
    assert json_bytes({"a": "猫\ud800"}) == '{"a":"猫\\ud800"}'.encode()
