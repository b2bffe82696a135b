"""Does a loaded model give a token the same logits however it is run? Tried on the model itself, when it is loaded.

Speculation leaves the text alone only if logits are a function of the text: not of how many tokens run in a pass, of
other branches of a tree, of what was rolled back, nor of how a prompt was divided. What serves a text rests on that:
masks by places in the tree, explicit positions, a KV cache that forgets and rolls back. Architectures that apply a
window by rows, see later tokens, or keep a state elsewhere load without a word and then write other texts with a
drafter than without.

What is proven, with the model's own weights and code on its device: a few tokens one by one are the reference. A
single pass without a cache, a prompt in one and in two chunks, a chain, as many rows as a step may have, a tree of two
branches, one of them kept and continued, and a roll-back give the same logits, and every layer that stores holds what
went in. So it is at the start, beyond each window that the configuration names, where rotary frequencies change, and
at the end of the context. Far places are not reached by running what lies before them: the cache is filled with copies
of a few tokens (``KVCache.stand_at``), with large values around the edge of the window, so that one token too many
shows.

"The same" is up to rounding in float32; in bfloat16 on a CPU, where steps promise it, to the bit. Elsewhere 16-bit
numbers are too coarse to tell: there all of this is tried on the first layers in float32 (``language_models/upcast``),
and then the whole model at the start only, where it has to be near.

What is not: a fault at places that no configuration names, windows that memory is short for (``SelfTest.unproven``),
and that near-ties of 16-bit numbers on a GPU are decided alike.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from language_models.footprint import free_bytes
from language_models.kv_cache import KVCache
from language_models.logit_difference import logit_difference
from language_models.self_test_places import PROMPT, SLACK, START, TEXT, Place, ordinary_tokens, places
from language_models.shards import Shards
from language_models.shared_pass_test import Known, attends_elsewhere, why_unshared
from language_models.upcast import first_layers_in_float32
from speculation.errors import UnsupportedModelError

if TYPE_CHECKING:
    from language_models.causal_lm import CausalLM

#: A tree of two branches that part after the text's first token: (branch, place in it) by row. Rows of each are apart.
_TREE = ((0, 0), (1, 1), (0, 1), (1, 2))
_BRANCHES = [0, 2], [0, 1, 3]
#: Rows of the widest chain, where steps may be any width.
_WIDE = 24
MEMORY = "too much memory"  # what takes it is not tried
#: Largest difference of a row of logits that is rounding, as a share of their spread: in float32; in bfloat16 that
#: promises bits, where a smaller one is a sum in another order; in other 16-bit numbers.
_FLOAT32, _BITS, _COARSE = 1e-3, 0.1, 1.0
#: Memory that the keys of a window may take, in bytes.
_MOST_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class SelfTest:
    """``faults``: what differed, or failed, most telling first; with any, the model cannot be served.

    ``row_dependence``: where 16-bit numbers on a CPU have other bits by what runs beside them, though nearly the same
    values: no harm in a drafter, but a target's text would depend on the drafts. "" if they have not.
    ``unproven``: what could not be tried here. ``unshared``: why texts do not run in one pass, each in its own place
    and with its own cache; "" if they do, with the logits that they have alone.
    """

    faults: tuple[str, ...] = ()
    row_dependence: str = ""
    unproven: tuple[str, ...] = ()
    unshared: str = "it was not tried"
    places: tuple[str, ...] = ()
    seconds: float = 0.0


def self_test(model: CausalLM, shards: Shards | None = None) -> SelfTest:
    """Run it: some 25 passes over a few tokens, and 11 for each window. Raises torch.OutOfMemoryError.

    ``shards``: those that hold the model together and run it all alike.
    """
    started = time.monotonic()
    examination = _Examination(model, shards)
    with torch.inference_mode():
        examination.run()
    return SelfTest(
        faults=tuple(examination.faults),
        row_dependence=examination.row_dependence,
        unproven=tuple(examination.unproven),
        unshared=examination.unshared,
        places=tuple(place.name for place in examination.places),
        seconds=time.monotonic() - started,
    )


@dataclass
class _Examination:
    model: CausalLM
    shards: Shards | None = None
    faults: list[str] = field(default_factory=list)
    row_dependence: str = ""
    unshared: str = ""
    unproven: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    _doing: str = ""
    _fails: str = ""
    _prompted: KVCache | None = None
    _start: Known | None = None

    def __post_init__(self) -> None:
        rows = self.model.most_rows or _WIDE
        tokens = ordinary_tokens(self.model.tokenizer.vocab, PROMPT + TEXT + rows)
        self._prompt, self._text = tokens[:PROMPT], tokens[PROMPT : PROMPT + TEXT]
        self._other = [self._text[0], *tokens[1 - rows :]]  # as many as a step may have; begins with the other branch
        self._tolerance, self._compares_bits = _FLOAT32, False
        self.unshared = attends_elsewhere(self.model)

    def run(self) -> None:
        if not self.model.takes_positions:
            self.faults.append(
                "it takes no positions from outside (as with ALiBi): a token's place is its row, which in a tree of "
                "draft tokens it is not"
            )
            return
        dtype, on_cpu = self.model.weights_dtype, self.model.most_rows is not None
        if dtype is torch.float32:
            self._try_places()
        elif dtype is torch.bfloat16 and on_cpu:
            self._tolerance, self._compares_bits = _BITS, True
            self._try_places()
        else:
            self._try_in_float32()
            if not self.faults:
                self._tolerance, self._compares_bits = _COARSE, on_cpu
                self._try(START)

    def _try_in_float32(self) -> None:
        try:
            with first_layers_in_float32(self.model.module):
                self._try_places()
        except torch.OutOfMemoryError:
            if self.shards is not None:  # others may have had it, and go on
                raise
            self._fails = f"takes {MEMORY}"
        self._prompted = None
        if self._fails:  # in float32 alone: the code of some models mixes types
            self.unproven.append(f"its masks in float32, which {self._fails}")
            self.faults, self.places = [], []
            self._tolerance = _COARSE
            self._try_places()

    def _try_places(self) -> None:
        for place in places(self.model.config, self.model.context_length, bits=self._compares_bits):
            if place.window and not self._fits(place.held):
                self.unproven.append(f"its window of {place.window:,} tokens, whose keys take {MEMORY}")
                continue
            self.places.append(place)
            self._try(place)
            if self.faults:
                return  # what else differs follows from it

    def _try(self, place: Place) -> None:
        try:
            self._examine(place)
        except torch.OutOfMemoryError:
            raise
        except UnsupportedModelError as error:
            self.faults.append(f"{self._doing} {place.name}: {error.message}")
        except Exception as error:  # architectures fail as they like where they were not meant to be run
            reason = (str(error).strip().splitlines() or [""])[0]
            self._fails = f"fails: {type(error).__name__}: {reason}"
            self.faults.append(f"{self._doing} {place.name} {self._fails}")

    def _fits(self, tokens: int) -> bool:
        assert self._prompted is not None, "the start comes first"
        free = free_bytes(self.model.device)
        most = _MOST_BYTES if free is None else min(_MOST_BYTES, free // 4)
        most = most if self.shards is None else self.shards.least(most)
        return tokens * self._prompted.bytes_per_token <= most

    # ---- one place --------------------------------------------------------------------------------------------

    def _examine(self, place: Place) -> None:
        cache = self._cache(place)
        text = self._text[: self.model.context_length - place.base]
        self._doing = "one token at a time"
        alone = torch.cat([self._forward([token], cache) for token in text])
        if place.base == PROMPT:
            self._compare_prompts(place, alone)
        self._doing = f"a chain of {len(text)} tokens"
        cache.rollback(len(text))
        self._same(place, self._forward(text, cache), alone)
        cache.rollback(len(text))
        other = self._compare_tree(place, cache, alone)
        cache.rollback(cache.length - place.base)
        if place.base + len(self._other) <= self.model.context_length:
            self._doing = f"a step of {len(self._other)} tokens after a roll-back"
            wide = self._forward(self._other, cache)
            self._same(place, wide[:1], alone[:1])
            self._doing = "the other branch of a tree"
            self._same(place, other, wide[: len(other)])
            cache.rollback(len(self._other))
        if place.window:
            self._compare_rollback(place, cache)
        if not self.unshared and not self.faults:
            self._compare_company(place, Known(lambda: self._cache(place), alone))

    def _compare_prompts(self, place: Place, alone: Tensor) -> None:
        """The same text in one pass without a cache, and with its prompt divided in another way."""
        self._doing = "one pass over the text without a KV cache"
        whole = self.model.forward_uncached([*self._prompt, *self._text])
        self._same(place, whole[PROMPT:], alone, exact=False)
        self._doing = "a prompt in two chunks"
        cache = self.model.new_cache(slack=SLACK)
        self.model.prefill(self._prompt[:1], cache)
        rest = self._forward([*self._prompt[1:], *self._text], cache)
        self._same(place, rest[PROMPT - 1 :], alone, exact=False)

    def _compare_tree(self, place: Place, cache: KVCache, alone: Tensor) -> Tensor:
        """The first branch, then kept and continued. Returns the logits of the second."""
        self._doing = "a tree of two branches"
        first, second = _BRANCHES
        tokens = [(self._text, self._other)[branch][depth] for branch, depth in _TREE]
        depths = torch.tensor([depth for _, depth in _TREE])
        visible = torch.tensor([[d == 0 or (b == branch and d <= depth) for b, d in _TREE] for branch, depth in _TREE])
        logits = self.model.forward_tree(tokens, cache, base=place.base, visible=visible, depths=depths)
        self._check_lengths(cache, place.base + len(tokens))
        self._same(place, logits[first], alone[: len(first)])
        self._doing = "a kept branch of a tree, continued"
        cache.keep_rows(place.base, first)
        cache.settle()
        self._check_lengths(cache, place.base + len(first))
        if rest := self._text[len(first) : len(alone)]:
            self._same(place, self._forward(rest, cache), alone[len(first) :])
        return logits[second]

    def _compare_rollback(self, place: Place, cache: KVCache) -> None:
        """As far back as layers with a window can go that have forgotten what lies before it."""
        back = min(SLACK, cache.max_rollback, place.held - 1)
        self._doing = f"a roll-back of {back} tokens"
        cache.rollback(back)
        fresh = self._cache(place, back=back)
        self._same(place, self._forward(self._text, cache), self._forward(self._text, fresh))

    def _compare_company(self, place: Place, far: Known) -> None:
        """Texts that run in one pass, one of them at the start. Models that cannot do that are served all the same."""
        near = self._start = far if place is START else self._start or far
        text, wide = self._text[: len(far.alone)], self._other if place is START else ()
        near = Known(near.cache, near.alone[: len(text)])
        self.unshared = why_unshared(self.model, near, far, place.name, text, wide, self._differs)

    def _differs(self, found: Tensor, expected: Tensor) -> str:
        """In what, if logits do: for passes that are not needed to serve a model."""
        if not logit_difference(found, expected) <= self._tolerance:
            return "other logits"
        return "other bits" if self._compares_bits and not torch.equal(found, expected) else ""

    # ---- steps --------------------------------------------------------------------------------------------------

    def _cache(self, place: Place, *, back: int = 0) -> KVCache:
        """A cache at ``place``, or ``back`` tokens before it."""
        if self._prompted is None:
            self._doing = "a prompt"
            self._prompted = self.model.new_cache(slack=SLACK)
            self.model.prefill(self._prompt, self._prompted)
            self._check_lengths(self._prompted, PROMPT)
        cache = copy.deepcopy(self._prompted)
        if place.base != PROMPT:
            cache.stand_at(place.base - back, place.held - back, loud=place.loud)
        return cache

    def _forward(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        before = cache.length
        logits = self.model.forward(tokens, cache)
        self._check_lengths(cache, before + len(tokens))
        return logits

    def _check_lengths(self, cache: KVCache, expected: int) -> None:
        if cache.lengths != {expected}:
            held = " and ".join(f"{length:,}" for length in sorted(cache.lengths)) or "no"
            raise UnsupportedModelError(f"the KV cache holds {held} tokens where {expected:,} went in")

    def _same(self, place: Place, found: Tensor, expected: Tensor, *, exact: bool = True) -> None:
        """Note a fault if they are not: ``exact`` to the bit where steps promise that."""
        difference = logit_difference(found, expected)
        if not difference <= self._tolerance:
            self.faults.append(
                f"{self._doing} {place.name} gives other logits than the same tokens one by one "
                f"(they differ by {difference:.2g} of their spread; up to {self._tolerance:g} is rounding)"
            )
        elif exact and self._compares_bits and not torch.equal(found, expected):
            self.row_dependence = self.row_dependence or (
                f"{self._doing} {place.name} gives other bits than the same tokens one by one"
            )
