"""`dragoman edge status`: how the service is, its certificate, and its last words, on one screen."""

from __future__ import annotations

import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dragoman.certificates.inspection import inspect
from dragoman.edge.layout import Layout, installed_layout
from dragoman.edge.systemd import last_words, manager_version, properties
from speculation.errors import InputError

_PROPERTIES = (
    "ActiveState",
    "SubState",
    "StateChangeTimestamp",
    "UnitFileState",
    "NRestarts",
    "MemoryCurrent",
    "ExecMainStatus",
    "Result",
)
_STYLES = {"active": "green", "failed": "bold red"}
_LINES = 8


def run_status(name: str | None) -> bool:
    """Whether it runs. Raises InputError for a drafter that is not installed, DragomanError if there is no systemd."""
    manager_version()
    layout = installed_layout(Path("/"), name)
    found = properties(layout.unit, *_PROPERTIES)
    console = Console()
    console.print(service_lines(layout, found), soft_wrap=True)
    console.print(certificate_line(layout), soft_wrap=True, end="")
    words = last_words(layout.unit, _LINES)
    console.print(Text("\nlast words", style="bold"))
    console.print(Text(words or "none yet"), soft_wrap=True)
    return found.get("ActiveState") == "active"


def service_lines(layout: Layout, found: dict[str, str]) -> Text:
    """``found``: properties of its unit, as systemctl shows them."""
    state = found.get("ActiveState", "unknown")
    lines = Text(f"{layout.unit}: ").append(state, style=_STYLES.get(state, "yellow"))
    lines.append(f" ({found.get('SubState', '')})")
    if since := found.get("StateChangeTimestamp"):
        lines.append(f" since {since}")
    result = found.get("Result", "success")
    if state != "active" and result != "success":
        ended = f"exit code {found.get('ExecMainStatus', 'unknown')}" if result == "exit-code" else result
        lines.append(f"\n  it ended: {ended}")
    memory = found.get("MemoryCurrent", "")
    facts = [f"restarts {found.get('NRestarts', '0')}"]
    facts += [f"memory {int(memory) / 1e6:,.0f} MB"] if memory.isdecimal() and int(memory) < 1 << 62 else []
    facts.append("starts with the machine" if found.get("UnitFileState") == "enabled" else "does not start by itself")
    lines.append(f"\n  {', '.join(facts)}")
    return lines.append(f"\n  settings: {layout.environment_file}")


def certificate_line(layout: Layout) -> Text:
    """Whose it is and until when; nothing where it has none."""
    path = layout.below(layout.folder / "cert.pem")
    try:
        shown = inspect(path, None) if path.exists() else None
    except InputError as error:
        return Text(f"  certificate: {error.problem}\n", style="bold red")
    if shown is None:
        return Text("")
    over = shown.left <= datetime.timedelta()
    left = "expired" if over else f"{shown.left.total_seconds() / 86_400:.1f} d left"
    line = Text(f"  certificate: {shown.identity}, until {shown.ends:%Y-%m-%d %H:%M} UTC (")
    return line.append(left, style="bold red" if over else "").append(")\n")
