"""The environment file of a unit: a drafter's settings, as the variables that `dragoman drafter` reads them from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from speculation.errors import InputError

_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_~#-]+")
_QUOTED = re.compile(r'(["\\$`])')


def environment_file(unit: str, settings: Mapping[str, object]) -> str:
    """``settings``: values of options, by their names; None and False: left out, True: a switch that is on.

    Raises InputError for a value of several lines.
    """
    lines = [
        f"# Settings of {unit}: options of `dragoman drafter`. No secret belongs here.",
        f"# After a change: systemctl restart {unit}",
    ]
    for name, value in settings.items():
        if value is not None and value is not False:
            prefix = "DRAGOMAN_" if name == "allow_plaintext" else "DRAGOMAN_DRAFTER_"
            lines.append(f"{prefix}{name.upper()}={_written(name, '1' if value is True else str(value))}")
    return "\n".join(lines) + "\n"


def _written(name: str, value: str) -> str:
    if not value.isprintable():
        problem = "has characters that an environment file cannot hold"
        raise InputError(name.replace("_", "-"), value, problem, remedy="leave out line ends and control characters")
    if _PLAIN.fullmatch(value) and not value.startswith("#"):
        return value
    escaped = _QUOTED.sub(r"\\\1", value)
    return f'"{escaped}"'
