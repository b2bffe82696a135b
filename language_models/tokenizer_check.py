"""What is wrong with a model's tokenizer, and what follows from it.

A target is refused where its promise would be broken: where the text shown would not be what its tokens say, where a
user's words could become a special token, and where a prompt or an end needs tokens that the model does not have. Of
all else it is said what it costs. A drafter can break nothing, so it is refused only where it could draft for nobody.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speculation.errors import UnsupportedModelError

if TYPE_CHECKING:
    from language_models.tokenizer import TextTokenizer

log = logging.getLogger(__name__)

SELF_TEST = (
    "Hello, world!",
    " leading space",
    "  two  spaces  ",
    "\tif x:\n\t\treturn {'a': [1, 2]}  # tab\n",
    "line\r\nline\n\n\nline",
    "nul \x00 byte",
    "emoji 🐶👩‍👩‍👧 and 猫が座った",
    "combining e\u0301 and a\u030a",
    "a" + " " * 70 + "b" + "\n" * 9,
    "<|im_end|> </s> <bos> is text",
)
#: Ids that a message names one by one.
_NAMED = 3


class Role(enum.Enum):
    TARGET = "target"
    DRAFTER = "drafter"


@dataclass(frozen=True, slots=True)
class Finding:
    """``refused``: the roles that the model cannot have. ``cost``: what it means for a role that it can have.

    ``kind``: many of one kind are told as one.
    """

    kind: str
    problem: str
    refused: frozenset[Role] = frozenset()
    cost: str = ""


_TARGET = frozenset({Role.TARGET})


def findings(tokenizer: TextTokenizer) -> list[Finding]:
    """Empty if the tokenizer is exact and fits its model."""
    return [*_ids_beyond(tokenizer), *_parsed_names(tokenizer), *_changed_texts(tokenizer)]


def judge(found: Iterable[Finding], role: Role) -> tuple[list[str], list[str]]:
    """(why the model cannot have this role, what it costs if it has), those of one kind in one."""
    kinds: dict[str, list[Finding]] = {}
    for finding in found:
        kinds.setdefault(finding.kind, []).append(finding)
    refusals, costs = [], []
    for [first, *others] in kinds.values():
        problem = f"{first.problem}, and {len(others)} more of the kind" if others else first.problem
        if role in first.refused:
            refusals.append(problem)
        else:
            costs.append(f"{problem}: {first.cost}" if first.cost else problem)
    return refusals, costs


def check_tokenizer(tokenizer: TextTokenizer, role: Role, model: str) -> None:
    """Log what is found, as warnings. Raises UnsupportedModelError if the model cannot have this role."""
    refusals, costs = judge(findings(tokenizer), role)
    if refusals:
        raise UnsupportedModelError(
            f"{model} cannot be a {role.value}: {'; '.join(refusals)}",
            remedy="`dragoman doctor` tells more",
        )
    for cost in costs:
        log.warning("the tokenizer of %s: %s", model, cost)


def _ids_beyond(tokenizer: TextTokenizer) -> Iterator[Finding]:
    """Tokens that are needed and that the model, which has fewer than its tokenizer, does not have."""
    if bos := _beyond(tokenizer, tokenizer.bos_ids()):
        yield Finding("begin", f"every prompt begins with {bos}", frozenset(Role))
    if template := _beyond(tokenizer, tokenizer.template_ids()):
        yield Finding("template", f"its chat template needs {template}", _TARGET)
    if end := _beyond(tokenizer, tokenizer.end_ids[:1]):
        yield Finding(kind="end", problem=f"its texts end with {end}", refused=_TARGET, cost="it drafts no end")
    if text := _beyond(tokenizer, tokenizer.text_beyond):
        yield Finding("text", f"text may need {text}", cost="prompts that do are refused")


def _beyond(tokenizer: TextTokenizer, ids: Iterable[int]) -> str:
    size = tokenizer.vocab.size
    beyond = sorted(token for token in ids if token >= size)
    if not beyond:
        return ""
    known = tokenizer.text_beyond | tokenizer.added
    names = [f"{token} {known.get(token, '')}".strip() for token in beyond[:_NAMED]]
    more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
    noun = "token" if len(beyond) == 1 else "tokens"
    return f"{noun} {', '.join(names)}{more}, and the model has {size:,} tokens only"


def _parsed_names(tokenizer: TextTokenizer) -> Iterator[Finding]:
    """Names that must stay text, and do not."""
    names = {token: name for token, name in tokenizer.added.items() if name in tokenizer.names}
    for token, name in names.items():
        text = f"a{name}b"
        drafted = tokenizer.vocab.is_special(token) and token in tokenizer.encode(text)
        if drafted or token in tokenizer.literal_prompt(text):
            yield Finding(
                kind="name",
                problem=f"text that spells {name} becomes token {token}",
                refused=_TARGET,
                cost="drafts of it are lost",
            )


def _changed_texts(tokenizer: TextTokenizer) -> Iterator[Finding]:
    """Texts that do not come back from tokens byte for byte."""
    for text in SELF_TEST:
        ids = tokenizer.encode(text)
        came, decoded = tokenizer.vocab.text(ids), tokenizer.decode(ids)
        # A decoder may take the space at a text's beginning, and no byte else.
        if came.lstrip(b" ") != decoded.encode().lstrip(b" "):
            problem = f"the tokens of {text!r} are {came!r} by their spelling and {decoded!r} by the decoder"
            yield Finding(kind="bytes", problem=problem, refused=_TARGET, cost="its drafts are lost")
        elif came != text.encode():
            yield Finding("change", f"{text!r} comes back as {came!r}", cost="drafts of such text are lost")
