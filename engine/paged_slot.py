"""A session's place in the paged engine: its pages, and how long what they hold is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from engine.attention_items import ROOT
from engine.model_runner import StepShape
from engine.prefix_names import prefix_names
from engine.step_tables import PAGE, SequenceRows
from speculation.drafts.candidates import CandidateTree
from speculation.errors import LimitExceededError
from speculation.verification.step import Step

if TYPE_CHECKING:
    from engine.paged_engine import PagedEngine


class PagedSlot:
    """Begins without anything prefilled, with pages for ``positions``. Raises LimitExceededError if there are none.

    ``written``: the text that was written after the prompt in another slot, by steps. ``salt``: see ``prefix_names``.
    """

    def __init__(
        self,
        engine: PagedEngine,
        prompt_ids: Sequence[int],
        positions: int = 0,
        *,
        written: Sequence[int] = (),
        salt: str = "",
    ) -> None:
        self._engine = engine
        self._slot = engine.take_slot()
        self._pages: list[int] = []
        self._length = 0
        #: Of its prompt, those that were not run.
        self.shared_positions = 0
        self._prompt = len(prompt_ids) - 1  # positions of it that prefill runs
        self._tokens = (*prompt_ids, *written)[:-1]  # all that it runs
        self._names = prefix_names(self._tokens[: self._prompt], salt) if engine.shares_prefixes else []
        engine.queried_positions += self._prompt if engine.shares_prefixes else 0
        try:
            self.share()
            self._reach(positions)
        except BaseException:
            self.close()
            raise

    @property
    def prefill_left(self) -> int:
        """Tokens of the prompt, and of what was written, that are still to be run before a step."""
        return len(self._tokens) - self._length

    @property
    def prefill_shape(self) -> StepShape:
        """Of the pass in which the next of them is to be run: what was written in steps is run in steps again."""
        return self._engine.prefill_shape if self._length < self._prompt else self._engine.step_shape

    @property
    def coming_page(self) -> bytes | None:
        """What others will share of a chunk that is run now, if anything; named by its first page."""
        page = self._length // PAGE
        return self._names[page] if self._length % PAGE == 0 and page < len(self._names) else None

    def chunk(self, rows: int) -> list[SequenceRows]:
        """As many of them as one pass can take, ``rows`` at most, with room for their keys; ``prefilled`` once they
        were run. Raises LimitExceededError if KV memory has none.

        Which rows a token is run with follows from its place alone, wherever a chunk begins.
        """
        end = self._prompt if self._length < self._prompt else len(self._tokens)
        return self._tiles(self._tokens[self._length : min(end, self._length + rows)])

    def prefilled(self, tokens: int) -> None:
        """So many were run."""
        before = self._length
        self._length += tokens
        for page in range(before // PAGE, min(self._length // PAGE, len(self._names))):
            self._engine.pool.name(self._pages[page], self._names[page])

    def step(self, last: int, candidates: CandidateTree) -> Tensor:
        """Run ``last`` after what the pages hold, and each candidate after its ancestors: logits [1 + n, V] float32."""
        return self._engine.step([(self, Step(last, candidates))])[0].clone()

    def rows(self, step: Step) -> SequenceRows:
        """Of a step, with room for their keys. Raises LimitExceededError if KV memory has none."""
        tokens = (step.last, *step.candidates.tokens)
        self.hold(len(tokens))
        return self._sequence(self._length, tokens, (ROOT, *(parent + 1 for parent in step.candidates.parents)))

    @property
    def length(self) -> int:
        """Positions that it holds."""
        return self._length

    def append(self, tokens: Sequence[int]) -> int:
        """Run the first of these tokens for their keys and values only; how many."""
        engine = self._engine
        many = len(tokens) > engine.step_shape.tables.rows
        shape = engine.prefill_shape if many else engine.shape_for(len(tokens))
        chunk = tokens[: shape.tables.rows]
        shape.run(self._tiles(chunk))
        self._length += len(chunk)
        return len(chunk)

    def line(self, tokens: Sequence[int]) -> SequenceRows:
        """Rows of tokens after what it holds, with room for their keys; ``added`` once they were run.

        Raises LimitExceededError if KV memory has none.
        """
        self.hold(len(tokens))
        return self._sequence(self._length, tokens, range(ROOT, len(tokens) - 1))

    def branches(self, base: int, tokens: Sequence[int], above: Sequence[Sequence[int]]) -> SequenceRows:
        """The same of a tree's tokens, each after those rows beyond ``base`` that stand ``above`` it, in order."""
        self.hold(len(tokens))
        held = self._length - base
        return self._sequence(base, tokens, [ROOT] * len(tokens), held=held, above=above)

    def added(self, rows: SequenceRows) -> None:
        """Those of ``line`` or ``branches`` were run, and are held from now on."""
        self._length += len(rows.tokens)

    def hold(self, rows: int) -> None:
        """Have pages for the rows of the next step. Raises LimitExceededError if KV memory has no room."""
        self._reach(self._length + rows)

    def keep(self, rows: Sequence[int]) -> None:
        """Of what the last step added, keep these rows in this order."""
        self.compact(self._length, rows)

    def compact(self, base: int, rows: Sequence[int]) -> None:
        """After the first ``base`` positions keep these rows, counted from there, in this order, and no others."""
        moved = [(row, at) for at, row in enumerate(rows) if row != at]
        if moved:
            sources, targets = zip(*moved, strict=True)
            self._engine.memory.move(
                [self.place(base + row) for row in sources], [self.place(base + at) for at in targets]
            )
        self._length = base + len(rows)

    def close(self) -> None:
        """Free the pages. Idempotent."""
        if self._slot >= 0:
            self._engine.pool.free(self._pages)
            self._engine.return_slot(self._slot)
        self._pages, self._slot = [], -1

    def place(self, position: int) -> int:
        """Of a position in KV memory."""
        return self._pages[position // PAGE] * PAGE + position % PAGE

    def _reach(self, positions: int) -> None:
        missing = -(-positions // PAGE) - len(self._pages)
        if len(self._pages) + missing > self._engine.memory.page_table.shape[1]:
            raise LimitExceededError(f"a session of {positions} positions is longer than the engine was made for")
        if missing > 0:
            self._pages += self._engine.pool.allocate(missing)
            self._engine.memory.set_pages(self._slot, self._pages)

    def share(self) -> None:
        """Go on as far as others have run the same prompt: with their pages instead of own ones."""
        page, pool = self._length // PAGE, self._engine.pool
        if self._length % PAGE:
            return
        while page < len(self._names) and (shared := pool.share(self._names[page])) is not None:
            pool.free(self._pages[page : page + 1])
            self._pages[page : page + 1] = [shared]
            page += 1
        if page * PAGE > self._length:
            self._engine.memory.set_pages(self._slot, self._pages)
            found = page * PAGE - self._length
            self._engine.shared_positions += found
            self.shared_positions += found
            self._length = page * PAGE

    def _tiles(self, tokens: Sequence[int]) -> list[SequenceRows]:
        """As one chain for each tile: keys are written before any is read, so later tiles see the earlier."""
        self.hold(len(tokens))
        height = self._engine.step_shape.tables.height
        parts = [(at, tokens[at : at + height]) for at in range(0, len(tokens), height)]
        return [self._sequence(self._length + at, part, range(ROOT, len(part) - 1)) for at, part in parts]

    def _sequence(
        self,
        base: int,
        tokens: Sequence[int],
        parents: Sequence[int],
        *,
        held: int = 0,
        above: Sequence[Sequence[int]] = (),
    ) -> SequenceRows:
        return SequenceRows(
            slot=self._slot, base=base, tokens=tokens, parents=parents, pages=self._pages, held=held, above=above
        )
