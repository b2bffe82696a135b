"""Names of the pages that hold the beginning of a prompt, so that prompts which begin alike share them.

A name is a digest of all the tokens up to the end of the page. All of them were run in passes over prompts: a matrix
product gives a row other bits in a pass of another number of rows, so pages of text that was written in steps have
none, as a text must not depend on who was here before. Cryptographic, or somebody could make two prompts whose pages
have one name.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from engine.step_tables import PAGE

_DIGEST_BYTES = 16


def prefix_names(tokens: Sequence[int], salt: str = "") -> list[bytes]:
    """Of every full page of ``tokens``; with another ``salt`` each is another."""
    names: list[bytes] = []
    # Hashed in a way of its own, or a salt could be chosen that goes on where somebody else's page ends.
    name = hashlib.blake2b(salt.encode(), digest_size=_DIGEST_BYTES, person=b"cache salt").digest() if salt else b""
    for at in range(0, len(tokens) - PAGE + 1, PAGE):
        held = array("q", tokens[at : at + PAGE])
        name = hashlib.blake2b(name + held.tobytes(), digest_size=_DIGEST_BYTES).digest()
        names.append(name)
    return names
