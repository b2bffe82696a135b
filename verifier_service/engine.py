"""What the verifier needs of a model: prefill, a step on small trees of tokens, keep what was accepted, close.

An engine is used from one thread at a time. Invariant of a slot: its KV cache holds exactly the tokens given to
``open`` and to ``step``, less those of a step that ``keep`` did not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from speculation.drafts.candidates import CandidateTree
from speculation.protocol.messages import Prompt
from speculation.protocol.tools import ToolFormat
from speculation.text.byte_vocab import ByteVocab
from speculation.verification.step import Step


class Slot(Protocol):
    """One session's place in the engine."""

    @property
    def prefill_left(self) -> int:
        """Tokens that are still to be run before a step."""
        ...

    @property
    def shared_positions(self) -> int:
        """Of its prompt: those that were not run, as another prompt had begun alike."""
        ...

    def step(self, last: int, candidates: CandidateTree) -> Tensor:
        """Run ``last`` after what the cache holds, and each candidate after ``last`` and its own ancestors.

        Logits [1 + candidates, V] float32 on the engine's device, row 0 after ``last``.
        """
        ...

    def hold(self, rows: int) -> None:
        """Have memory for the rows of the next step. Raises LimitExceededError if there is none."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Of what the last step added to the cache, keep these rows in this order."""
        ...

    def close(self) -> None:
        """Free the cache."""
        ...


class Tokenizer(Protocol):
    """The target's tokenizer."""

    @property
    def vocab(self) -> ByteVocab: ...

    @property
    def tool_format(self) -> ToolFormat | None:
        """How the model writes calls; None: its chat template has no tools."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ordinary text, special-token parsing off, nothing added."""
        ...

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """A request's prompt, raw or through the model's own chat template. Raises InputError."""
        ...


class Engine(Protocol):
    """A target model, loaded."""

    @property
    def name(self) -> str: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def dtype_name(self) -> str: ...
    @property
    def device_name(self) -> str: ...
    @property
    def parameter_bytes(self) -> int: ...
    @property
    def kv_cache_bytes(self) -> int:
        """Of keys and values that are in memory for its slots: those of closed ones too, if anything still has them."""
        ...

    @property
    def kv_pages(self) -> int:
        """That KV memory is divided into; 0: it grows as it has to."""
        ...

    @property
    def kv_pages_held(self) -> int:
        """By slots that are open."""
        ...

    @property
    def queried_positions(self) -> int:
        """Of prompts so far: those that were looked for among what other prompts began with."""
        ...

    @property
    def shared_positions(self) -> int:
        """Those of them that were not run, as another prompt had begun alike."""
        ...

    @property
    def free_draft_tokens(self) -> int:
        """So many draft tokens make a step no longer."""
        ...

    @property
    def max_draft_tokens(self) -> int:
        """A step may have so many draft tokens, or its logits would depend on their number."""
        ...

    @property
    def rows_per_step(self) -> int | None:
        """Rows that a step has for all its sessions together, each taking one more than its draft tokens; None: a step
        is for one session."""
        ...

    @property
    def draws_all_rows(self) -> bool:
        """Whether all rows of a step are best drawn at once: on a GPU, where every single draw is a wait."""
        ...

    def has_room(self, positions: int) -> bool:
        """Whether a session that may grow to so many tokens, its prompt included, could begin now."""
        ...

    def begin(self, prompt_ids: Sequence[int], positions: int, *, written: Sequence[int] = (), salt: str = "") -> Slot:
        """A slot whose prompt is still to be prefilled, all of it but its last token, which the first step takes.

        ``positions``: how far it may grow with the memory that it has from now on. ``written``: tokens after the
        prompt that were kept in a slot before; then all but the last of these are prefilled too, to the same bits.
        ``salt``: with prompts of another one it shares nothing.
        """
        ...

    def open(self, prompt_ids: Sequence[int]) -> Slot:
        """The same, prefilled."""
        ...

    @property
    def prefill_rows(self) -> int:
        """Tokens that a pass over prompts takes, of several slots together; 0: a prompt is run as its slot begins."""
        ...

    def prefill(self, slots: Sequence[Slot]) -> None:
        """Run what is left of their prompts, in their order, as far as one pass reaches: something of the first."""
        ...

    def step(self, batch: Sequence[tuple[Slot, Step]]) -> list[Tensor]:
        """Several slots at once; the logits of each as ``Slot.step`` gives them, in order, until the next step."""
        ...


class OneByOne:
    """Base of an engine whose steps are for one session."""

    rows_per_step: int | None = None
    draws_all_rows = False
    prefill_rows = 0
    queried_positions = shared_positions = 0

    @property
    def kv_pages(self) -> int:
        """Its KV caches grow as they have to."""
        return 0

    @property
    def kv_pages_held(self) -> int:
        """Nor are any held."""
        return 0

    def open(self, prompt_ids: Sequence[int]) -> Any:
        """A slot, prefilled."""
        raise NotImplementedError

    def has_room(self, positions: int) -> bool:
        """Its KV caches grow as they have to."""
        return True

    def begin(self, prompt_ids: Sequence[int], positions: int, *, written: Sequence[int] = (), salt: str = "") -> Any:
        """Prefilled at once. Nobody ever gives memory up here, so nothing was written before."""
        assert not written
        return self.open(prompt_ids)

    def prefill(self, slots: Sequence[Slot]) -> None:
        """Nothing is left."""

    def step(self, batch: Sequence[tuple[Slot, Step]]) -> list[Tensor]:
        """One after the other."""
        return [slot.step(step.last, step.candidates) for slot, step in batch]


class WholePrompt:
    """Base of a slot whose prompt is prefilled when it is opened."""

    prefill_left = shared_positions = 0

    def hold(self, rows: int) -> None:
        """Its KV cache grows as it has to."""
