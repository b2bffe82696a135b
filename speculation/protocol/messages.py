"""What drafter and target say to each other, as plain values.

The wire (``protos``) carries exactly these; the two session state machines consume and produce them, so that
they can be driven by a test channel as well as by gRPC.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from speculation.errors import InputError
from speculation.protocol.proposal import MAX_PAIRS, Proposal
from speculation.protocol.template_kwargs import parse_template_kwargs
from speculation.protocol.text_check import check_text
from speculation.protocol.tools import MAX_TOOLS, Tool, ToolCall
from speculation.sampling.params import Rule, SamplingParams
from speculation.source import DRAFTER, Source


@dataclass(frozen=True, slots=True)
class SpeculationPlan:
    """How far to speculate.

    ``width``: draft tokens per verify step, 0 = no speculation. ``lookahead``: tokens of its own that the drafter
    may run ahead of the committed text. ``stop_threshold``: the drafter rests where the product of its
    confidences falls below this. ``span_tokens``: it ships a span at least every so many tokens. ``patience``:
    seconds that the target may hold a step back for a draft on its way (see ``speculation/planning/patience.py``).
    ``alternatives``: how many further choices the drafter continues where its first is less sure than
    ``alternative_threshold``, and how many further leaves it continues in one batch. ``verify_threshold``: candidates
    that by the drafter's word are less likely than this are not verified. ``top_k``: of how many tokens the drafter
    sends the probability, under the rules that need it; 0 leaves it to the rule.
    """

    width: int = 8
    lookahead: int = 8
    stop_threshold: float = 0.3
    span_tokens: int = 4
    patience: float = 0.0
    alternatives: int = 0
    alternative_threshold: float = 0.9
    verify_threshold: float = 0.0
    top_k: int = 0

    MAX_ALTERNATIVES: ClassVar[int] = 8
    MAX_TOKENS: ClassVar[int] = 256

    def for_rule(self, rule: Rule) -> SpeculationPlan:
        """The plan as a drafter follows it under ``rule``.

        A token whose distribution is sent travels alone and at once: when it arrives must not depend on what was
        drawn (see ``verification/rejection.py``). String-rejection has no alternatives: each branch would take an
        enumeration of its own.
        """
        if not rule.proposes:
            return self
        alternatives = self.alternatives if rule is Rule.REJECTION else 0
        return dataclasses.replace(self, span_tokens=1, alternatives=alternatives)

    def __post_init__(self) -> None:
        for field in ("width", "lookahead"):
            value = getattr(self, field)
            if not 0 <= value <= self.MAX_TOKENS:
                raise InputError(field, value, f"must lie in 0..{self.MAX_TOKENS}", remedy="0 turns speculation off")
        if not 1 <= self.span_tokens <= self.MAX_TOKENS:
            raise InputError("span_tokens", self.span_tokens, f"must lie in 1..{self.MAX_TOKENS}")
        for field in ("stop_threshold", "alternative_threshold", "verify_threshold"):
            value = getattr(self, field)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise InputError(field, value, "must lie in 0..1", remedy="0 turns it off")
        if not 0 <= self.alternatives <= self.MAX_ALTERNATIVES:
            raise InputError("alternatives", self.alternatives, f"must lie in 0..{self.MAX_ALTERNATIVES}")
        if not 0 <= self.top_k <= MAX_PAIRS:
            raise InputError("top_k", self.top_k, f"must lie in 0..{MAX_PAIRS}", remedy="0 leaves it to the rule")
        if not 0 <= self.patience <= 10:
            raise InputError("patience", self.patience, "must lie in 0..10 seconds", remedy="0 never waits")


#: Who may speak in a conversation: as the chat API that most clients know has it. A template need not take them all.
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation. ``role``: one of ``ROLES``.

    ``tool_calls``: the assistant's own. ``tool_call_id``: of the call that a tool answers.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Raw ``text`` to continue, or ``messages`` (then ``text`` is None). ``tools``: that the answer may call.

    ``template_kwargs``: what the model's chat template is told beside these, a JSON object; empty: nothing.
    ``special_tokens``: names of special tokens in ``text`` are these tokens, for each model those of its own.
    """

    text: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    tools: tuple[Tool, ...] = ()
    template_kwargs: str = ""
    special_tokens: bool = False

    @property
    def uses_tools(self) -> bool:
        """Whether only somebody who knows of tools can read it."""
        return bool(self.tools) or any(turn.tool_calls or turn.tool_call_id for turn in self.messages)

    def __post_init__(self) -> None:
        if self.text is None and not self.messages:
            raise InputError("prompt", "", "is empty", remedy="give a text to continue, or messages")
        if self.text is not None and self.messages:
            raise InputError("prompt", self.text, "comes with messages as well", remedy="give one of the two")
        if self.text == "":
            raise InputError("prompt", "", "is empty", remedy="give at least one character")
        check_text("prompt", self.text or "")
        self._check_tools()
        if self.special_tokens and self.text is None:
            raise InputError("special_tokens", True, "is for a text to continue", remedy="leave it out with messages")
        if not parse_template_kwargs(self.template_kwargs):
            object.__setattr__(self, "template_kwargs", "")  # "{}" asks for nothing
        elif self.text is not None:
            raise InputError("chat_template_kwargs", None, "go with messages only", remedy="leave them out")
        for message in self.messages:
            check_text("messages.content", message.content)
            if message.role not in ROLES:
                problem = "is no role" if message.role else "is empty"
                raise InputError("messages.role", message.role, problem, remedy=f"use one of {', '.join(ROLES)}")
            check_text("messages.tool_call_id", message.tool_call_id)
            if message.tool_calls and message.role != "assistant":
                raise InputError("messages.tool_calls", message.role, "come from somebody else than the assistant")

    def _check_tools(self) -> None:
        if self.tools and self.text is not None:
            raise InputError("tools", None, "go with messages only", remedy="give messages instead of a text")
        if len(self.tools) > MAX_TOOLS:
            raise InputError("tools", f"{len(self.tools)} tools", f"are too many; the limit is {MAX_TOOLS}")
        known: set[str] = set()
        for tool in self.tools:
            if tool.name in known:
                raise InputError("tools.name", tool.name, "is the name of two tools", remedy="rename one of them")
            known.add(tool.name)


