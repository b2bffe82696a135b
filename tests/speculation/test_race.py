"""The keyed race: its definition on the wire, its exactness, and what must be independent or shared."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from speculation.sampling.noise import drafter_seed, position_key, reference_bits, reference_gumbel, token_keys
from speculation.sampling.race import RaceNoise
from speculation.text.byte_vocab import ByteVocab
from tests.support.distributions import ALPHA, detectable_tv, g_test, independence_test

VOCAB = ByteVocab(
    (b"a", b"b", b"ab", b"", "猫".encode(), b"a", None, None, None, None),
    special={6: "<pause>", 7: "<end>", 8: "<eot>"},
    end_ids=(7, 8),
    byte_fallback=frozenset({0}),
)
KEYS = token_keys(VOCAB)
NOISE = RaceNoise(VOCAB)
WORDS = st.integers(0, 2**64 - 1)

GOLDEN_KEYS = [
    "737b9c5b93ea0dae",
    "ef929d20b62a28d9",
    "667e4cc90af1fc7a",
    "b8f0f94a50844bf5",
    "5c3acbcd63abcbb3",
    "325091a7b68edfc8",
    "aa1e2184ac267bdf",
    "c045747f9e1a504f",
    "29f65325fa9368f8",
    "2468c81797bd11ac",
]
GOLDEN_PLACES = [(154245364365029986, 14284035496414421128), (7107272032128310252, 13506923160740246110)]
GOLDEN_BITS = [
    [
        2149682680251370,
        4320825373010218,
        2274709837938730,
        2167240221769429,
        2467015742240525,
        3451693710442236,
        352553100410243,
        1870918037292853,
        212927925648880,
        3020309214163720,
    ],
    [
        798600142789841,
        664853845552893,
        2434044690322314,
        57892862007705,
        733845870698189,
        4080021463733688,
        2354237856663108,
        31514886180614,
        1874078553567409,
        826782447956250,
    ],
]


# ---- the definition -----------------------------------------------------------------------------------------------


def test_golden_vectors():
    """Frozen: another value here means that peers of different versions no longer share their noise."""
    assert [f"{key:016x}" for key in KEYS] == GOLDEN_KEYS
    assert position_key(0, 0, 0, "race") == GOLDEN_PLACES[0]
    assert position_key(2**64 - 1, 12345, 2, "target") == GOLDEN_PLACES[1]
    assert NOISE.bits(0, 0, 0).tolist() == GOLDEN_BITS[0]
    assert NOISE.bits(2**64 - 1, 12345, 2, stream="target").tolist() == GOLDEN_BITS[1]


@settings(deadline=None)
@given(WORDS, st.integers(0, 2**40), st.integers(0, 5), st.sampled_from(["race", "target", "drafter", "ü"]))
def test_vectorised_equals_reference_bit_for_bit(seed, offset, zero_width, stream):
    place = position_key(seed, offset, zero_width, stream)
    bits = NOISE.bits(seed, offset, zero_width, stream=stream)
    assert bits.tolist() == [reference_bits(key, place) for key in KEYS]
    noise = NOISE.gumbel(seed, offset, zero_width, stream=stream)
    assert noise.dtype == torch.float64
    assert noise.tolist() == pytest.approx([reference_gumbel(key, place) for key in KEYS], rel=1e-13, abs=1e-14)
    some = torch.tensor([4, 0, 7])
    assert NOISE.bits(seed, offset, zero_width, stream=stream, ids=some).tolist() == bits[some].tolist()


@settings(deadline=None)
@given(WORDS, WORDS, WORDS)
def test_mixing_is_the_same_for_any_key(key, a, b):
    """Keys and places with the top bit set go through signed tensors; the result may not notice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("speculation.sampling.race.token_keys", lambda vocab: [key])
        noise = RaceNoise(ByteVocab((b"x",)))
        patch.setattr("speculation.sampling.race.position_key", lambda *_: (a, b))
        assert noise.bits(0, 0, 0).tolist() == [reference_bits(key, (a, b))]


