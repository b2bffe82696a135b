"""Every command's options: each has help, and a mistake in any is one line that names field and value, and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dragoman.cli import app, main


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that are no groups, with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = list(commands(typer.main.get_command(app)))
OPTIONS = [
    (path, command, param)
    for path, command in COMMANDS
    for param in command.params
    if param.param_type_name == "option" and param.name != "help"
]


def written(param: Any) -> str:
    return max(param.opts, key=len)


def name_of(value: Any) -> str | None:
    if isinstance(value, tuple):
        return " ".join(value)
    return written(value) if hasattr(value, "opts") else ""


def needed(command: Any, but: Any = None) -> list[str]:
    """Values for all that the command cannot do without. ``but``: not for this one; if it is an argument, nor for those
    behind it, which would take its place."""
    words, arguments_end = [], False
    for param in command.params:
        is_argument = param.param_type_name == "argument"
        arguments_end |= is_argument and param is but
        if param.required and param is not but and not (is_argument and arguments_end):
            words += [word_for(param)] if is_argument else [f"{written(param)}=0.5"]
    return words


def word_for(param: Any) -> str:
    """One that an argument takes."""
    choices = getattr(getattr(param, "type_descriptor", None), "choices", None)
    return str(getattr(choices[0], "value", choices[0])) if choices else "x"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command line says to a mistake, which must be one of ours."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, errors = capsys.readouterr()
    assert ended.value.code == 2, errors
    assert errors.startswith("error: ") and "\n   fix: " in errors, errors
    assert len(errors.splitlines()) == 2 and "Usage" not in errors and not out
    return errors


def test_the_walk_finds_the_commands():
    assert {("generate",), ("chat",), ("models", "fetch"), ("fleet", "scale"), ("status",)} <= {p for p, _ in COMMANDS}
    assert len(OPTIONS) > 80


def test_all_cores_have_one_number_in_every_command():
    options = [(path, param) for path, _, param in OPTIONS if written(param).endswith("threads")]
    threads = {(path, written(param)): param.type_descriptor.parameter_info.min for path, param in options}
    assert {path for path, _ in threads} >= {("verifier",), ("drafter",), ("demo",), ("serve",)}
    assert set(threads.values()) == {0}


def test_everything_has_help():
    silent = [
        (" ".join(path), param.name)
        for path, command in COMMANDS
        for param in command.params
        if not param.help and not getattr(param, "hidden", False)
    ]
    assert silent == []
    assert [" ".join(path) for path, command in COMMANDS if not command.help] == []


@pytest.mark.parametrize("path, command", COMMANDS, ids=name_of)
def test_what_a_command_does_not_know(path: tuple[str, ...], command: Any, capsys):
    command_path = " ".join(("dragoman", *path))
    said = refused(capsys, *path, *needed(command), "--bogus=1")
    assert "option='--bogus': is no option of" in said and f"`{command_path} --help`" in said
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    if all(param.required and param.nargs != -1 for param in arguments):  # else it may be taken for one of them
        said = refused(capsys, *path, *needed(command), "left over")
        assert "argument='left over'" in said
    for param in command.params:
        if param.required:
            said = refused(capsys, *path, *needed(command, but=param))
            field = param.name if param.param_type_name == "argument" else written(param)[2:]
            assert said.startswith(f"error: {field}: is missing")


@pytest.mark.parametrize("path, command, param", OPTIONS, ids=name_of)
def test_a_bad_value_is_named(path: tuple[str, ...], command: Any, param: Any, capsys):
    option = written(param)
    before = [*path, *needed(command, but=param)]
    if param.is_flag:
        assert refused(capsys, *before, f"{option}=perhaps").startswith(f"error: {option[2:]}='perhaps': ")
        return
    assert refused(capsys, *before, option).startswith(f"error: {option[2:]}: has no value")
    described = param.type_descriptor
    if described.annotation in (int, float) or described.choices:
        assert refused(capsys, *before, f"{option}=lots").startswith(f"error: {option[2:]}='lots': ")
    for bound, step in ((described.parameter_info.min, -1), (described.parameter_info.max, 1)):
        if bound is not None:
            beyond = int(bound + step)
            assert refused(capsys, *before, f"{option}={beyond}").startswith(
                f"error: {option[2:]}={beyond}: must be at"
            )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["generate", "--prmpt=x"], "did you mean --prompt"),
        (["verifier", "--no-adaptve"], "did you mean --no-adaptive"),
        (["chta"], "command='chta': is no command of `dragoman`\n   fix: did you mean chat?"),
        (["fleet", "staus"], "command='staus': is no command of `dragoman fleet`\n   fix: did you mean status?"),
        (["generate", "--rule=luck"], "is not one of race, exact, rejection, string-rejection, auto"),
    ],
)
def test_near_matches_are_named(arguments: list[str], words: str, capsys):
    assert words in refused(capsys, *arguments)


def test_a_value_from_the_environment_is_traced(capsys, monkeypatch):
    monkeypatch.setenv("DRAGOMAN_GENERATE_SEED", "hot")
    said = refused(capsys, "generate", "--prompt=x")
    assert said.startswith("error: seed='hot': is no whole number") and "DRAGOMAN_GENERATE_SEED" in said


FAST = ("plan", "--target-step=25ms", "--draft-token=3ms", "--acceptance=0.6")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([*FAST, "--acceptance=70"], "acceptance=70: "),
        ([*FAST, "--acceptance=-0.25"], "acceptance=-0.25: "),
        ([*FAST, "--acceptance=nan"], "acceptance=nan: "),
        ([*FAST, "--target-step=0ms"], "target-step='0ms': "),
        ([*FAST, "--plot=plan.gif"], "plot='plan.gif': "),
        ([*FAST, "--plot={dir}/absent/plan.png"], "plot='{dir}/absent/plan.png': cannot be written"),
        (["generate", "--prompt=x", "--top-p=70"], "top_p=70: "),
        (["generate", "--prompt=x", "--stop="], "stop='': "),
        (["generate", "--prompt-file={dir}/absent"], "prompt-file='{dir}/absent': "),
        (["coordinator", "--config={dir}/absent"], "config='{dir}/absent': "),
        (["drafter", "--model=lookup", "--threads=-1"], "threads=-1: "),
        (["demo", "--target-threads=-1"], "target-threads=-1: "),
    ],
)
def test_values_are_shown_as_they_were_written(arguments: list[str], words: str, capsys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    said = refused(capsys, *(argument.format(dir="here") for argument in arguments))
    assert said.startswith("error: " + words.format(dir="here"))


@pytest.mark.parametrize("group", [(), ("models",), ("fleet",)], ids=name_of)
def test_a_group_alone_shows_its_help(group: tuple[str, ...], capsys):
    with pytest.raises(SystemExit) as ended:
        main(group)
    assert ended.value.code == 2
    assert "Commands:" in capsys.readouterr().err


def test_help_and_version_end_well(capsys):
    for arguments in (["--help"], ["generate", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
    assert "--prompt-file" in capsys.readouterr().out
