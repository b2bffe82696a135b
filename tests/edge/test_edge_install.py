"""`dragoman edge install` and `uninstall` below a folder: what they write, show, refuse and remove."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from dragoman.edge.environment_file import environment_file
from dragoman.edge.layout import Layout
from dragoman.edge.sight import Sight
from dragoman.edge.unit import Unit
from speculation.errors import InputError
from tests.support.certificates import HOUR, TestAuthority
from tests.support.commands import run_here
from tests.support.edge_units import InstalledUnit, analyzed, analyzer_version
from transport.identity import Role

TARGET = ("--model=lookup", "--verifier=127.0.0.1:50061", "--bind-paths")
AWAY = ("--model=smollm2-135m", "--verifier=gpu-box:50061", "--bind-paths")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `dragoman edge`."""
    return run_here(capsys, "edge", *arguments)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a machine with systemd."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "root/etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    (tmp_path / "root/etc/group").write_text("root:x:0:\nvideo:x:44:\n")
    return tmp_path / "root"


@pytest.fixture
def tls(tmp_path: Path) -> list[str]:
    """Options with a drafter's certificate."""
    authority = TestAuthority(tmp_path / "authority")
    files = authority.issue(Role.DRAFTER, "edge-1")
    return [f"--tls-ca={authority.ca}", f"--tls-cert={files.certificate}", f"--tls-key={files.key}"]


def tree(root: Path) -> dict[str, bytes | str]:
    found = sorted(root.rglob("*"))
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else "" for path in found}


VARIANTS = (
    (*TARGET,),
    (*AWAY, "--allow-plaintext", "--memory-max=2GiB", "--name=edge-1"),
    (*AWAY, "--allow-plaintext", "--device=cuda"),
    (*AWAY, "--request", "--name=edge.2"),
)


@pytest.mark.process
@pytest.mark.skipif(analyzer_version() < 250, reason="needs systemd-analyze of systemd 250 or newer")
@pytest.mark.parametrize("arguments", VARIANTS, ids=("lookup", "model", "gpu", "request"))
def test_systemd_finds_nothing_wrong_and_little_exposed(root: Path, capsys, arguments: tuple[str, ...]):
    code, _, errors = run(capsys, "install", *arguments, f"--root={root}")
    assert code == 0, errors
    [path] = (root / "etc/systemd/system").glob("*.service")
    verified = analyzed("verify", str(path))
    assert verified.returncode == 0 and path.name not in verified.stderr, verified.stderr
    rated = analyzed("security", "--offline=true", "--threshold=30", "--no-pager", str(path))
    assert rated.returncode == 0, rated.stdout


def test_a_machine_with_a_gpu_shows_it_and_others_show_no_device(root: Path, capsys):
    run(capsys, "install", *AWAY, "--allow-plaintext", "--device=cuda", "--name=gpu", f"--root={root}")
    run(capsys, "install", *AWAY, "--allow-plaintext", "--name=cpu", f"--root={root}")
    run(capsys, "install", *TARGET, f"--root={root}")
    gpu, cpu, lookup = (InstalledUnit(root, name) for name in ("gpu", "cpu", None))
    assert gpu.values("PrivateDevices") == ["no"] and gpu.values("SupplementaryGroups") == ["video"]
    assert cpu.values("PrivateDevices") == ["yes"] and cpu.values("SupplementaryGroups") == []
    # torch compiles for the processor that it finds: its kernels of int8 and bfloat16 need such memory.
    assert lookup.values("MemoryDenyWriteExecute") == ["yes"] and cpu.values("MemoryDenyWriteExecute") == []


def test_pauses_grow_where_systemd_knows_how(root: Path):
    def text(systemd: int | None) -> str:
        unit = Unit(
            layout=Layout(root), program=Path("/opt/dragoman/bin/dragoman"), options=(), credentials=(),
            memory_max=None, gpu_groups=None, compiles=True, bound=(), systemd=systemd,
        )  # fmt: skip
        return unit.text

    assert "RestartSteps" not in text(252) and text(252) == text(None)
    assert "RestartMaxDelaySec=120" in text(254)
    assert "ProtectHome=yes" in text(252) and "BindReadOnlyPaths" not in text(252)


def test_no_secret_is_in_unit_settings_or_output(root: Path, tmp_path: Path, tls: list[str], capsys):
    token = tmp_path / "a.token"
    token.write_text("dragoman-a-secret\n")
    arguments = [*AWAY, *tls, f"--token-file={token}", f"--root={root}"]
    key = Path(tls[2].partition("=")[2]).read_text()
    _, shown, _ = run(capsys, "install", *arguments, "--dry-run")
    assert not (root / "etc/dragoman").exists(), "nothing is written"
    assert "(a secret, not shown)" in shown and "DRAGOMAN_DRAFTER_MODEL=smollm2-135m" in shown
    assert "etc/systemd/system/dragoman-drafter.service" in shown
    code, out, errors = run(capsys, "install", *arguments)
    assert code == 0, errors
    unit = InstalledUnit(root)
    for text in (shown, out, unit.text, unit.environment_file.read_text()):
        assert "dragoman-a-secret" not in text and key.splitlines()[1] not in text
    folder = root / "etc/dragoman/drafter"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes.pop("settings.env") == 0o644
    assert modes == {"ca.pem": 0o644, "cert.pem": 0o644, "key.pem": 0o600, "token": 0o600}
    assert sorted(unit.values("LoadCredential")) == [f"{name}:/etc/dragoman/drafter/{name}" for name in sorted(modes)]