def test_noise_is_finite_at_both_ends():
    for bits in (0, 2**52 - 1):
        u = (torch.tensor([bits]).double() + 0.5) * 2.0**-52
        assert 0 < float(u) < 1
        assert math.isfinite(float(-(-u.log()).log()))
        assert float(u) == (bits + 0.5) / 2**52, "exact: 53 bits plus a half would round to 1"


def test_keys_are_different_within_a_vocabulary():
    assert len(set(KEYS)) == len(KEYS), "copies, specials, end ids and padding all have keys of their own"


def test_keys_are_shared_between_vocabularies():
    other = ByteVocab(
        (None, "猫".encode(), None, b"ab", None, b"a", b"<pause>"),
        special={0: "</s>", 4: "<pause>"},
        end_ids=(0,),
    )
    keys = token_keys(other)
    assert keys[0] == KEYS[7], "the primary end tokens, whatever they are called"
    assert keys[1] == KEYS[4] and keys[3] == KEYS[2], "equal bytes"
    assert keys[4] == KEYS[6], "specials of one name"
    assert keys[5] == KEYS[5], "copy 0 of 'a' is id 5 here too: id 0 is a byte of the fallback"
    assert not {keys[2], keys[6]} & set(KEYS), "padding elsewhere, and text that spells a special token"


# ---- exactness ----------------------------------------------------------------------------------------------------


def race_probability(log_p: list[float], v: int) -> float:
    """P(argmax_w(log p_w + G_w) = v) for independent standard Gumbels, integrated over the value of the winner."""

    def density(g: float) -> float:
        log_density = -(g - log_p[v]) - math.exp(-(g - log_p[v]))
        return math.exp(log_density - sum(math.exp(-(g - lp)) for w, lp in enumerate(log_p) if w != v))

    return quad(density, -8, 60, epsabs=1e-13, epsrel=1e-12, limit=500, points=[0])[0]


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.7, 0.2, 0.1), (0.9, 0.0999, 1e-4), (0.25, 0.25, 0.3, 0.15, 0.05)])
def test_race_of_gumbels_draws_exactly_p(p):
    log_p = [math.log(x) for x in p]
    for v, expected in enumerate(p):
        assert race_probability(log_p, v) == pytest.approx(expected, abs=1e-9)


P = torch.tensor([0.30, 0.22, 0.15, 0.12, 0.09, 0.07, 0.04, 0.01], dtype=torch.float64)
EIGHT = RaceNoise(ByteVocab(tuple(bytes((97 + i,)) for i in range(8))))
DRAWS = 10_000


def winners(noise: RaceNoise, p: torch.Tensor, places, *, stream: str = "race") -> list[int]:
    """The race at each (seed, offset, zero_width)."""
    log_p = p.log()
    rows = torch.stack([noise.gumbel(*place, stream=stream) for place in places])
    return (rows + log_p).argmax(-1).tolist()


def along_the_text(n: int, *, seed: int = 5, start: int = 0, zero_width: int = 0):
    return [(seed, start + i, zero_width) for i in range(n)]


def counts(outcomes: list[int], size: int = 8) -> list[int]:
    return [outcomes.count(v) for v in range(size)]


@pytest.mark.parametrize(
    "places",
    [along_the_text(DRAWS), [(seed, 7, 0) for seed in range(DRAWS)], [(2**63, 0, zw) for zw in range(DRAWS)]],
    ids=["offsets", "seeds", "zero widths"],
)
def test_marginal_is_p(places):
    assert detectable_tv(DRAWS, 8) < 0.045
    assert g_test(counts(winners(EIGHT, P, places)), P.tolist()) > ALPHA


def test_the_g_test_sees_what_it_says_it_sees():
    """A race for a distribution that is off by the stated resolution is caught."""
    shift = detectable_tv(DRAWS, 8)
    wrong = P + torch.tensor([shift, 0, 0, 0, -shift, 0, 0, 0])
    assert g_test(counts(winners(EIGHT, wrong, along_the_text(DRAWS))), P.tolist()) < ALPHA


