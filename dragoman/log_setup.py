"""The log of a command that serves: lines for people, or JSON for machines; and the audit log in a file of its own."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from dragoman.options import LogFormat
from speculation.errors import InputError
from transport.audit import LOGGER
from transport.roles import caller

log = logging.getLogger(__name__)

#: Of one file of the audit log, and how many full ones are kept beside it.
AUDIT_BYTES: Final = 10 << 20
AUDIT_FILES: Final = 9


def set_up_logging(verbose: bool, *, log_format: LogFormat = LogFormat.TEXT, audit_log: Path | None = None) -> None:
    """Warnings, or with ``verbose`` what happens, on standard error; audit events to ``audit_log``, a rotating file.

    Raises InputError if that cannot be written.
    """
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else plain)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    if audit_log is not None:
        try:
            logging.getLogger(LOGGER).addHandler(AuditFile(audit_log))
        except OSError as error:
            remedy = "name a file in a folder that this user may write to"
            raise InputError(
                "audit-log", str(audit_log), f"cannot be written: {error.strerror}", remedy=remedy
            ) from error


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class JsonLines(logging.Formatter):
    """Time, level, logger and message; the session and the caller where the record has them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        found: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if session := getattr(record, "session", None):
            found["session"] = session
        if (identity := caller()) is not None:
            found["identity"] = str(identity)
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


class AuditFile(RotatingFileHandler):
    """JSON lines. A full disk stops no service: it is said once, and again after writing has worked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=AUDIT_BYTES, backupCount=AUDIT_FILES, encoding="utf-8")
        self.setFormatter(_AuditLines())
        self._failing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the event, in a new file if this one is full."""
        failing, self._failing = self._failing, False
        super().emit(record)
        if self._failing and not failing:
            log.error("the audit log %s cannot be written: events are lost", self.baseFilename)

    def handleError(self, record: logging.LogRecord) -> None:
        """By itself it would print a traceback for each event."""
        self._failing = True


class _AuditLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, "facts", {})
        return json.dumps({"time": _time(record), "event": record.getMessage()} | facts, default=str)
