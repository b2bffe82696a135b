"""A drafter with a model of its own: own vocabulary, chat template, end token, BOS and KV cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from drafter_service.draft_model import DraftModel, JoinsPasses
from drafter_service.draft_prompts import template_notes
from drafter_service.draft_source import Answer, DraftSource, Expansion
from drafter_service.kept_caches import KeptCaches
from drafter_service.model_draft_source import ModelDraftSource
from drafter_service.proposing_source import ProposingSource
from drafter_service.shared_expansion import expand_together
from drafter_service.string_proposing_source import StringProposingSource
from drafter_service.target_vocabularies import TargetVocabularies
from language_models.tokenizer_check import Role, check_tokenizer
from speculation.errors import InputError
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise

log = logging.getLogger(__name__)


class ModelDrafter:
    """Drafts with any causal language model. ``vocabularies``: folder that keeps those of targets, None for none.
    ``prefix_bytes``: for keys and values of texts that ended.

    Raises UnsupportedModelError for a model that could draft for nobody.
    """

    def __init__(self, model: DraftModel, *, vocabularies: Path | None = None, prefix_bytes: int = 0) -> None:
        check_tokenizer(model.tokenizer, Role.DRAFTER, model.name)
        #: For people: what it does otherwise than its model would have it.
        self.notes = tuple(template_notes(model.tokenizer))
        for note in self.notes:
            log.warning("%s: %s", model.name, note)
        self.model = model
        self.kept = KeptCaches(model, prefix_bytes)
        self.model_name = model.name
        self.vocab_size = model.vocab_size
        self.vocab_hash = model.tokenizer.vocab.content_hash
        self.noise = RaceNoise(model.tokenizer.vocab, device=str(model.device))
        self.sessions_together = model.rows_together if isinstance(model, JoinsPasses) else 1
        self.targets = TargetVocabularies(model.tokenizer.vocab, vocabularies)

    def missing_vocabulary(self, offer: SessionOffer) -> str:
        return offer.vocab_hash if offer.rule.proposes and offer.vocab_hash not in self.targets else ""

    def learn_vocabulary(self, content_hash: str, table: bytes) -> None:
        self.targets.add_table(content_hash, table)

    def open(self, offer: SessionOffer) -> DraftSource:
        if offer.rule.proposes:
            kind = StringProposingSource if offer.rule is Rule.STRING_REJECTION else ProposingSource
            return kind(self.kept, self.noise, offer, self.targets.get(offer.vocab_hash))
        return ModelDraftSource(self.kept, self.noise, offer)

    def expand_together(self, expansions: Sequence[Expansion]) -> list[Answer]:
        return expand_together(expansions)

    def measure(self) -> float:
        prompt = Prompt(text="The quick brown fox jumps over the lazy dog.")
        offer = SessionOffer(
            session="measure",
            prompt=prompt,
            sampling=SamplingParams(),
            rule=Rule.RACE,
            committed=b"",
            zero_width=0,
            plan=SpeculationPlan(),
        )
        try:
            source = self.open(offer)
        except InputError:  # it has fewer tokens than its tokenizer, and these words need one that it has not
            return 0.0
        path: tuple[int, ...] = ()
        seconds = []
        for _ in range(1 + 8):
            started = time.perf_counter()
            [[first]] = source.expand([path], zero_width=0, choices=1)
            seconds.append(time.perf_counter() - started)
            path += (first.token,)
        source.close()
        # Not the first, which has the prompt's time. And what else goes on here, a target that loads, only adds to it.
        return min(seconds[1:])