@dataclass(frozen=True, slots=True)
class SessionOffer:
    """A session that a drafter may assist, with what it needs to run the same race.

    ``number``: counts the offers of the session, so that each draws with noise of its own. ``vocab_hash``: of the
    target's vocabulary, where the rule needs it. ``traceparent``: of the request's span at the target, in W3C's form;
    nothing that is drafted depends on it.
    """

    session: str
    prompt: Prompt
    sampling: SamplingParams
    rule: Rule
    committed: bytes
    zero_width: int
    plan: SpeculationPlan
    number: int = 0
    vocab_hash: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """ "After the first ``base_offset`` generated bytes, whose digest is ``base_digest``, I guess ``text``."

    ``ends``: the drafter's end token follows. ``tokens``: its own, for statistics. ``alternative``: 0 is its
    first choice. ``rests``: nothing more comes until a verdict. ``confidence``: the drafter's chance, 0..1, that the
    target writes ``text`` if it writes what comes before. ``proposals``: the draft as target tokens with what they were
    drawn from; ``text`` then follows them. ``zero_width``: see ``Verdict``, at the span's beginning. ``source``: who
    guesses; it does not travel.
    """

    base_offset: int
    base_digest: int
    text: bytes
    ends: bool = False
    tokens: int = 0
    alternative: int = 0
    rests: bool = False
    confidence: float = 1.0
    proposals: tuple[Proposal, ...] = ()
    zero_width: int = 0
    source: Source = DRAFTER


@dataclass(frozen=True, slots=True)
class Verdict:
    """The target committed ``text`` after ``base_offset`` bytes; ``digest`` is that of all text up to its end.

    ``zero_width``: tokens committed at the end that added no bytes (part of the race's key).
    """

    base_offset: int
    text: bytes
    digest: int
    zero_width: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    plan: SpeculationPlan | None = None


@dataclass(frozen=True, slots=True)
class Resync:
    """The drafter misses text: it knows the first ``offset`` bytes and asks for the rest."""

    offset: int
