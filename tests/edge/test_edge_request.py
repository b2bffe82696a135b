"""`dragoman edge install --request` where a certificate is there already."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dragoman.certificates.folder import read_certificate
from tests.support.commands import run_here

OPTIONS = ("--model=lookup", "--verifier=gpu-box:50061", "--bind-paths", "--name=edge-1", "--request")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Of a machine, beside an authority at the default place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "root/etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    assert run_here(capsys, "certs", "init")[0] == 0
    return tmp_path / "root"


def test_after_a_revocation_the_old_certificate_does_not_count(root: Path, capsys):
    """Nor does one that cannot be read: with either the service would restart for ever."""

    def request() -> str:
        code, out, errors = run_here(capsys, "edge", "install", *OPTIONS, f"--root={root}")
        assert code == 0 and f"1. take {folder / 'request.csr'}" in out and "4. here" in out, errors
        return out

    def sign(*holder: str) -> None:
        code, _, errors = run_here(capsys, "certs", "issue", *holder, f"--request={folder / 'request.csr'}")
        assert code == 0, errors
        shutil.copy("certs/drafter-edge-1.pem", folder / "cert.pem")
        shutil.copy("certs/ca.pem", folder / "ca.pem")

    folder = root / "etc/dragoman/drafter-edge-1"
    at_boot = root / "etc/systemd/system/multi-user.target.wants/dragoman-drafter-edge-1.service"
    out = request()
    assert "is not started yet: ca.pem and cert.pem of" in out and "certs issue --request request.csr" in out
    sign()
    first = read_certificate(folder / "cert.pem").public_key()
    assert run_here(capsys, "certs", "revoke", "drafter", "edge-1")[0] == 0
    (folder / "key.pem").unlink()
    for _ in range(2):
        out = request()
        assert "is not started yet: cert.pem of" in out and "another key's" in out and not at_boot.is_symlink()
        assert "certs issue drafter edge-1 --request request.csr" in out
        (folder / "cert.pem").write_text("nothing")
    sign("drafter", "edge-1")
    assert read_certificate(folder / "cert.pem").public_key() != first
    out = request()
    assert "is not started yet" not in out and "is of this key" in out and at_boot.is_symlink()
