"""What the gateway needs of who writes the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, GenerationRequest, Started
from speculation.protocol.messages import Prompt
from speculation.protocol.status import FleetStatus, ServedModel
from speculation.protocol.tokenizing import TokenPiece


class Backend(Protocol):
    """A verifier, or a fleet of them. ``model``: the name of one that ``models`` tells.

    Every method raises DragomanError: ConnectionFailedError if nobody is there, LimitExceededError if all are full,
    InputError for what was asked.
    """

    async def models(self) -> Sequence[ServedModel]:
        """Those that are served now."""
        ...

    async def fleet(self) -> FleetStatus:
        """Who writes the texts, and who drafts for whom."""
        ...

    async def write(
        self,
        model: str,
        request: GenerationRequest,
        *,
        on_chunk: Callable[[Chunk], None],
        on_started: Callable[[Started], None],
        on_restart: Callable[[], None] | None,
    ) -> Completion:
        """The whole text, whose chunks ``on_chunk`` sees. Cancelling it ends the session at the verifier.

        ``on_started``: told when a verifier has taken the text on; once more when another goes on with it.
        ``on_restart``: told that all chunks so far are void; None: they are shown already, so that the text fails
        instead.
        """
        ...

    async def tokenize(self, model: str, prompt: Prompt) -> Sequence[int]:
        """The prompt's token ids."""
        ...

    async def detokenize(self, model: str, token_ids: Sequence[int]) -> Sequence[TokenPiece]:
        """What each token stands for."""
        ...