def test_what_is_written_is_told_and_a_round_trip_leaves_nothing(root: Path, tls: list[str], capsys):
    before = tree(root)
    arguments = [*AWAY, *tls, "--name=edge-1", f"--root={root}"]
    code, out, _ = run(capsys, "install", *arguments)
    after = tree(root)
    told = {line.split()[1] for line in out.splitlines() if line.startswith("wrote")}
    folders = {"etc/dragoman", "etc/dragoman/drafter-edge-1"}
    assert code == 0 and told == {str(root / path) for path in after.keys() - before.keys() - folders}
    assert (root / "etc/systemd/system/multi-user.target.wants/dragoman-drafter-edge-1.service").is_symlink()
    code, out, _ = run(capsys, "install", *arguments)
    assert code == 0 and "wrote" not in out and tree(root) == after
    for kind in ("cache", "lib"):  # as systemd makes it
        (root / f"var/{kind}/private/dragoman-drafter-edge-1/models").mkdir(parents=True)
        (root / f"var/{kind}/dragoman-drafter-edge-1").symlink_to("private/dragoman-drafter-edge-1")
    code, out, _ = run(capsys, "uninstall", f"--root={root}")
    assert code == 0 and "--purge removes keys" in out
    assert (root / "etc/dragoman/drafter-edge-1/key.pem").exists()
    assert (root / "var/cache/dragoman-drafter-edge-1/models").exists()
    assert not list((root / "etc/systemd").rglob("*.service"))
    code, out, _ = run(capsys, "uninstall", "--name=edge-1", "--purge", f"--root={root}")
    left = {path for path in tree(root).keys() - before.keys() if not path.startswith("var")}
    assert code == 0 and left == set() and not list((root / "var").rglob("dragoman*"))
    assert run(capsys, "uninstall", "--purge", f"--root={root}")[0] == 2


def test_a_unit_that_differs_is_replaced_only_if_told_to(root: Path, tls: list[str], capsys):
    run(capsys, "install", *AWAY, *tls, f"--root={root}")
    before = tree(root)
    code, _, errors = run(capsys, "install", *AWAY, *tls, "--max-sessions=9", f"--root={root}")
    assert code == 2 and "settings.env is there already, and differs" in errors and tree(root) == before
    code, _, _ = run(capsys, "install", *AWAY, *tls, "--max-sessions=9", "--force", f"--root={root}")
    assert code == 0 and "MAX_SESSIONS=9" in InstalledUnit(root).environment_file.read_text()
    unit = root / "etc/systemd/system/dragoman-drafter.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    code, _, errors = run(capsys, "uninstall", f"--root={root}")
    assert code == 2 and "was not written by" in errors and unit.exists()


def test_several_drafters_are_told_apart(root: Path, capsys):
    for name in ("a", "b"):
        run(capsys, "install", *TARGET, f"--name={name}", f"--root={root}")
    code, _, errors = run(capsys, "uninstall", f"--root={root}")
    assert code == 2 and "give --name: a, b" in errors
    assert run(capsys, "uninstall", "--name=a", f"--root={root}")[0] == 0
    assert run(capsys, "uninstall", f"--root={root}")[0] == 0, "the one that is left needs no name"


