"""`dragoman certs`: a private authority and the certificates of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.options import AsJson
from speculation.errors import InputError
from transport.identity import Role

certs_app = typer.Typer(no_args_is_help=True, help="Certificates for TLS: init, issue, renew, revoke, show.")

_DIR = Path("certs")
#: What an authority and a certificate live for, unless something else is said.
_AUTHORITY, _CERTIFICATE = "1825d", "7d"
Dir = Annotated[Path, typer.Option("--dir", help="The authority's folder", metavar="FOLDER")]


@certs_app.command()
def init(
    directory: Dir = _DIR,
    name: Annotated[str, typer.Option(help="Shown to people")] = "Dragoman authority",
    lifetime: Annotated[str, typer.Option("--for", help="How long it is valid")] = _AUTHORITY,
) -> None:
    """Make a private authority. Everybody is given ca.pem; ca.key stays here."""
    from dragoman.certs import run_init

    run_init(directory, name, lifetime)


@certs_app.command()
def issue(
    role: Annotated[Role | None, typer.Argument(help="What its holder is")] = None,
    name: Annotated[str | None, typer.Argument(help="Who its holder is, gpu-box say")] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or IP address at which a server is dialled, beside loopback; may be repeated  "
            "[default: this machine's name]"
        ),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(
            help="Sign this request, whose key stays where it was made; of a drafter without ROLE and NAME",
            metavar="FILE",
        ),
    ] = None,
    directory: Dir = _DIR,
    lifetime: Annotated[str, typer.Option("--for", help="How long it is valid")] = _CERTIFICATE,
) -> None:
    """Make a certificate and its key, or sign a request. They are ROLE-NAME.pem and ROLE-NAME.key."""
    from dragoman.certs import run_issue, run_sign

    if request is not None:
        run_sign(directory, request, role, name, hosts=host or [], lifetime=lifetime)
        return
    if role is None or name is None:
        missing = "role" if role is None else "name"
        remedy = "write `dragoman certs issue ROLE NAME`, or sign a request with --request FILE"
        raise InputError(missing, None, "is missing", remedy=remedy)
    run_issue(directory, role, name, hosts=host or [], lifetime=lifetime)


@certs_app.command()
def renew(
    certificates: Annotated[
        list[Path] | None, typer.Argument(help="Files ending in .pem  [default: all of the folder]")
    ] = None,
    directory: Dir = _DIR,
    lifetime: Annotated[str | None, typer.Option("--for", help="How long it is valid  [default: as before]")] = None,
) -> None:
    """Replace certificates by new ones. Same holders, new keys; services take them up as they run."""
    from dragoman.certs import run_renew

    run_renew(directory, certificates or [], lifetime)


@certs_app.command()
def revoke(
    role: Annotated[Role, typer.Argument(help="What the holder is")],
    name: Annotated[str, typer.Argument(help="Who the holder is")],
    directory: Dir = _DIR,
) -> None:
    """Write down that a holder's certificates are not to be taken any more. All that were issued until now; for servers
    with --tls-revoked."""
    from dragoman.certs import run_revoke

    run_revoke(directory, role, name)


@certs_app.command()
def show(
    certificates: Annotated[
        list[Path] | None, typer.Argument(help="Files ending in .pem  [default: all of the folder]")
    ] = None,
    directory: Dir = _DIR,
    ca: Annotated[
        Path | None, typer.Option(help="The authority they should be of  [default: ca.pem of the folder]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whose they are, and until when. And whether others take them: exit code 1 if one would be refused."""
    from dragoman.certs import run_show

    if not run_show(directory, certificates or [], ca, as_json=as_json):
        raise typer.Exit(1)
