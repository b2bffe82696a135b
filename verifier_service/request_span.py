"""The span of one request at the verifier: whose trace it belongs to, what was asked, how the call ended."""

from __future__ import annotations

from typing import Final

import grpc

from speculation.errors import DragomanError
from speculation.protocol.generation import GenerationRequest
from transport.gen_ai import Operation, request_attributes
from transport.status import status_of
from transport.trace_context import trace_context_of
from transport.tracing import Attributes, Span, start_span

#: Of a call that the client gave up.
CANCELLED: Final = "CANCELLED"
#: What is the server's failure and not the caller's, as OpenTelemetry's conventions for gRPC have it.
_FAILURES: Final = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)
_METHOD: Final = "dragoman.v1.VerifierService/Generate"
_CALL: Final[Attributes] = {"rpc.system.name": "grpc", "rpc.method": _METHOD}


class RequestSpan:
    """Of one call of Generate, from now until ``end``."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        parent = trace_context_of(context.invocation_metadata() or ())
        self.span: Span = start_span(_METHOD, parent=parent, attributes=_CALL)
        self._status = CANCELLED  # until it ends otherwise

    def asked(self, request: GenerationRequest, *, model: str) -> None:
        """It was read. ``model``: that writes."""
        if self.span.recording:
            operation = Operation.CHAT if request.prompt.messages else Operation.TEXT_COMPLETION
            self.span.rename(f"{operation.value} {model}")
            self.span.set(request_attributes(request, operation=operation, model=model))

    def finished(self) -> None:
        """The client has all of it."""
        self._status = grpc.StatusCode.OK.name

    def failed(self, error: BaseException) -> None:
        """Refused, or given up in mid-text. Its words may quote the request, so its class alone is told."""
        code = status_of(error)[0] if isinstance(error, DragomanError) else grpc.StatusCode.UNKNOWN
        self._status = code.name
        if code in _FAILURES:
            self.span.fail(type(error).__name__)
        else:
            self.span.set({"error.type": type(error).__name__})

    def end(self) -> None:
        """Idempotent."""
        self.span.set({"rpc.response.status_code": self._status})
        self.span.end()
