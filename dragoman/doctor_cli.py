"""`dragoman doctor`: will a target and a drafter work together, and does one get through to a service?"""

from __future__ import annotations

from typing import Annotated

import typer

from dragoman.options import MODEL_HELP, TrustRemoteCode
from dragoman.security_options import secured
from speculation.errors import InputError
from transport.security import Security


@secured
def doctor(
    target: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    drafter: Annotated[str | None, typer.Option(help=f"{MODEL_HELP}, or lookup")] = None,
    connect: Annotated[
        str | None, typer.Option(help="Instead: go step by step to the service at this address", metavar="ADDRESS")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    security: Security,
) -> None:
    """Will this target and this drafter work together? Exit code 3 if not. Or, with --connect: what is in the way?"""
    from rich.console import Console

    if connect is not None:
        from dragoman.connection_check import run_connect
        from transport.address import Address

        if target is not None or drafter is not None or trust_remote_code:
            remedy = "ask one question at a time: --connect, or --target and --drafter"
            raise InputError("connect", connect, "comes with a target, a drafter or their code", remedy=remedy)
        run_connect(Address.parse(connect, field="connect"), security, Console())
        return
    if target is None or drafter is None:
        missing = "target" if target is None else "drafter"
        remedy = "give --target and --drafter, or --connect; see `dragoman doctor --help`"
        raise InputError(missing, None, "is missing", remedy=remedy)
    from drafter_service.loading import LOOKUP_MODEL
    from language_models.weights import check_name

    check_name(target)
    if drafter != LOOKUP_MODEL:
        check_name(drafter)
    from dragoman.doctor import PairVerdict, diagnose, show

    found = diagnose(target, drafter, trust_remote_code=trust_remote_code)
    show(found, Console())
    if found.verdict is PairVerdict.CANNOT:
        raise typer.Exit(3)
