"""The engine on Hugging Face transformers: any decoder-only causal language model that ``CausalLM`` loads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from language_models.causal_lm import CausalLM
from language_models.kv_cache import KVCache
from language_models.shared_pass import TextRows
from language_models.tokenizer_check import Role, check_tokenizer
from speculation.drafts.candidates import CandidateTree
from speculation.errors import UnsupportedModelError
from speculation.protocol.messages import SpeculationPlan
from speculation.verification.step import Step
from verifier_service.engine import OneByOne, WholePrompt
from verifier_service.settings import check_target_dtype

log = logging.getLogger(__name__)


class TransformersSlot(WholePrompt):
    """A ``CausalLM`` with a KV cache of its own."""

    def __init__(self, model: CausalLM, prompt_ids: Sequence[int]) -> None:
        self.model = model
        self._held: KVCache | None = model.new_cache()
        self._base = 0  # tokens in the cache before the last step
        if len(prompt_ids) > 1:
            model.prefill(prompt_ids[:-1], self.cache)

    def step(self, last: int, candidates: CandidateTree) -> Tensor:
        cache = self.cache
        self._base = cache.length
        tokens = [last, *candidates.tokens]
        if candidates.is_chain:
            return self.model.forward(tokens, cache)
        rows = self.rows(Step(last, candidates))
        return self.model.forward_tree(tokens, cache, base=self._base, visible=rows.visible, depths=rows.depths)

    def rows(self, step: Step) -> TextRows:
        """Of a step that begins now."""
        cache = self.cache
        self._base = cache.length
        parents = [1 + parent for parent in step.candidates.parents]
        return TextRows(cache, [step.last, *step.candidates.tokens], parents)

    def keep(self, rows: Sequence[int]) -> None:
        cache = self.cache
        cache.keep_rows(self._base, rows)
        cache.settle()

    def close(self) -> None:
        self._held = None

    @property
    def cache(self) -> KVCache:
        """Its keys and values, until it is closed."""
        assert self._held is not None, "the slot is closed"
        return self._held


def check_row_invariance(model: CausalLM) -> None:
    """Raises UnsupportedModelError where bfloat16 on a CPU, which promises exact texts, does not keep its bits."""
    found = model.self_test.row_dependence
    if found and model.dtype_name == "bfloat16":
        raise UnsupportedModelError(
            f"{model.name} ({model.config.model_type}) in bfloat16 on this CPU cannot be a target, its text would "
            f"depend on the drafts: {found}",
            remedy="use --dtype float32",
        )
    if found:
        log.warning("%s in %s: near-ties may depend on the drafts: %s", model.name, model.dtype_name, found)


class TransformersEngine(OneByOne):
    """Any decoder-only causal language model that ``CausalLM`` loads. A step is one forward pass for all its sessions,
    where the self-test found that each has the logits then that it has alone, and with ``shares``; else it is for one
    session.

    Raises InputError for a model in int8, UnsupportedModelError for one whose tokenizer would spoil the text, or whose
    bits depend on what runs together.
    """

    def __init__(self, model: CausalLM, *, shares: bool = True) -> None:
        check_target_dtype(model.dtype_name)
        check_tokenizer(model.tokenizer, Role.TARGET, model.name)
        check_row_invariance(model)
        self.model = model
        self.name = model.name
        self.tokenizer = model.tokenizer
        self.vocab_size = model.vocab_size
        self.context_length = model.context_length
        self.dtype_name = model.dtype_name
        self.device_name = str(model.device)
        self.draws_all_rows = model.draws_all_rows
        self.parameter_bytes = model.parameter_bytes
        self.free_draft_tokens = model.least_rows - 1
        self._caches: WeakValueDictionary[int, KVCache] = WeakValueDictionary()
        most = SpeculationPlan.MAX_TOKENS
        self.max_draft_tokens = most if model.most_rows is None else min(most, model.most_rows - 1)
        if not shares:
            return
        if model.self_test.unshared:
            log.warning("%s is stepped one session at a time: %s", model.name, model.self_test.unshared)
        else:
            self.rows_per_step = 1 + self.max_draft_tokens

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[Tensor]:
        """One pass for all sessions. Whatever is raised, their caches are as they were."""
        if len(batch) == 1 or self.rows_per_step is None:
            return super().step(batch)
        return self.model.forward_together([slot.rows(step) for slot, step in batch])

    def open(self, prompt_ids: Sequence[int]) -> TransformersSlot:
        slot = TransformersSlot(self.model, prompt_ids)
        self._caches[id(slot.cache)] = slot.cache
        return slot

    @property
    def kv_cache_bytes(self) -> int:
        # Copied in one go: this is asked for while the engine's thread opens and closes slots.
        caches = (held() for held in self._caches.valuerefs())
        return sum(cache.nbytes for cache in caches if cache is not None)