@pytest.mark.parametrize(
    ("left", "right", "stream"),
    [
        (along_the_text(DRAWS), along_the_text(DRAWS, start=1), "race"),
        (along_the_text(DRAWS), along_the_text(DRAWS, seed=6), "race"),
        (along_the_text(DRAWS), along_the_text(DRAWS, zero_width=1), "race"),
        (along_the_text(DRAWS), along_the_text(DRAWS), "target"),
    ],
    ids=["neighbouring offsets", "neighbouring seeds", "zero width", "streams"],
)
def test_places_are_independent(left, right, stream):
    p = torch.full((4,), 0.25, dtype=torch.float64)
    four = RaceNoise(ByteVocab((b"a", b"b", b"c", b"d")))
    table = torch.zeros(4, 4, dtype=torch.int64)
    for a, b in zip(winners(four, p, left), winners(four, p, right, stream=stream), strict=True):
        table[a, b] += 1
    assert detectable_tv(DRAWS, 10) < 0.045  # of the joint distribution from the product; 9 degrees of freedom
    assert independence_test(table.tolist()) > ALPHA


def test_copies_are_independent():
    """Two ids of equal bytes: were their noises equal, 'b' would win too often (1/2 instead of 1/3)."""
    noise = RaceNoise(ByteVocab((b"a", b"a", b"b")))
    outcomes = counts(winners(noise, torch.full((3,), 1 / 3, dtype=torch.float64), along_the_text(DRAWS)), 3)
    assert g_test(outcomes, [1 / 3] * 3) > ALPHA


def test_low_and_high_bits_are_uniform():
    keys = RaceNoise(ByteVocab(tuple(i.to_bytes(2, "little") for i in range(1 << 16))))
    bits = keys.bits(1, 2, 3)
    for shift in (0, 24, 48):
        nibbles = (bits >> shift) & 15
        assert g_test(torch.bincount(nibbles, minlength=16).tolist(), [1 / 16] * 16) > ALPHA


def test_a_drafters_own_seed_is_one_way_and_known_to_every_version():
    found = [drafter_seed(seed) for seed in (0, 1, 2**64 - 1)]
    assert found == [7739929054836538609, 15599474469552113070, 4141009961839707606]
    assert len({drafter_seed(seed) for seed in range(2000)} | set(range(2000))) == 4000


# ---- coupling -----------------------------------------------------------------------------------------------------


def test_two_vocabularies_agree_as_often_as_theory_says():
    """P(both take v) = 1 / sum_w max(p_w / p_v, q_w / q_v) (Daliri et al. 2024), far more than by chance."""
    words = [b"a", b"b", b"ab", b"c"]
    order = [2, 0, 3, 1]
    left = RaceNoise(ByteVocab(tuple(words)))
    right = RaceNoise(ByteVocab((None, *(words[i] for i in order))))
    p = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.3, 0.4, 0.2, 0.1], dtype=torch.float64)
    q_right = torch.cat((torch.zeros(1, dtype=torch.float64), q[order]))
    expected = sum(float(1 / torch.maximum(p / p[v], q / q[v]).sum()) for v in range(4))
    chance = float((p * q).sum())
    places = along_the_text(DRAWS)
    mine, theirs = winners(left, p, places), winners(right, q_right, places)
    agreed = sum(words[a] == words[order[b - 1]] for a, b in zip(mine, theirs, strict=True))
    assert g_test([agreed, DRAWS - agreed], [expected, 1 - expected]) > ALPHA
    tv = float((p - q).abs().sum() / 2)
    assert expected >= (1 - tv) / (1 + tv) - 1e-12
    assert agreed / DRAWS > chance + 0.3
    apart = winners(right, q_right, places, stream="drafter")
    by_chance = sum(words[a] == words[order[b - 1]] for a, b in zip(mine, apart, strict=True))
    assert g_test([by_chance, DRAWS - by_chance], [chance, 1 - chance]) > ALPHA
