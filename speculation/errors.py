"""Every exception of the project, in one tree.

    DragomanError                     exit 1   anything of ours; shown as one line of cause and one of remedy
    |- InputError                     exit 2   a field the user gave is wrong
    |  '- UnsupportedFieldError       exit 2   a field asks for what is not there yet
    |- ModelError                     exit 3   a model cannot be used
    |  |- UnknownModelError           exit 3   no such hub id, folder, file or embedded name
    |  |- WeightsError                exit 3   weights missing, corrupt, or of another digest
    |  |- ModelTooLargeError          exit 3   more than the memory that is free
    |  '- UnsupportedModelError       exit 3   loads, but cannot be served (no tokenizer, recurrent state, ...)
    |- ConnectionFailedError          exit 4   the other side cannot be reached, or the port is taken
    |  |- LoadingError                exit 4   the other side is there, but its model is still being loaded
    |  '- NoVerifierError             exit 4   the fleet has no verifier that would do
    |- ProtocolError                  exit 5   the other side broke the protocol
    |  |- VersionMismatchError        exit 5   it speaks another protocol version
    |  |- WrongServiceError           exit 5   what listens there is something else
    |  '- LimitExceededError          exit 5   it sent more than the limits allow
    |     '- QuotaExceededError       exit 5   of one caller, more than one may have at a time
    |- SessionError                   exit 6   the session ended without its text
    |  |- DrainingError               exit 6   the verifier takes no sessions any more: resume elsewhere
    |  '- DivergedError               exit 6   a resumed text is not the one that was begun
    '- AccessError                    exit 7   TLS, a certificate or its role keeps the two sides apart

``exit_code`` is what the command line returns; the gRPC status that each kind travels as stands in
``transport/status.py``, so that both ends agree.
"""

from __future__ import annotations

import enum
import os
import re
from typing import Any, Final

#: Characters of a value that a message shows, at most.
_SHOWN: Final = 80


class DragomanError(Exception):
    """Base of the tree: ``message`` says what is wrong, ``remedy`` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes: whatever the constructor of the kind takes.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[DragomanError], args: tuple[object, ...], state: dict[str, object]) -> DragomanError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InputError(DragomanError):
    """A value that a person or a request gave cannot be used; names the field and the value.

    ``value`` None: there is none, and only the field is named.
    """

    field: str
    value: object
    problem: str  # without the two

    exit_code = 2

    def __init__(self, field: str, value: object, problem: str, *, remedy: str = "") -> None:
        shown = field if value is None else f"{field}={_shorten(_as_written(value))}"
        super().__init__(f"{shown}: {problem}", remedy=remedy)
        self.field = field
        self.value = value
        self.problem = problem

    @classmethod
    def relayed(cls, message: str) -> InputError:
        """The error that another process raised, from its text."""
        error = cls.__new__(cls)
        DragomanError.__init__(error, message)
        error.field, error.value = re.split("[=:]", message, maxsplit=1)[0], None
        error.problem = message
        return error


class UnsupportedFieldError(InputError):
    """A field asks for something that others have and this side has not, or not yet."""


def _as_written(value: object) -> str:
    """The value as a person writes it, not as Python does: no Path(...), no (70.0,), no b'...'."""
    match value:
        case os.PathLike():
            return repr(os.fspath(value))
        case enum.Enum():
            return _as_written(value.value)
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case bytes():
            return repr(value.decode(errors="backslashreplace"))
        case tuple() | list():
            # Of a long one the ends are shown, and every part has a character and its comma.
            ends = value if len(value) <= _SHOWN else (*value[: _SHOWN // 2], *value[-_SHOWN // 2 :])
            parts = [_as_written(part) for part in ends]
            return parts[0] if isinstance(value, tuple) and len(parts) == 1 else f"[{', '.join(parts)}]"
        case _:
            return repr(value)


def _shorten(text: str) -> str:
    """Without its middle: a path's last name says most."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2 - 3]}...{text[-(_SHOWN // 2) :]}"


class ModelError(DragomanError):
    """A model cannot be used."""

    exit_code = 3


class UnknownModelError(ModelError):
    """No model of that name, folder or file."""


class WeightsError(ModelError):
    """Weights are missing, corrupt, or not the ones that were promised (sha256)."""


class ModelTooLargeError(ModelError):
    """The weights need more memory than is free."""


class UnsupportedModelError(ModelError):
    """The model loads but cannot serve here (no byte-exact vocabulary, no rollback, ...)."""


class ConnectionFailedError(DragomanError):
    """The other side cannot be reached, or an address cannot be bound."""

    exit_code = 4


class LoadingError(ConnectionFailedError):
    """The other side is there and will serve: its model is still being loaded."""


class NoVerifierError(ConnectionFailedError):
    """No verifier of the fleet serves that model, as far as the coordinator knows."""


class ProtocolError(DragomanError):
    """The other side sent something the protocol does not allow."""

    exit_code = 5


class VersionMismatchError(ProtocolError):
    """The other side speaks another protocol version."""


class WrongServiceError(ProtocolError):
    """What listens at the address is something else than was looked for."""


class LimitExceededError(ProtocolError):
    """The other side sent more than this side's limits allow."""


class QuotaExceededError(LimitExceededError):
    """One caller has all that one caller may have at a time; others find room."""


class SessionError(DragomanError):
    """A session ended without giving its text."""

    exit_code = 6


class DrainingError(SessionError):
    """The verifier takes no more sessions, or hands over those that it has; another can resume the text."""


class DivergedError(SessionError):
    """The bytes that a client received do not begin the text that this target writes: it cannot be resumed here."""


class AccessError(DragomanError):
    """The two sides do not come together: one speaks TLS and the other not, a certificate is not trusted, has expired
    or names another host, or its role may not do what was asked."""

    exit_code = 7
