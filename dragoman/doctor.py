"""`dragoman doctor`: will this target and this drafter work together, and how well?

Looks at tokenizers, configurations and whether the files of weights are whole; no weights are loaded.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from drafter_service.draft_prompts import template_notes
from drafter_service.loading import LOOKUP_MODEL
from dragoman.loading import show_licence
from dragoman.terminal import progress_bar
from language_models.config import ModelConfig
from language_models.pretrained import check_files
from language_models.tokenizer import TextTokenizer
from language_models.tokenizer_check import Finding, Role, findings, judge
from language_models.weights import ModelFiles, resolve
from speculation.errors import WeightsError
from speculation.text.byte_vocab import intersection

#: Of the drafter's tokens: with less in common, drafts are often cut differently from the target's own tokens.
GOOD_SHARE = 0.5


class PairVerdict(enum.Enum):
    GOOD = "good pair"
    WORKS = "works, but"
    CANNOT = "cannot work"


@dataclass(frozen=True, slots=True)
class Examined:
    """One model's tokenizer and configuration. ``damage``: why its files of weights cannot be read; "" if they can."""

    name: str
    config: ModelConfig
    tokenizer: TextTokenizer
    findings: list[Finding]
    damage: str = ""

    @classmethod
    def of(cls, model: str, *, trust_remote_code: bool = False) -> Examined:
        """Raises ModelError."""
        show_licence(model)
        with progress_bar() as progress:
            files = resolve(model, trust_remote_code=trust_remote_code, progress=progress)
        config = ModelConfig.read(files)
        tokenizer = TextTokenizer.from_pretrained(files, config.vocab_size)
        return cls(files.name, config, tokenizer, findings(tokenizer), _damage(files))


@dataclass(slots=True)
class Diagnosis:
    """What was found. ``common``: tokens of equal bytes; None without a drafter vocabulary."""

    target: Examined
    drafter: Examined | None
    common: int | None = None
    cannot: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> PairVerdict:
        return PairVerdict.CANNOT if self.cannot else PairVerdict.WORKS if self.remarks else PairVerdict.GOOD


def diagnose(target_name: str, drafter_name: str, *, trust_remote_code: bool = False) -> Diagnosis:
    """Examine both. ``trust_remote_code``: run Python code that they bring. Raises ModelError if one cannot be examined
    at all."""
    target = Examined.of(target_name, trust_remote_code=trust_remote_code)
    drafter = None
    if drafter_name != LOOKUP_MODEL:
        drafter = Examined.of(drafter_name, trust_remote_code=trust_remote_code)
    found = Diagnosis(target, drafter)
    if not target.tokenizer.vocab.end_ids:
        found.remarks.append("the target has no end token: texts run to max_tokens")
    _judge(target, Role.TARGET, found)
    for role, examined in ((Role.TARGET, target), (Role.DRAFTER, drafter)):
        if examined is not None:
            _look_at(examined, role, found)
    if not target.tokenizer.has_chat_template:
        found.remarks.append("the target has no chat template: messages become a plain transcript")
    if drafter is not None:
        _compare(target, drafter, found)
    return found


def _look_at(examined: Examined, role: Role, found: Diagnosis) -> None:
    """What is the same for both of them."""
    config, name = examined.config, role.value
    if config.cannot_roll_back:
        found.cannot.append(f"the {name} has {config.cannot_roll_back} layers, which cannot be rolled back")
    if config.cannot_write:
        found.cannot.append(f"the {name} is {config.cannot_write}")
    if config.cannot_pass and not (config.cannot_roll_back or config.cannot_write):
        found.cannot.append(f"the {name} {config.cannot_pass}")
    if examined.damage:
        found.cannot.append(f"of the {name}, {examined.damage}")
    if config.context_remark:
        found.remarks.append(f"of the {name}, {config.context_remark}")


def _damage(files: ModelFiles) -> str:
    folder = Path(files.source)
    if not (files.local and any(folder.glob("*.safetensors*"))):  # its weights may not have been downloaded yet
        return ""
    try:
        check_files(files.name, folder)
    except WeightsError as error:
        return error.message
    return ""


