"""Names of the pages that hold the beginning of a prompt, so that prompts which begin alike share them.

A name is a digest of all the tokens up to the end of the page and of how each of them was run: a matrix product gives a
row other bits in a pass of another number of rows, and a text must not depend on who was here before. Cryptographic,
or somebody could make two prompts whose pages have one name.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from engine.step_tables import PAGE

_DIGEST_BYTES = 16


def prefix_names(tokens: Sequence[int], rows: Sequence[int]) -> list[bytes]:
    """Of every full page of ``tokens``. ``rows``: of the pass in which each page is run, at least as many as pages."""
    names: list[bytes] = []
    name = b""
    for page in range(len(tokens) // PAGE):
        held = array("q", (rows[page], *tokens[page * PAGE : (page + 1) * PAGE]))
        name = hashlib.blake2b(name + held.tobytes(), digest_size=_DIGEST_BYTES).digest()
        names.append(name)
    return names
