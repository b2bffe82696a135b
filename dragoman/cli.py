"""The command line: options in, calls out.

Every option can be set by an environment variable, DRAGOMAN_<COMMAND>_<OPTION>.

Heavy modules are imported inside the commands, so that `dragoman --help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dragoman.commands.bench import bench
from dragoman.commands.certs import certs_app
from dragoman.commands.chat import chat
from dragoman.commands.demo import demo
from dragoman.commands.drafter import drafter
from dragoman.commands.edge import edge_app
from dragoman.commands.gateway import gateway
from dragoman.commands.generate import generate
from dragoman.commands.serve import serve
from dragoman.commands.tokens import tokens_app
from dragoman.commands.verifier import verifier
from dragoman.doctor_cli import doctor
from dragoman.fleet_cli import add_fleet_commands
from dragoman.models_cli import models_app
from dragoman.plan import plan
from dragoman.ray_cli import fleet_app
from dragoman.standard_output import standard_output
from speculation.errors import DragomanError, InputError
from transport.signals import end_as_first_process
from transport.version import VERSION

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Distributed speculative decoding across vocabularies: a small drafter guesses, a large target checks, "
    "and the text is the target's own.",
)
app.add_typer(models_app, name="models")
app.add_typer(fleet_app, name="fleet")
app.add_typer(certs_app, name="certs")
app.add_typer(tokens_app, name="tokens")
app.add_typer(edge_app, name="edge")
app.command("plan")(plan)
app.command("doctor")(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dragoman {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, allow_from_autoenv=False, help="Show the version"),
    ] = False,
) -> None:
    """Options of all commands."""


for command in (demo, serve, verifier, drafter, gateway, generate, chat, bench):
    app.command()(command)
add_fleet_commands(app)


@standard_output()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a DragomanError is one line and its exit code, never a traceback."""
    from dragoman.terminal import show_error
    from dragoman.usage_errors import as_input_error

    end_as_first_process()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        # Not standalone: typer would print its own words for what it refuses. It returns the code of an Exit.
        sys.exit(app(given, prog_name="dragoman", auto_envvar_prefix="DRAGOMAN", standalone_mode=False))
    except DragomanError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help
            print(error.format_message(), file=sys.stderr)
        else:
            show_error(as_input_error(error, given))
        sys.exit(InputError.exit_code)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
