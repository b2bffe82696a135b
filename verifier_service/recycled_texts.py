"""Whose texts may learn from whose: what is recycled is kept for each client by itself.

What the target nearly said in one text is tried in others, and a client sees how soon its text goes on. So nothing of
one client's texts is tried in another's.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from typing import Final

from speculation.drafts.recycled_tokens import RecycledTokens
from transport.identity import Identity

#: Clients, and salts of them, whose tokens are kept. Some 20 MB each, once they have written much.
TABLES: Final = 16
#: Contexts of a text by itself.
OF_A_TEXT: Final = 1 << 13


class Recycle(enum.StrEnum):
    """What a text may draft from, of what the target nearly said."""

    #: In all texts of the same client; without certificates and tokens all are one.
    CLIENT = "client"
    #: In the same text.
    TEXT = "text"
    #: Nothing.
    NONE = "none"


class RecycledTexts:
    """Of a verifier. ``fills``: whether they may fill a step beyond the plan, as far as that costs nothing."""

    def __init__(self, recycle: Recycle = Recycle.CLIENT, *, fills: bool = True) -> None:
        self.fills = fills
        self._recycle = recycle
        self._clients: OrderedDict[tuple[Identity | None, str], RecycledTokens] = OrderedDict()  # who came last, last

    def of(self, client: Identity | None, salt: str = "") -> RecycledTokens | None:
        """For a text of a client, None where nobody is asked who he is, that shares with those of its ``salt`` only.

        None if nothing is recycled.
        """
        match self._recycle:
            case Recycle.NONE:
                return None
            case Recycle.TEXT:
                return RecycledTokens(contexts=OF_A_TEXT)
        tokens = self._clients.pop((client, salt), None)
        if tokens is None:
            tokens = RecycledTokens()
        self._clients[client, salt] = tokens
        if len(self._clients) > TABLES:
            self._forget()
        return tokens

    def _forget(self) -> None:
        """What came longest ago, of the client that has the most."""
        [(most, _)] = Counter(client for client, _ in self._clients).most_common(1)
        del self._clients[next(key for key in self._clients if key[0] == most)]
