"""Links on the machine that `dragoman edge` writes for: those into what its service does not see, and, below --root,
those that lead out of the image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import run_here

LOOKUP = ("--model=lookup", "--verifier=127.0.0.1:1")
PROGRAM = "--program=/opt/dragoman/bin/dragoman"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image with a program in a home, and one in /opt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "root/etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    for place in ("home/pi/venv", "opt/dragoman"):
        program = tmp_path / "root" / place / "bin/dragoman"
        program.parent.mkdir(parents=True)
        program.write_bytes(b"GGUF")
        program.chmod(0o755)
    (tmp_path / "root/home/pi/a.gguf").write_bytes(b"GGUF")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("link", "target", "option"),
    [
        (None, "", "--program=/opt/../home/pi/venv/bin/dragoman"),
        ("opt/venv", "/home/pi/venv", "--program=/opt/venv/bin/dragoman"),
        ("opt/venv", "../home/pi/venv", "--program=/opt/venv/bin/dragoman"),
        ("home/pi/back", "/opt/dragoman", "--program=/home/pi/back/bin/dragoman"),
        ("opt/a.gguf", "/home/pi/a.gguf", "--model=/opt/a.gguf"),
        ("opt/models", "../home/pi", "--model=/opt/models/a.gguf"),
        (None, "", "--model=/opt/dragoman/../../home/pi/a.gguf"),
    ],
)
def test_what_leads_into_a_home_is_hidden(root: Path, capsys, link: str | None, target: str, option: str):
    if link is not None:
        (root / link).symlink_to(target)
    options = (option, *LOOKUP) if "program" in option else (PROGRAM, option, LOOKUP[1])
    field = "program" if "program" in option else "model"
    code, out, errors = run_here(capsys, "edge", "install", *options, f"--root={root}")
    assert (code, out) == (2, "") and f"{field}='/home/pi/" in errors and "is hidden from the service" in errors
    code, _, errors = run_here(capsys, "edge", "install", *options, "--bind-paths", f"--root={root}")
    unit = (root / "etc/systemd/system/dragoman-drafter.service").read_text()
    assert code == 0 and "BindReadOnlyPaths=/home/pi/" in unit, errors


def test_a_link_in_a_circle(root: Path, capsys):
    (root / "opt/a").symlink_to("b")
    (root / "opt/b").symlink_to("/opt/a")
    code, _, errors = run_here(capsys, "edge", "install", "--program=/opt/a", *LOOKUP, f"--root={root}")
    assert code == 2 and "is a link that leads to itself" in errors


@pytest.mark.parametrize(
    "place", ["etc/dragoman", "etc/systemd/system/multi-user.target.wants", "var/lib/private", "var/cache/private"]
)
def test_no_link_leads_out_of_the_root(root: Path, tmp_path: Path, capsys, place: str):
    """Neither an installation nor a removal touches what is on the machine where the image is made."""
    install = ("edge", "install", PROGRAM, *LOOKUP, f"--root={root}")
    assert run_here(capsys, *install)[0] == 0
    host = tmp_path / "host"
    (host / "dragoman-drafter").mkdir(parents=True)
    (host / "dragoman-drafter/precious").write_text("of the host")
    if (root / place).exists():
        (root / place).rename(root / "moved")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).symlink_to(host)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        install,
        ("edge", "uninstall", f"--root={root}"),
        ("edge", "uninstall", "--purge", f"--root={root}"),
    ):
        code, out, errors = run_here(capsys, *arguments)
        assert (code, out) == (2, "") and "is left by a link" in errors and "fix: " in errors
        assert sorted(tmp_path.rglob("*")) == before
