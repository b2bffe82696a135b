"""`dragoman certs` as a person uses it: what it writes, what it says, what it refuses."""

from __future__ import annotations

import datetime
import io
import json
import shutil
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from rich.console import Console

from dragoman.certificates.authority import CLOCK_SKEW
from dragoman.certificates.folder import Folder, hosts_of, identity_of, read_certificate
from dragoman.certificates.inspection import Verdict, inspect
from dragoman.certs import certificate_lines, certificate_table
from tests.support.certificates import HOUR, TestAuthority
from tests.support.commands import run_here
from transport.identity import Identity, Role


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `dragoman certs`."""
    return run_here(capsys, "certs", *arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """One with an authority, at the default place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert run(capsys, "init")[0] == 0
    return tmp_path / "certs"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_authority_and_certificates_of_all_roles(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert (mode(folder), mode(folder / "ca.key"), mode(folder / "ca.pem")) == (0o700, 0o600, 0o644)
    authority = read_certificate(folder / "ca.pem")
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for role in Role:
        options = ["--host=gpu-box.example", "--host=192.0.2.7"] if role.serves else []
        code, out, _ = run(capsys, "issue", role.value, "one", *options)
        assert code == 0 and f"certs/{role}-one.pem" in out and f"{role} one, valid until" in out
        certificate = read_certificate(folder / f"{role}-one.pem")
        key = folder / f"{role}-one.key"
        assert mode(key) == 0o600
        assert load_pem_private_key(key.read_bytes(), None).public_key() == certificate.public_key()
        certificate.verify_directly_issued_by(authority)
        assert identity_of(certificate) == Identity(role, "one")
        hosts = ["gpu-box.example", "localhost", "192.0.2.7", "127.0.0.1", "::1"] if role.serves else []
        assert hosts_of(certificate) == hosts
        # Short-lived: seven days, and the clocks' difference before.
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert life == datetime.timedelta(days=7) + CLOCK_SKEW
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (x509.ExtendedKeyUsageOID.SERVER_AUTH in purposes) is role.serves
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        ssl.create_default_context(cafile=str(folder / "ca.pem")).load_cert_chain(folder / f"{role}-one.pem", key)


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "issue", "client", "anna")[0] == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for arguments, words in (
        (["init"], "holds an authority already"),
        (["issue", "client", "anna"], "certs/client-anna.pem': is there already"),
    ):
        code, out, errors = run(capsys, *arguments)
        assert (code, out) == (2, "") and words in errors and "fix: " in errors
    (folder / "client-anna.pem").unlink()  # a key whose certificate was lost is still a key
    assert "client-anna.key': is there already" in run(capsys, "issue", "client", "anna")[2]
    del before[folder / "client-anna.pem"]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_renewal_is_of_the_same_holder_with_a_new_key(folder: Path, capsys: pytest.CaptureFixture[str]):
    run(capsys, "issue", "verifier", "box", "--host=box.example", "--for=12h")
    run(capsys, "issue", "client", "anna")
    path = folder / "verifier-box.pem"
    old, old_key = read_certificate(path), (folder / "verifier-box.key").read_bytes()
    code, out, _ = run(capsys, "renew", str(path))
    new = read_certificate(path)
    assert code == 0 and "verifier box, valid until" in out and "anna" not in out
    assert new.serial_number != old.serial_number and (folder / "verifier-box.key").read_bytes() != old_key
    assert (identity_of(new), hosts_of(new)) == (identity_of(old), hosts_of(old))
    life = [each.not_valid_after_utc - each.not_valid_before_utc for each in (old, new)]
    assert life == [datetime.timedelta(hours=12) + CLOCK_SKEW] * 2
    assert mode(folder / "verifier-box.key") == 0o600
    code, out, _ = run(capsys, "renew", "--for=30d")
    assert code == 0 and "verifier box" in out and "client anna" in out
    assert read_certificate(path).not_valid_after_utc > new.not_valid_after_utc + datetime.timedelta(days=29)
    written = sorted(each.suffix for each in folder.iterdir() if each.name not in ("revoked", "keys"))
    assert written == [".key"] * 3 + [".pem"] * 3, "nothing is left over"


def test_no_certificate_outlives_its_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    where = f"--dir={tmp_path / 'short'}"
    run(capsys, "init", where, "--for=1d")
    run(capsys, "issue", "client", "anna", where, "--for=30d")
    ends = [read_certificate(tmp_path / "short" / name).not_valid_after_utc for name in ("ca.pem", "client-anna.pem")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["issue", "client", "a/b"], "name='a/b': is no name for a certificate"),
        (["issue", "root", "a"], "role='root': is not one of verifier, coordinator, drafter, client, admin"),
        (["issue", "drafter", "a", "--host=x"], "host='x': is of no use to a drafter"),
        (["issue", "verifier", "a", "--host=box:50061"], "host='box:50061': is no host"),
        (["issue", "verifier", "a", "--host=a b"], "host='a b': is no host"),
        (["issue", "client", "a", "--for=a week"], "for='a week': is no duration"),
        (["issue", "client", "a", "--for=0s"], "for='0s': is no life"),
        (["issue", "client", "a", "--for=1e6d"], "for='1e6d': is no life"),
        (["issue", "client", "a", "--dir=elsewhere"], "dir='elsewhere': holds no authority"),
        (["init", "--name= ", "--dir=x"], "is no name for an authority"),
        (["renew"], "holds no certificate to renew"),
        (["renew", "certs/ca.pem"], "names no role"),
        (["renew", "nothing.pem"], "certificate='nothing.pem': cannot be read: No such file"),
        (["show", "--dir=elsewhere"], "dir='elsewhere': holds no certificates"),
        (["show", "certs/ca.key"], "certificate='certs/ca.key': holds no certificate in PEM"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str):
    before = sorted(folder.iterdir())
    code, out, errors = run(capsys, *arguments)
    assert (code, out) == (2, "") and errors.startswith("error: ") and words in errors and "fix: " in errors
    assert sorted(folder.iterdir()) == before and not Path("elsewhere").exists()


