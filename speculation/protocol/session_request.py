"""A request for a text, as the target takes it: checked, in tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from speculation.errors import InputError
from speculation.sampling.params import Rule, SamplingParams

#: How the error of a prompt that is too long goes on after the prompt: whoever it travels to knows it by that. LiteLLM
#: knows it by "is longer than the model's context length", and then asks the next of a user's models.
CONTEXT_OVERFLOW: Final = "is longer than the model's context length of"
#: As verifiers of the release before have it.
EARLIER_OVERFLOW: Final = "does not fit the context of"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What the target is asked to write.

    ``max_tokens`` and ``context_length`` count tokens; ``stop`` strings are bytes of UTF-8. ``received``: bytes of
    this answer that the client was shown before (see ``speculation/drafts/replay.py``). ``tell_steps``: what each step
    tried is to be told beside its text. ``cache_salt``: see ``GenerationRequest``.
    """

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    context_length: int
    stop: tuple[bytes, ...] = ()
    rule: Rule = Rule.RACE
    ignore_end: bool = False
    received: bytes = b""
    tell_steps: bool = False
    cache_salt: str = ""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise InputError("prompt", "", "gives no tokens", remedy="give a longer prompt")
        room = self.context_length - len(self.prompt_ids)
        if room < 1:
            raise InputError(
                "prompt",
                f"{len(self.prompt_ids)} tokens",
                f"{CONTEXT_OVERFLOW} {self.context_length} tokens with room for an answer",
                remedy="shorten it",
            )
        if self.max_tokens < 1:
            raise InputError("max_tokens", self.max_tokens, "must be at least 1")
        if self.rule is Rule.AUTO:
            raise InputError("rule", self.rule.value, "must be decided before the session starts")
        if self.received and not self.rule.resumable:
            problem = f"cannot be resumed under rule {self.rule}, whose text depends on the drafts as well"
            raise InputError("received", self.received, problem, remedy="start from nothing")
