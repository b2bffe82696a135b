"""The pages that KV memory is divided into, and who holds them. Integers only: the tensors are the model runner's."""

from __future__ import annotations

from speculation.errors import LimitExceededError

#: Page 0 is nobody's: rows of a step that no session has write there, and nothing is ever read from it.
SCRATCH = 0


class PagePool:
    """``pages`` pages in all, the scratch page included. Invariant: every other page is free or held exactly once."""

    def __init__(self, pages: int) -> None:
        if pages < 2:
            raise ValueError(f"{pages} pages leave none to hold beside the scratch page")
        self.pages = pages
        self._free = list(range(pages - 1, SCRATCH, -1))

    @property
    def free_pages(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Raises LimitExceededError if so many are not free; nothing is held then."""
        if count > len(self._free):
            raise LimitExceededError(
                f"the KV cache has no room: {count} pages are needed, {len(self._free)} of {self.pages - 1} are free",
                remedy="try again when other sessions have ended, or ask for fewer tokens",
            )
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return taken[::-1]

    def free(self, pages: list[int]) -> None:
        """Give back what ``allocate`` returned."""
        self._free.extend(reversed(pages))