def test_only_where_the_key_of_the_authority_is_certificates_are_issued(folder: Path, capsys):
    (folder / "ca.key").rename(folder / "away")
    code, _, errors = run(capsys, "issue", "client", "anna")
    assert code == 2 and "ca.key': cannot be read" in errors
    other = TestAuthority(folder.parent / "other")
    shutil.copy(other.folder.authority_files.key, folder / "ca.key")
    assert "ca.key': is not the key of ca.pem" in run(capsys, "issue", "client", "anna")[2]


# ---- show ---------------------------------------------------------------------------------------------------------


def test_show_says_whose_and_until_when(folder: Path, capsys: pytest.CaptureFixture[str]):
    run(capsys, "issue", "verifier", "gpu-box", "--host=gpu-box.example")
    run(capsys, "issue", "client", "anna", "--for=3h")
    code, out, errors = run(capsys, "show")
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["role", "name", "until", "(UTC)", "left", "state", "hosts"]
    authority, client, verifier = (next(line for line in lines if line.startswith(f"{role} ")) for role in
                                   ("authority", "client", "verifier"))  # fmt: skip
    assert "1825 d" in authority and "valid" in authority
    assert "anna" in client and " 3.0 h" in client and "gpu-box" in verifier and " 7 d" in verifier
    code, out, _ = run(capsys, "show", "--json")
    found = {one["role"]: one for one in json.loads(out)}
    assert found["client"]["uri"] == "spiffe://dragoman/client/anna" and found["client"]["usable"]
    assert 3 * 3600 - 60 < found["client"]["seconds_left"] <= 3 * 3600


def test_show_knows_what_others_would_refuse(tmp_path: Path):
    ours, other = TestAuthority(tmp_path / "ours"), TestAuthority(tmp_path / "other")
    now = datetime.datetime.now(datetime.UTC)
    files = ours.issue(Role.CLIENT, lifetime=10 * HOUR)
    trusted = ours.authority.certificate

    def verdict(after: datetime.timedelta = 0 * HOUR, by: x509.Certificate | None = trusted) -> Verdict:
        return inspect(files.certificate, by, now + after).verdict

    assert verdict() is Verdict.VALID
    assert verdict(9 * HOUR) is Verdict.ENDS_SOON and Verdict.ENDS_SOON.usable
    assert verdict(11 * HOUR) is Verdict.EXPIRED
    assert verdict(-1 * HOUR) is Verdict.NOT_YET
    assert verdict(by=other.authority.certificate) is verdict(by=None) is Verdict.UNTRUSTED
    files.key.chmod(0o640)
    assert verdict() is Verdict.KEY_OPEN
    files.key.chmod(0o600)
    files.key.write_bytes(ours.issue(Role.CLIENT, "b").key.read_bytes())
    assert verdict() is Verdict.KEY_DIFFERS
    files.key.unlink()
    assert verdict() is Verdict.VALID, "a key need not be where its certificate is looked at"
    assert not any(each.usable for each in Verdict if each not in (Verdict.VALID, Verdict.ENDS_SOON))


def test_the_exit_code_of_show_and_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]):
    ours = Folder(folder)
    ours.issue(Identity(Role.CLIENT, "late"), (), -HOUR)
    ours.issue(Identity(Role.CLIENT, "good"), (), HOUR)
    code, out, errors = run(capsys, "show")
    assert code == 1 and "expired" in out and "renew 1 certificate with `dragoman certs renew`" in errors
    assert run(capsys, "show", str(folder / "client-good.pem"))[0] == 0
    other = TestAuthority(folder.parent / "other")
    code, out, _ = run(capsys, "show", str(folder / "client-good.pem"), f"--ca={other.ca}")
    assert code == 1 and "not of this authority" in out
    # Where the authority's certificate is not at hand, nothing can be said.
    shutil.copy(folder / "client-good.pem", folder.parent / "alone.pem")
    code, _, errors = run(capsys, "show", str(folder.parent / "alone.pem"), "--dir=elsewhere")
    assert code == 1 and "give it with --ca" in errors


@pytest.mark.parametrize("columns", [80, 40])
def test_how_it_looks(tmp_path: Path, columns: int):
    ours = TestAuthority(tmp_path / "ours")
    files = [
        ours.issue(Role.VERIFIER, "gpu-box", hosts=("gpu-box.example", "192.0.2.7", "localhost", "127.0.0.1", "::1")),
        ours.issue(Role.COORDINATOR, "head"),
        ours.issue(Role.CLIENT, "late", lifetime=-HOUR),
    ]
    found = [inspect(each.certificate, ours.authority.certificate) for each in files]
    console = Console(file=io.StringIO(), width=columns)
    console.print(certificate_table(found) if columns >= 72 else certificate_lines(found))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= columns and "…" not in shown
    for words in ("gpu-box", "coordinator", "expired", "192.0.2.7", "::1"):
        assert words in shown
