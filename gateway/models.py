"""Which models the backend serves, asked for by one at a time, and not again for a second.

A request for a model that was served a moment ago does not wait for the answer: its text would fail anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.backend import Backend
from gateway.shared_answer import SharedAnswer
from speculation.errors import DragomanError, InputError, NoVerifierError, UnknownModelError
from speculation.protocol.status import ServedModel

#: Seconds for which an answer counts.
FRESH_SECONDS: Final = 1.0
#: Seconds for which a model that was served is taken to be served still, while that is asked for anew.
_RECENT_SECONDS: Final = 30.0


class ModelDirectory:
    """Models by name. One that was served before is still known while nobody serves it: a verifier that starts anew
    comes back, and texts wait for it.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[str, ServedModel] = {}
        #: Those that are served now. Raises NoVerifierError if there are none, and what ``Backend.models`` raises.
        self.served = SharedAnswer(self._served, fresh=FRESH_SECONDS)

    async def _served(self) -> Sequence[ServedModel]:
        found = await self._backend.models()
        if not found:
            raise NoVerifierError("no verifier is there")
        self._known.update(_by_name(found))
        return found

    async def find(self, name: str | None) -> ServedModel:
        """The model of that name; None or empty: the only one that there is.

        Raises UnknownModelError, InputError if several are served and none is named, and what ``served`` raises if no
        model was ever known.
        """
        if found := _named(_by_name(self.served.latest(_RECENT_SECONDS) or ()), name):
            return found
        try:
            served = _by_name(await self.served())
        except DragomanError:
            if not self._known:
                raise
            served = self._known
        if found := _named(served, name):
            return found
        if not name:
            raise InputError("model", name, "several models are served", remedy=f"name one of {', '.join(served)}")
        if found := self._known.get(name):
            return found
        raise UnknownModelError(f"no model {name!r} is served here", remedy=f"there is {', '.join(served)}")


def _by_name(models: Sequence[ServedModel]) -> dict[str, ServedModel]:
    return {model.name: model for model in models}


def _named(served: Mapping[str, ServedModel], name: str | None) -> ServedModel | None:
    """Without a name the only one that there is."""
    if not name and len(served) == 1:
        return next(iter(served.values()))
    return served.get(name or "")
