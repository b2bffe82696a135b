"""`dragoman edge install`: the files, then what systemd is told, then what a person has to do."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from dragoman.edge.asked import Asked
from dragoman.edge.credentials import REQUEST
from dragoman.edge.files import PRIVATE, File, check_replaced, check_writable, link, write
from dragoman.edge.layout import Layout
from dragoman.edge.plan import Plan, plan_of
from dragoman.edge.systemd import manager_version, systemctl
from speculation.errors import DragomanError
from transport.identity import Identity


def run_install(asked: Asked, *, force: bool, dry_run: bool, start: bool) -> None:
    """Raises InputError and ModelError for what a drafter would refuse, DragomanError if there is no systemd or the
    files cannot be written; then nothing is written."""
    if dry_run:
        show(plan_of(asked, _version_or_none(asked)))
        return
    plan = plan_of(asked, None if asked.root is not None else manager_version())
    check_writable(plan.layout)
    if not force:
        check_replaced(plan.layout, plan.files)
    for file in plan.files:
        _say_written(plan.layout, file.path, file.mode, changed=write(plan.layout, file))
    if plan.credentials.holder is not None:
        _say_what_comes_next(plan, plan.credentials.holder)
    if plan.credentials.missing:
        return
    if asked.root is None:
        _start(plan, start=start)
    else:
        layout = plan.layout
        _say_written(layout, layout.at_boot, None, changed=link(layout, layout.at_boot, layout.unit_file))


def show(plan: Plan) -> None:
    """All files, but for what is in those that are secret."""
    for file in plan.files:
        _say(f"# {file.path}  (mode {file.mode:04o})", style="bold")
        _say(_shown(file))
    if not plan.credentials.missing:
        _say(f"# {plan.layout.at_boot} -> {plan.layout.unit_file}", style="bold")


def _shown(file: File) -> str:
    return "(a secret, not shown)\n" if file.mode == PRIVATE else file.content.decode(errors="replace")


def _version_or_none(asked: Asked) -> int | None:
    try:
        return None if asked.root is not None else manager_version()
    except DragomanError:  # files can be looked at anywhere
        return None


def _start(plan: Plan, *, start: bool) -> None:
    unit = plan.layout.unit
    systemctl("daemon-reload")
    systemctl("enable", unit)
    if not start:
        _say(f"{unit} starts with the machine; now: systemctl start {unit}")
        return
    systemctl("restart", unit)  # which starts one that does not run
    _say(f"{unit} is started, and starts with the machine")
    _say("how it is: dragoman edge status; its words: dragoman edge logs -f")


def _say_what_comes_next(plan: Plan, holder: Identity) -> None:
    folder, credentials = plan.layout.below(plan.layout.folder), plan.credentials
    if credentials.missing:
        again = " (the one that is there is another key's)" if credentials.rekeyed else ""
        _say(f"{plan.layout.unit} is not started yet: {' and '.join(credentials.missing)} of {folder} to come{again}")
    else:
        _say("its certificate is of this key; for a new one:")
    named = f"{holder.role} {holder.name} " if credentials.rekeyed else ""
    _say(f"1. take {folder / REQUEST} to the authority's machine; the key stays here")
    _say(f"2. there: dragoman certs issue {named}--request {REQUEST}")
    _say("3. bring the certificate that it writes, and ca.pem")
    _say("4. here, the same command again, with --tls-ca and --tls-cert for those two instead of --request")


def _say_written(layout: Layout, path: Path, mode: int | None, *, changed: bool) -> None:
    words = "wrote" if changed else "as it was"
    _say(f"{words:9} {layout.entry(path)}" + (f"  (mode {mode:04o})" if mode == PRIVATE else ""))


def _say(words: str, style: str = "") -> None:
    Console().print(Text(words, style=style), soft_wrap=True)
