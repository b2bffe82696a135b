"""Sampling settings: what is refused, with which field, and that a valid value cannot change."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from speculation.errors import InputError
from speculation.frozen_map import FrozenMap
from speculation.sampling.params import MAX_SEED, Rule, SamplingParams

BAD = [
    ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("temperature", "1"),
    ("temperature", True), ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_p", 0.0), ("top_p", 1.01),
    ("min_p", -0.01), ("min_p", 1.01), ("repetition_penalty", 0.0), ("repetition_penalty", math.inf),
    ("presence_penalty", 2.1), ("frequency_penalty", -2.1), ("seed", -1), ("seed", MAX_SEED + 1), ("seed", 1.0),
    ("presence_penalty", -2.1), ("frequency_penalty", 2.1), ("top_k", 2**32), ("seed", True), ("min_p", True),
    ("logit_bias", 3),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD)
def test_bad_values_name_their_field(field, value):
    with pytest.raises(InputError) as raised:
        SamplingParams(**{field: value})
    assert raised.value.field == field
    assert raised.value.value is value
    written = str(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)  # 0, not 0.0
    assert str(raised.value).startswith(f"{field}={written}: ")


@pytest.mark.parametrize("bias", [{-1: 1.0}, {"1": 1.0}, {1: math.nan}, {1: math.inf}, {1: None}])
def test_bad_biases(bias):
    with pytest.raises(InputError, match="logit_bias"):
        SamplingParams(logit_bias=bias)


def test_limits_are_inclusive():
    SamplingParams(0, 0, 1, 0, 1e-9, -2, 2, {0: -1e300}, 0)
    assert MAX_SEED == 2**64 - 1
    SamplingParams(1e300, 2**32 - 1, 1e-300, 1, 1e300, 2, -2, {}, MAX_SEED)


def test_what_the_rules_are():
    assert Rule.concrete() == (Rule.RACE, Rule.EXACT, Rule.REJECTION, Rule.STRING_REJECTION)
    assert [rule.proposes for rule in Rule] == [False, False, True, True, False]
    assert [rule.resumable for rule in Rule] == [True, True, False, False, False]


def test_a_frozen_map_is_its_items():
    empty, one = FrozenMap[int, int](), FrozenMap({1: 2})
    assert len(empty) == 0 and dict(one) == {1: 2} and repr(one) == "{1: 2}" and hash(one) == hash(FrozenMap({1: 2}))


def test_a_value_is_a_value():
    bias = {5: 1.0}
    params = SamplingParams(temperature=0.5, logit_bias=bias)
    bias[6] = 2.0
    assert params.logit_bias == {5: 1.0}
    with pytest.raises(TypeError):
        params.logit_bias[7] = 1.0
    same = SamplingParams(temperature=0.5, logit_bias={5: 1.0})
    assert params == same == pickle.loads(pickle.dumps(params)) == copy.deepcopy(params)
    assert len({params, same}) == 1
    assert params != SamplingParams(temperature=0.5)
    assert SamplingParams().greedy and not params.greedy
