"""`dragoman tokens`: what its commands do. The file is replaced as a whole, so that servers never read half of it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from speculation.errors import InputError
from speculation.plural import count_of
from transport.identity import Identity, Role
from transport.tokens import Token, new_token, read_tokens

_HEAD = "# Bearer tokens: name, role, digest. `dragoman tokens` writes it.\n"


def run_add(path: Path, role: Role, name: str, to: Path | None) -> None:
    """Raises InputError."""
    holder = Identity(role, name)
    there = read_tokens(path) if path.exists() else []
    if any(token.holder == holder for token in there):
        remedy = "`dragoman tokens remove` takes it out first"
        raise InputError("name", name, f"has a token as a {role} already", remedy=remedy)
    secret, token = new_token(holder)
    if to is not None:
        _write_secret(to, secret)
    _write(path, [*there, token])
    if to is None:
        print(secret)
    kept = "above, and nowhere else" if to is None else f"in {to}"
    Console(stderr=True).print(Text(f"{holder} is in {path}; the token is {kept}"), soft_wrap=True)


def run_remove(path: Path, name: str) -> None:
    """Raises InputError."""
    there = read_tokens(path)
    left = [token for token in there if token.holder.name != name]
    if len(left) == len(there):
        names = ", ".join(sorted({token.holder.name for token in there})) or "nobody has any"
        raise InputError("name", name, "has no token", remedy=f"one of: {names}")
    _write(path, left)
    words = f"{name} is out: {count_of(len(there) - len(left), 'token')} taken from {path}"
    Console().print(Text(words), soft_wrap=True)


def run_list(path: Path, *, as_json: bool) -> None:
    """Raises InputError."""
    holders = [token.holder for token in read_tokens(path)]
    if as_json:
        print(json.dumps([{"name": holder.name, "role": holder.role} for holder in holders]))
        return
    table = Table("name", "role", box=None, pad_edge=False)
    for holder in holders:
        table.add_row(holder.name, holder.role)
    Console().print(table)


def _write(path: Path, tokens: Sequence[Token]) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_new(part, _HEAD + "".join(f"{token.line}\n" for token in tokens))
        part.replace(path)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise InputError("tokens", str(path), problem, remedy="give another --tokens") from error


def _write_secret(path: Path, secret: str) -> None:
    try:
        _write_new(path, f"{secret}\n")
    except OSError as error:
        raise InputError("to", str(path), f"cannot be written: {error.strerror}", remedy="give another --to") from error


def _write_new(path: Path, text: str) -> None:
    """For its owner alone. Raises FileExistsError, OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
