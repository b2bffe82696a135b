"""The body of /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import SkipValidation

from gateway.requests import Object, TextBody

#: What the log-probabilities are called in ``include``.
_LOGPROBS: Final = "message.output_text.logprobs"


class ResponsesBody(TextBody):
    """Of /v1/responses. Nothing is kept here, so a conversation is sent whole each time. ``text``: what the answer is
    held to."""

    input: Annotated[Any, SkipValidation] = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    include: Annotated[Any, SkipValidation] = None
    text: Object = None

    #: What asks for log-probabilities.
    logprobs_field: ClassVar[str] = f"include: [{_LOGPROBS}]"

    @property
    def wants_logprobs(self) -> bool:
        """Whether those of the tokens are asked for."""
        return isinstance(self.include, list) and _LOGPROBS in self.include
