"""What one request asks for, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.tools import ToolUse
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.status import ServedModel


@dataclass(frozen=True, slots=True)
class Order:
    """``requests``: one for each text, ``choices_each`` for a prompt, in the order of the answer's choices.

    ``echoes``: what each text is shown after: its prompt, or nothing. ``tools``: that its texts may call.
    """

    model: ServedModel
    requests: list[GenerationRequest]
    choices_each: int
    echoes: list[str]
    stream: bool = False
    include_usage: bool = False
    include_speculation: bool = False
    tools: ToolUse = field(default_factory=ToolUse)

    @property
    def predicted(self) -> bool:
        """Whether the client gave a draft of its own."""
        return any(request.prediction for request in self.requests)
