"""One session's drafting with a model: the text in the model's own tokens, its KV cache, and a tree beyond it.

Invariants: ``_ids`` is the model's own tokenisation of the generated text up to the root of the tree; the KV cache
holds a prefix of prompt + ``_ids`` and, once that is complete, the tree's expanded places in the order of ``_rows``.
The model and its settings are never changed by a session, and nothing of the target's vocabulary gets in here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import NamedTuple

import torch

from drafter_service.draft_model import DraftCache, JoinsPasses
from drafter_service.draft_prompts import draft_prompt_ids
from drafter_service.draft_source import Path
from drafter_service.kept_caches import KeptCaches
from language_models.continuation import Continuation, TreeRows, in_groups
from speculation.errors import SessionError
from speculation.protocol.messages import SessionOffer
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import AT_ONCE, RowsToDraw, rank_rows
from speculation.sampling.sampler import TokenSampler
from speculation.sessions.drafter_session import DraftToken
from speculation.text.retokenize import retokenize

#: Own tokens before a correction that are tokenised anew with it: unlike the target's, they are not the truth, and
#: the usual tokenisation of a text is what the model knows best.
LOOK_BACK_TOKENS = 4


class ModelDraftSource:
    """Drafts text with a language model. ``noise``: of the model's vocabulary. ``kept``: caches of texts that ended."""

    #: Whether what follows a branch is a ranking of its row of logits, which can be made for all branches at once.
    RANKS_ROWS = True

    def __init__(self, kept: KeptCaches, noise: RaceNoise, offer: SessionOffer) -> None:
        self.model = model = kept.model
        self._kept = kept
        self.noise = noise
        self._vocab = model.tokenizer.vocab
        self.padding = torch.tensor(self._vocab.padding_ids, dtype=torch.int64, device=noise.device)
        self._prompt = draft_prompt_ids(self.model.tokenizer, offer.prompt)
        if not self._prompt or len(self._prompt) >= self.model.context_length:
            raise SessionError(
                f"the prompt has {len(self._prompt)} tokens for {self.model.name}, "
                f"whose context is {self.model.context_length}"
            )
        # A bias names ids of the target's vocabulary; here the same ids are other words.
        sampling = dataclasses.replace(offer.sampling, logit_bias={})
        stream = "race" if offer.rule is Rule.RACE else "drafter"
        self._sampler = TokenSampler(sampling, self._vocab, noise, prompt_ids=self._prompt, stream=stream)
        self._ids: list[int] = []
        self._cache: DraftCache = self.model.new_cache()
        #: Expanded places of the tree, with their rows in the cache, counted from ``base`` on.
        self._rows: dict[Path, int] = {}
        self.move((), 0, offer.committed)
        if (known := kept.take(self.context_ids)) is not None:
            self._cache = known

    @property
    def context_ids(self) -> list[int]:
        """What the model stands behind, in its own tokens: the prompt, and the generated text up to the root."""
        return self._prompt + self._ids

    @property
    def cached_ids(self) -> Sequence[int]:
        """A beginning of these is what the KV cache holds before the tree."""
        return self.context_ids

    @property
    def text(self) -> bytes:
        """The generated text up to the root."""
        return self._vocab.text(self._ids)

    @property
    def cached_tokens(self) -> int:
        """How many tokens the KV cache holds: a beginning of the context, and what of the tree was run."""
        return self._cache.length

    @property
    def expanded(self) -> tuple[Path, ...]:
        """Places of the tree that were run, in the order of their rows in the cache."""
        return tuple(self._rows)

    @property
    def base(self) -> int:
        """Tokens of the text itself, before the tree, that the cache holds."""
        return self.cached_tokens - len(self._rows)

    def move(self, path: Path, keep: int, text: bytes | None) -> None:
        """Keep the cache rows of the path, and of what continues it; then cut and append text."""
        on_path = [self._rows[path[:depth]] for depth in range(1, len(path) + 1) if path[:depth] in self._rows]
        after = {
            place: row for place, row in self._rows.items() if place[: len(path)] == path and len(place) > len(path)
        }
        if len(self._rows) > 0:
            self._cache.keep_rows(self.base, [*on_path, *after.values()])
        self._rows = {place[len(path) :]: row for row, place in enumerate(after)}
        for token in path:
            self.append(token)
        if text is not None:
            self._drop_tree()
            self._correct(keep, text)

    def _drop_tree(self) -> None:
        self._cache.rollback(len(self._rows))
        self._rows.clear()

    def _correct(self, keep: int, text: bytes) -> None:
        """After the first ``keep`` generated bytes the text is ``text``, in own tokens."""
        ends = list(accumulate(len(self._vocab.bytes_of(token)) for token in self._ids))
        kept = len(list(takewhile(lambda end: end <= keep, ends)))
        start = max(0, kept - LOOK_BACK_TOKENS)
        start_offset = ends[start - 1] if start else 0
        anew = self._vocab.text(self._ids[start:])[: keep - start_offset] + text
        ids = self._tokenise(anew, start)
        while start < len(self._ids) and ids and ids[0] == self._ids[start]:
            start += 1
            ids.pop(0)
        if start == len(self._ids) and not ids:
            return
        self._truncate(start)
        for token in ids:
            self.append(token)

    def _tokenise(self, text: bytes, start: int) -> list[int]:
        """All of ``text`` in own tokens, to stand behind the first ``start`` generated ones."""
        return self._spell(text, (self._prompt + self._ids[:start])[-2 * LOOK_BACK_TOKENS :])

    def _spell(self, text: bytes, tail: Sequence[int]) -> list[int]:
        """All of ``text`` in own tokens, to stand behind those of ``tail``."""
        ids = retokenize(text, tail, self._vocab, self.model.tokenizer.encode, limit=max(1, len(text)))
        done = sum(len(self._vocab.bytes_of(token)) for token in ids)
        while done < len(text):  # an unfinished character, which retokenisation leaves waiting
            token = self._vocab.longest_match(text, done)
            if token is None:
                raise SessionError(f"{self.model.name} has no token for byte {text[done]:#04x}")
            ids.append(token)
            done += len(self._vocab.bytes_of(token))
        return ids

    @torch.inference_mode()
    def expand(self, paths: Sequence[Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        coming = self.continuation(paths)
        if coming is None:
            return [[DraftToken(b"", stops=True)] for _ in paths]
        logits = coming.run(self.model)
        self.was_run(paths)
        [answer] = choices_after([RowsRun(self, paths, zero_width=zero_width, logits=logits)], choices)
        return answer

    def continuation(self, paths: Sequence[Path]) -> Continuation | None:
        """What is to be run for the rows of ``paths``, the last of each; None where the context, or the tree, ends."""
        depth = max(len(path) for path in paths)
        at = len(self._prompt) + len(self._ids) + depth
        if at >= self.model.context_length or depth > self.model.tree_depth:
            return None
        if depth == 0:
            return self._root()
        assert self.base == len(self._prompt) + len(self._ids), "the text before the tree is in the cache"
        return self._tree(paths)

    def was_run(self, paths: Sequence[Path]) -> None:
        """The continuation of ``paths`` is in the cache now."""
        for path in paths:
            if path:
                self._rows[path] = len(self._rows)

    @property
    def joins_passes(self) -> bool:
        """Whether its rows can run beside other sessions' rows."""
        return isinstance(self.model, JoinsPasses)

    @property
    def is_ranked_by_rows(self) -> bool:
        """Whether ``ranking`` is how choices are found."""
        return self.RANKS_ROWS and self.model.draws_all_rows

    def ranking(self, paths: Sequence[Path], zero_width: int) -> RowsToDraw:
        """What ``rank_rows`` needs to know of the rows of ``paths``."""
        return self._sampler.rows_after(paths, zero_width=zero_width)

    def choices(
        self, paths: Sequence[Path], logits: torch.Tensor, zero_width: int, count: int
    ) -> list[list[DraftToken]]:
        """After each path, by its row of ``logits`` [paths, V], one after another."""
        return [self._choices(path, row, zero_width, count) for path, row in zip(paths, logits, strict=True)]

    def _choices(self, path: Path, logits: torch.Tensor, zero_width: int, count: int) -> list[DraftToken]:
        for token in path:
            self._sampler.advance(token)
        ranked = self._sampler.draw_ranked(logits, count, zero_width=None if path else zero_width)
        self._sampler.truncate(len(self._ids))
        probabilities = torch.softmax(logits, dim=-1)[ranked].tolist()
        return [self.draft_token(token, p) for token, p in zip(ranked, probabilities, strict=True)]

    def draft_token(self, token: int, probability: float) -> DraftToken:
        if token in self._vocab.end_ids:
            return DraftToken(b"", probability, ends=True)
        text = self._vocab.bytes_of(token)
        # Another special token has no text to offer, and the target will not follow.
        return DraftToken(text, probability, stops=not text, token=token)

    @torch.inference_mode()
    def log_probs(self) -> torch.Tensor:
        """The drafter's distribution of the next token at the root, log q [V]; needs a temperature above 0."""
        return self._sampler.log_probs(self._logits_at_root())

    def close(self) -> None:
        self._rows.clear()
        self._kept.put(self.cached_ids, self._cache)
        self._cache = self.model.new_cache()

    def append(self, token: int) -> None:
        """The text goes on with this one of its own tokens."""
        self._ids.append(token)
        self._sampler.advance(token)

    def _truncate(self, tokens: int) -> None:
        """Go back to having ``tokens`` generated ids; the KV cache goes back to the common prefix."""
        del self._ids[tokens:]
        self._sampler.truncate(tokens)
        self._roll_back_to(len(self._prompt) + len(self._ids))

    def _roll_back_to(self, length: int) -> None:
        surplus = self._cache.length - length
        if surplus > self._cache.max_rollback:
            self._cache.close()
            self._cache = self.model.new_cache()
        elif surplus > 0:
            self._cache.rollback(surplus)

    def _logits_at_root(self) -> torch.Tensor:
        return self._root().run(self.model)[-1]

    def _root(self) -> Continuation:
        """The text's last token, which is run anew."""
        self._drop_tree()
        context = self.context_ids
        self._roll_back_to(len(context) - 1)
        *missing, last = context[self._cache.length :]
        if missing:
            self.model.prefill(missing, self._cache)
        return Continuation(self._cache, [last])

    def _tree(self, paths: Sequence[Path]) -> Continuation:
        """The last token of each path; those before it are in the cache."""
        tokens = [path[-1] for path in paths]
        if len(paths) == 1 and len(self._rows) == len(paths[0]) - 1:
            return Continuation(self._cache, tokens)  # one branch only: the order of the cache is that of the text
        above = [[self._rows[path[:depth]] for depth in range(1, len(path))] for path in paths]
        depths = [len(place) - 1 for place in (*self._rows, *paths)]
        return Continuation(self._cache, tokens, TreeRows(self.base, above, depths))


class RowsRun(NamedTuple):
    """Logits [paths, V] after each path of a source, to be drawn from."""

    source: ModelDraftSource
    paths: Sequence[Path]
    zero_width: int
    logits: torch.Tensor


def choices_after(runs: Sequence[RowsRun], count: int) -> list[list[list[DraftToken]]]:
    """Of each source the choices after its paths, ``count`` at most; those ranked by rows, as on a GPU, together.

    Sources of one model, all ranked by rows or none.
    """
    if not all(run.source.is_ranked_by_rows for run in runs):
        return [run.source.choices(run.paths, run.logits, run.zero_width, count) for run in runs]
    # No more rows than are drawn at once, as each takes some copies of the vocabulary.
    groups = in_groups(runs, lambda run: len(run.paths), AT_ONCE)
    return [rows for group in groups for rows in _ranked(group, count)]


def _ranked(runs: Sequence[RowsRun], count: int) -> list[list[list[DraftToken]]]:
    first = runs[0].source
    wanted = [run.source.ranking(run.paths, run.zero_width) for run in runs]
    ranked = rank_rows([run.logits for run in runs], wanted, first.noise, first.padding, count)
    return [
        # Unusable logits give a row nothing to choose from.
        [[run.source.draft_token(token, p) for token, p in row] or [DraftToken(b"", stops=True)] for row in rows]
        for run, rows in zip(runs, ranked, strict=True)
    ]
