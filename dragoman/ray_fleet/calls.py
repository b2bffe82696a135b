"""Calls of an actor's methods, and what it means when one fails.

Ray repeats no call by itself (max_task_retries is 0: a call may have been carried out although its answer was lost).
Here only calls are repeated that may be carried out twice, and only while the actor may come back.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from speculation.errors import DragomanError

#: Seconds between two questions to an actor that is away.
_PAUSE: Final = 0.5


class Outcome(enum.Enum):
    """``AWAY``: it may come back, being restarted or cut off. ``GONE``: it is dead and stays so. ``SILENT``: no answer
    in time; it may be busy, or not placed yet."""

    ANSWERED = "answered"
    AWAY = "away"
    GONE = "gone"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Answer:
    """``value``: what it answered; ``why``: of any other outcome."""

    outcome: Outcome
    value: Any = None
    why: str = ""


def ask(ray: ModuleType, call: Callable[[], Any], seconds: float) -> Answer:
    """One call, waited for. ``call`` makes it and returns its reference. Raises the DragomanError of the method."""
    errors = ray.exceptions
    try:
        return Answer(Outcome.ANSWERED, ray.get(call(), timeout=seconds))
    except errors.GetTimeoutError:
        return Answer(Outcome.SILENT, why=f"no answer within {seconds:g} s")
    except errors.ActorUnavailableError as error:
        return Answer(Outcome.AWAY, why=_first_line(error))
    except (errors.ActorDiedError, errors.ActorUnschedulableError, errors.RuntimeEnvSetupError) as error:
        return Answer(Outcome.GONE, why=_first_line(error))
    except errors.RayTaskError as error:
        if isinstance(error.cause, DragomanError):
            raise error.cause from None
        raise DragomanError(f"an actor failed: {error.cause!r}") from error


def ask_until(ray: ModuleType, call: Callable[[], Any], until: float) -> Answer:
    """The same for what may be carried out twice: again while the actor is away, till ``until`` (time.monotonic)."""
    while True:
        answer = ask(ray, call, max(until - time.monotonic(), 0.0))
        if answer.outcome is not Outcome.AWAY or time.monotonic() + _PAUSE >= until:
            return answer
        time.sleep(_PAUSE)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