def test_a_program_and_a_model_of_the_image(root: Path, capsys):
    def install(*arguments: str) -> tuple[int, str, str]:
        return run(capsys, "install", "--verifier=127.0.0.1:1", f"--root={root}", *arguments)

    program, model = root / "opt/dragoman/bin/dragoman", root / "opt/models/a b.gguf"
    for path in (program, model):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"GGUF")
    ours = ("--program=/opt/dragoman/bin/dragoman", "--model=lookup")
    program.chmod(0o755)
    code, _, errors = install(*ours)
    assert code == 0, errors
    unit = InstalledUnit(root)
    assert unit.values("ExecStart") == ["/opt/dragoman/bin/dragoman drafter"] and unit.values("ProtectHome") == ["yes"]
    program.chmod(0o700)
    code, _, errors = install(*ours)
    assert code == 2 and "/opt/dragoman/bin/dragoman is closed to others" in errors and "chmod o+rX" in errors
    program.chmod(0o755)
    code, _, errors = install(*ours[:1], "--model=/opt/models/a b.gguf")
    assert code == 2 and "is no path that a unit can name" in errors
    model.rename(model.with_name("a.gguf"))
    code, _, errors = install(*ours[:1], "--model=/opt/models/a.gguf", "--force")
    assert code == 0 and "MODEL=/opt/models/a.gguf" in InstalledUnit(root).environment_file.read_text(), errors


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (2, "verifier: is missing", ("--model=lookup",)),
        (2, "model: is missing", ("--verifier=gpu-box",)),
        (2, "comes with --coordinator as well", (*TARGET, "--coordinator=a:1")),
        (2, "is another machine, and the connection would not be encrypted", (*AWAY,)),
        (2, "verifier='gpu-box:999999'", ("--model=lookup", "--verifier=gpu-box:999999", "--request")),
        (2, "name='a/b': is no name", (*TARGET, "--name=a/b")),
        (2, "name='a b': is no name", (*TARGET, "--name=a b")),
        (2, "max-sessions=0: must be at least 1", (*TARGET, "--max-sessions=0")),
        (2, "device='gpu': is no device", (*TARGET, "--device=gpu")),
        (2, "dtype='int4'", (*TARGET, "--dtype=int4")),
        (2, "memory-max='2': is no amount of memory", (*TARGET, "--memory-max=2")),
        (3, "no model 'nonsense'", ("--model=nonsense", *TARGET[1:])),
        (3, "there is no file", ("--model=/no/such.gguf", *TARGET[1:])),
        (2, "program='dragoman': is no path", (*TARGET, "--program=dragoman")),
        (2, "program='/opt/none': is not there", (*TARGET, "--program=/opt/none")),
        (2, "is hidden from the service", (*TARGET[:2], "--program=/home/pi/venv/bin/dragoman")),
        (2, "tls-ca='none.pem': cannot be read", (*AWAY, "--tls-ca=none.pem")),
        (2, "comes without --tls-key", (*AWAY, "--tls-cert=cert.pem", "--tls-ca=ca.pem")),
        (2, "comes with --request", (*AWAY, "--request", "--token-file=a")),
        (2, "is for servers", (*TARGET, "--tokens=a")),
    ],
)
def test_mistakes_are_told_before_anything_is_written(root: Path, capsys, code: int, words: str, arguments):
    before = tree(root)
    found, out, errors = run(capsys, "install", *arguments, f"--root={root}")
    assert (found, out) == (code, "") and words in errors, errors
    assert errors.count("error: ") == 1 and tree(root) == before


@pytest.mark.skipif(
    not Path(tempfile.gettempdir()).resolve().is_relative_to("/tmp") or not Path("/dev/shm").is_dir(),
    reason="needs a temporary folder in /tmp, and one that is elsewhere",
)
def test_a_link_into_what_is_hidden_is_followed(tmp_path: Path):
    (tmp_path / "venv").mkdir()
    outside = Path("/dev/shm") / f"dragoman-{os.getpid()}"
    outside.symlink_to(tmp_path / "venv")
    try:
        with pytest.raises(InputError, match="is hidden from the service"):
            Sight(bind=False).need("program", outside, remedy="move it")
        sight = Sight(bind=True)
        sight.need("program", outside, remedy="move it")
        assert sight.bound == [(tmp_path / "venv").resolve()]
    finally:
        outside.unlink()


def test_certificates_that_a_verifier_would_refuse(root: Path, tmp_path: Path, capsys):
    authority = TestAuthority(tmp_path / "authority")
    for files, words in (
        (authority.issue(Role.CLIENT), "is that of client a"),
        (authority.issue(Role.DRAFTER, "late", lifetime=-HOUR), "expired on"),
    ):
        tls = [f"--tls-ca={authority.ca}", f"--tls-cert={files.certificate}", f"--tls-key={files.key}"]
        code, _, errors = run(capsys, "install", *AWAY, *tls, f"--root={root}")
        assert code == 2 and words in errors and not (root / "etc/dragoman").exists()


@pytest.mark.process
def test_values_stand_in_the_environment_file_as_they_were_given(tmp_path: Path):
    odd = 'a "b" $c `d` \\e #f'
    text = environment_file("x.service", {"model": odd, "name": None, "verbose": False, "allow_plaintext": True})
    (tmp_path / "env").write_text(text)
    # A shell reads such a file as systemd does, within double quotes.
    script = (
        'set -a; . ./env; printf "%s\\n" "$DRAGOMAN_DRAFTER_MODEL" "$DRAGOMAN_ALLOW_PLAINTEXT"; env | grep -c DRAGOMAN'
    )
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True)
    assert done.stdout.decode() == f"{odd}\n1\n2\n"


@pytest.mark.parametrize("arguments", [("install", *TARGET), ("status",), ("logs",), ("uninstall", "--name=none")])
def test_no_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments: tuple[str, ...]):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, errors = run(capsys, *arguments)
    if arguments[0] != "uninstall":
        assert code == 1 and "there is no systemd on this machine: systemctl is not found" in errors
    else:
        assert code == 2 and "name='none': no drafter is installed here" in errors
    assert "fix: " in errors
