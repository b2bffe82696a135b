"""Who came, what they asked for and what was refused: for those who must be able to tell later.

Events go to the logger ``dragoman.audit``, which has no handler of its own and passes nothing on. They name sessions,
people and reasons, never a prompt, a text or a draft.
"""

from __future__ import annotations

import logging
from typing import Final

LOGGER: Final = "dragoman.audit"

_log = logging.getLogger(LOGGER)
_log.propagate = False
_log.setLevel(logging.INFO)
_log.addHandler(logging.NullHandler())


def audit(event: str, *, by: object = None, **facts: object) -> None:
    """``event``: what happened, in a word or two. ``by``: whose call it was, None if nobody was asked who he is."""
    who = {} if by is None else {"by": str(by)}
    _log.info(event, extra={"facts": who | {name: fact for name, fact in facts.items() if fact is not None}})