def _judge(examined: Examined, role: Role, found: Diagnosis) -> None:
    refusals, costs = judge(examined.findings, role)
    found.cannot += [f"the {role.value}'s tokenizer: {refusal}" for refusal in refusals]
    found.remarks += [f"the {role.value}'s tokenizer: {cost}" for cost in costs]


def _compare(target: Examined, drafter: Examined, found: Diagnosis) -> None:
    _judge(drafter, Role.DRAFTER, found)
    found.remarks += template_notes(drafter.tokenizer)
    vocab = drafter.tokenizer.vocab
    found.common = len(intersection(target.tokenizer.vocab, vocab))
    texts = sum(1 for data in vocab.token_bytes if data)
    if found.common == 0:
        found.cannot.append("the vocabularies have not one token in common")
    elif found.common < GOOD_SHARE * texts:
        found.remarks.append(f"only {found.common / texts:.0%} of the drafter's tokens are also the target's")
    if target.tokenizer.has_chat_template and not drafter.tokenizer.has_chat_template:
        found.remarks.append("the drafter has no chat template: for messages it drafts less well")
    if drafter.config.context_length < target.config.context_length:
        found.remarks.append(
            f"the drafter's context ends at {drafter.config.context_length} tokens: longer texts go on without drafts"
        )


def show(found: Diagnosis, console: Console) -> None:
    """A table side by side, the remarks, the verdict."""
    table = Table(show_header=True, title="Target and drafter", title_justify="left")
    table.add_column("")
    table.add_column(f"target\n{found.target.name}", overflow="fold")
    table.add_column(f"drafter\n{found.drafter.name if found.drafter else LOOKUP_MODEL}", overflow="fold")
    rows = [_column(found.target), _column(found.drafter) if found.drafter else ["-"] * len(_LABELS)]
    for label, *cells in zip(_LABELS, *rows, strict=True):
        table.add_row(label, *cells)
    if found.common is not None and found.drafter is not None:
        table.add_section()
        table.add_row(
            "tokens of equal bytes",
            _share(found.common, found.target.tokenizer),
            _share(found.common, found.drafter.tokenizer),
        )
    console.print(table)
    whole_lines = not console.is_terminal
    for examined in (found.target, found.drafter):
        for line in _details(examined) if examined else ():
            console.print(Text(line), soft_wrap=whole_lines)
    colour = {PairVerdict.GOOD: "green", PairVerdict.WORKS: "yellow", PairVerdict.CANNOT: "red"}[found.verdict]
    words = found.cannot or found.remarks
    colon = ":" if found.cannot or len(words) > 1 else ""
    ending = "".join(f"\n- {word}" for word in words) if len(words) > 1 else f" {words[0]}" if words else ""
    console.print(Text.assemble((found.verdict.value, f"bold {colour}"), colon, ending), soft_wrap=whole_lines)
    if not found.cannot:
        proof = "No weights were loaded: `dragoman models check MODEL` proves that a model itself can be served."
        console.print(Text(proof, "dim"), soft_wrap=whole_lines)


def _details(examined: Examined) -> list[str]:
    """What the remarks do not name: of several findings of a kind they give one."""
    kinds = Counter(finding.kind for finding in examined.findings)
    several = [finding.problem for finding in examined.findings if kinds[finding.kind] > 1]
    more = [f"and {len(several) - _SHOWN} more"] if len(several) > _SHOWN else []
    return [f"  {examined.name}: {problem}" for problem in [*several[:_SHOWN], *more]]


_SHOWN = 12
_LABELS = ("vocabulary", "kind of model", "context", "tokenizer self-test", "chat template", "end tokens")


def _column(examined: Examined) -> list[str]:
    vocab = examined.tokenizer.vocab
    return [
        f"{vocab.size:,} ids, {len(vocab.special):,} special, {len(vocab.padding_ids):,} padding",
        examined.config.model_type,
        f"{examined.config.context_length:,} tokens",
        "passed" if not examined.findings else "see below",
        "yes" if examined.tokenizer.has_chat_template else "no",
        " ".join(vocab.special[token] for token in vocab.end_ids) or "none",
    ]


def _share(common: int, tokenizer: TextTokenizer) -> str:
    texts = sum(1 for data in tokenizer.vocab.token_bytes if data)
    return f"{common:,} ({common / texts:.0%})"
