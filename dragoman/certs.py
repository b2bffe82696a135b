"""`dragoman certs`: what its commands do, and what they say."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dragoman.certificates.folder import Folder, Written, read_certificate
from dragoman.certificates.inspection import Shown, Verdict, inspect
from dragoman.certificates.request import read_request
from speculation.errors import InputError
from speculation.plural import count_of
from transport.durations import parse_duration
from transport.identity import Identity, Role

#: Every server's: a tunnel ends there.
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_STYLES = {Verdict.VALID: "green", Verdict.ENDS_SOON: "yellow"}
#: Columns that a table needs.
_TABLE_WIDTH: Final = 72
_LONGEST: Final = datetime.timedelta(days=36_500)


def run_init(directory: Path, name: str, lifetime: str) -> None:
    """Raises InputError."""
    if not name.strip() or len(name) > 64:
        raise InputError("name", name, "is no name for an authority", remedy="64 characters at most")
    folder = Folder(directory)
    made = folder.create_authority(name, _lifetime(lifetime))
    files = folder.authority_files
    _say(f"{files.certificate}, valid until {_day(made.certificate.not_valid_after_utc)}: give it to every machine")
    _say(f"{files.key}: stays here; who has it can be anybody")


def run_issue(directory: Path, role: Role, name: str, *, hosts: Sequence[str], lifetime: str) -> None:
    """Raises InputError."""
    identity = Identity(role, name)
    given = _hosts(identity, hosts)
    files = Folder(directory).issue(identity, given, _lifetime(lifetime))
    _say_issued(files, identity)
    if given:
        _say(f"for {', '.join(given)}")


def run_sign(
    directory: Path, path: Path, role: Role | None, name: str | None, *, hosts: Sequence[str], lifetime: str
) -> None:
    """Without a role only a drafter's request is signed: who signs has to say that he means any other. Without a name
    no new key of a known holder is: nor of one that was revoked.

    Raises InputError.
    """
    request = read_request(path)
    found = request.identity
    if (role or Role.DRAFTER) is not found.role or name not in (None, found.name):
        remedy = f"if it shall be signed: `dragoman certs issue {found.role} {found.name} --request {path}`"
        raise InputError("request", str(path), f"asks for a certificate of {found}", remedy=remedy)
    given = _hosts(found, hosts)
    files = Folder(directory).sign(request, given, _lifetime(lifetime), named=name is not None)
    ends = read_certificate(files.certificate).not_valid_after_utc
    _say(f"{files.certificate}: {found}, valid until {_day(ends)}; its key is where the request was made")
    _say(f"give it to that machine, with {Folder(directory).authority_files.certificate}")


def run_renew(directory: Path, certificates: Sequence[Path], lifetime: str | None) -> None:
    """Raises InputError."""
    folder = Folder(directory)
    authority = folder.authority_files.certificate
    chosen = list(certificates) or [path for path in folder.certificates() if path != authority]
    if not chosen:
        raise InputError(
            "dir", str(directory), "holds no certificate to renew", remedy="`dragoman certs issue` makes one"
        )
    wanted = None if lifetime is None else _lifetime(lifetime)
    for path in chosen:
        files = folder.renew(path, wanted)
        shown = inspect(files.certificate, read_certificate(authority))
        assert shown.identity is not None
        _say_issued(files, shown.identity)


def run_revoke(directory: Path, role: Role, name: str) -> None:
    """Raises InputError."""
    folder = Folder(directory)
    holder = Identity(role, name)
    revoked = folder.revoke(holder)
    _say(f"{folder.revoked_file}: certificates of {holder} that were issued until {_second(revoked.until)} are revoked")
    _say("give the file to every server, with --tls-revoked; running streams of the holder end within seconds")


def _hosts(identity: Identity, given: Sequence[str]) -> list[str]:
    """At which a server with the certificate is dialled. Raises InputError."""
    role = identity.role
    if given and not role.serves:
        raise InputError("host", given[0], f"is of no use to a {role}, which nobody dials", remedy="leave it out")
    named = [_host(host) for host in given] or [socket.gethostname()]
    return list(dict.fromkeys([*named, *LOOPBACK])) if role.serves else []


def _second(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _say_issued(files: Written, identity: Identity) -> None:
    ends = read_certificate(files.certificate).not_valid_after_utc
    key = "" if files.request.exists() else f" and {files.key.name}"
    _say(f"{files.certificate}{key}: {identity}, valid until {_day(ends)}")


def _say(words: str) -> None:
    Console().print(Text(words), soft_wrap=True)


def run_show(directory: Path, certificates: Sequence[Path], ca: Path | None, *, as_json: bool) -> bool:
    """Whether all of them would be taken. Raises InputError."""
    folder = Folder(directory)
    chosen = list(certificates) or folder.certificates()
    if not chosen:
        remedy = "`dragoman certs init` makes an authority; or name files"
        raise InputError("dir", str(directory), "holds no certificates", remedy=remedy)
    trusted = ca or folder.authority_files.certificate
    if ca is None and not trusted.exists():  # beside the files that were named, as on a machine that was given them
        trusted = chosen[0].with_name(trusted.name)
    authority = read_certificate(trusted) if ca is not None or trusted.exists() else None
    found = [inspect(path, authority, revoked=folder.revocations()) for path in chosen]
    if as_json:
        print(json.dumps([shown.to_json() for shown in found]))
    else:
        console, notes = Console(), Console(stderr=True)
        console.print(certificate_table(found) if console.width >= _TABLE_WIDTH else certificate_lines(found))
        if authority is None:
            notes.print(f"there is no {trusted} to check them with: give it with --ca", highlight=False, soft_wrap=True)
        soon = [shown for shown in found if shown.verdict in (Verdict.ENDS_SOON, Verdict.EXPIRED)]
        if soon:
            words = (
                f"renew {count_of(len(soon), 'certificate')} with `dragoman certs renew`, where the authority's key is"
            )
            notes.print(words, highlight=False, soft_wrap=True)
    return all(shown.verdict.usable for shown in found)


def certificate_table(found: Sequence[Shown]) -> Table:
    """One line each; only the hosts are folded."""
    table = Table(box=None, pad_edge=False)
    for heading in ("role", "name", "until (UTC)", "left", "state"):
        table.add_column(heading, no_wrap=heading != "name", overflow="fold")
    table.add_column("hosts", overflow="fold", ratio=1)
    for shown in found:
        table.add_row(
            shown.role,
            _name(shown),
            f"{shown.ends:%Y-%m-%d %H:%M}",
            _left(shown.left),
            _state(shown),
            " ".join(shown.hosts),
        )
    return table


def certificate_lines(found: Sequence[Shown]) -> Text:
    """Likewise, one below the other, for a narrow terminal."""
    lines = []
    for shown in found:
        head = Text(f"{shown.role} {_name(shown)}: ").append(_state(shown))
        left = f" ({_left(shown.left)} left)" if shown.left.total_seconds() > 0 else ""
        lines += [head, Text(f"  until {_day(shown.ends)}{left}")]
        lines += [Text(f"  {host}") for host in shown.hosts]
    return Text("\n").join(lines)


def _name(shown: Shown) -> str:
    return shown.identity.name if shown.identity else shown.file.name


def _state(shown: Shown) -> Text:
    return Text(shown.verdict.value, style=_STYLES.get(shown.verdict, "bold red"))


def _left(left: datetime.timedelta) -> str:
    seconds = left.total_seconds()
    if seconds <= 0:
        return "-"
    return f"{seconds / 86_400:.0f} d" if seconds >= 2 * 86_400 else f"{seconds / 3600:.1f} h"


def _day(ends: datetime.datetime) -> str:
    return f"{ends:%Y-%m-%d %H:%M} UTC"


def _lifetime(written: str) -> datetime.timedelta:
    seconds = parse_duration("for", written)
    if not 1 <= seconds <= _LONGEST.total_seconds():
        raise InputError("for", written, "is no life for a certificate", remedy="1s at least, 36500d at most: 7d, 12h")
    return datetime.timedelta(seconds=seconds)


def _host(host: str) -> str:
    """A name or an IP address. Raises InputError."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if _HOST.fullmatch(host) and len(host) <= 253:
            return host.lower()
    remedy = "give a name or an IP address, without a port: gpu-box.example, 192.0.2.7"
    raise InputError("host", host, "is no host", remedy=remedy)
