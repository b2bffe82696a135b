"""The pages that KV memory is divided into, who holds them, and which hold the beginning of a text that others share.

Integers only: the tensors are the model runner's.
"""

from __future__ import annotations

from collections import OrderedDict

from speculation.errors import LimitExceededError
from speculation.plural import count_of

#: Page 0 is nobody's: rows of a step that no session has write there, and nothing is ever read from it.
SCRATCH = 0


class PagePool:
    """``pages`` pages in all, the scratch page included.

    A page that is full and will not change may be named after what it holds: then others that need the same hold it
    too. Named pages that nobody holds keep what is in them until the room is needed, the one that was left longest ago
    first. Invariant: every page but the scratch page is empty, or left with a name, or held so and so many times.
    """

    def __init__(self, pages: int) -> None:
        if pages < 2:
            raise ValueError(f"{pages} pages leave none to hold beside the scratch page")
        self.pages = pages
        self._empty = list(range(pages - 1, SCRATCH, -1))
        self._holders: dict[int, int] = {}
        self._left: OrderedDict[int, None] = OrderedDict()
        self._named: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}

    @property
    def free_pages(self) -> int:
        """Those that nobody holds."""
        return len(self._empty) + len(self._left)

    @property
    def held_pages(self) -> int:
        """Those that somebody holds."""
        return len(self._holders)

    def allocate(self, count: int) -> list[int]:
        """Raises LimitExceededError if so many are not free; nothing is held then."""
        if count > self.free_pages:
            needed = count_of(count, "page is needed", "pages are needed")
            raise LimitExceededError(
                f"the KV cache has no room: {needed}, {self.free_pages} of {self.pages - 1} are free",
                remedy="try again when other sessions have ended, or ask for fewer tokens",
            )
        while len(self._empty) < count:
            page, _ = self._left.popitem(last=False)
            self._forget(page)
            self._empty.append(page)
        taken = self._empty[len(self._empty) - count :][::-1]
        del self._empty[len(self._empty) - count :]
        self._holders |= dict.fromkeys(taken, 1)
        return taken

    def free(self, pages: list[int]) -> None:
        """No longer held by one that held them. The last of a text is given up before what it follows."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                del self._holders[page]
                if page in self._names:
                    self._left[page] = None
                else:
                    self._empty.append(page)

    def name(self, page: int, name: bytes) -> None:
        """A page that is held is full, and will not change. The first of a name stands."""
        if name not in self._named:
            self._named[name] = page
            self._names[page] = name

    def share(self, name: bytes) -> int | None:
        """The page of that name, held once more; None if there is none."""
        page = self._named.get(name)
        if page is not None:
            self._left.pop(page, None)
            self._holders[page] = self._holders.get(page, 0) + 1
        return page

    def _forget(self, page: int) -> None:
        del self._named[self._names.pop(page)]
