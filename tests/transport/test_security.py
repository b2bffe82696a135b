"""The settings of TLS: where they come from, what goes together, and files that cannot be used."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from speculation.errors import InputError
from tests.support.certificates import TestAuthority
from transport.address import Address
from transport.identity import Role
from transport.pem_files import PemFiles, pem_files
from transport.security import Security

HERE, ELSEWHERE = Address("127.0.0.1", 1), Address("192.0.2.1", 1)


@pytest.fixture
def ours(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ours")


def test_the_environment_fills_in_what_is_not_given():
    environment = {"DRAGOMAN_TLS_CERT": "c", "DRAGOMAN_TLS_KEY": "k", "DRAGOMAN_TLS_CA": "a", "OTHER": "x"}
    assert Security.from_environment(environment) == Security(tls_cert="c", tls_key="k", tls_ca="a")
    own = Security(tls_ca="mine", allow_plaintext=True).or_environment(environment)
    assert own == Security(tls_cert="c", tls_key="k", tls_ca="mine", allow_plaintext=True)
    assert Security.from_environment({"DRAGOMAN_TLS_CA": ""}) == Security()


@pytest.mark.parametrize("written, means", [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_the_switch_of_the_environment(written: str, means: bool):
    assert Security.from_environment({"DRAGOMAN_ALLOW_PLAINTEXT": written}).allow_plaintext is means


def test_a_switch_that_is_none_is_named():
    with pytest.raises(InputError, match="DRAGOMAN_ALLOW_PLAINTEXT='yes'"):
        Security.from_environment({"DRAGOMAN_ALLOW_PLAINTEXT": "yes"})


def test_names_of_files_may_be_paths():
    assert Security(tls_ca=Path("a") / "ca.pem") == Security(tls_ca="a/ca.pem")


@pytest.mark.parametrize(
    "security, listens, dials",
    [
        (Security(), None, None),
        (Security(tls_cert="c"), "comes without --tls-key", "comes without --tls-key"),
        (Security(tls_key="k"), "comes without --tls-cert", "comes without --tls-cert"),
        (Security(tls_cert="c", tls_key="k"), None, "comes without an authority"),
        (Security(tls_ca="a"), "comes without a certificate of this server's own", None),
        (Security(tls_cert="c", tls_key="k", tls_ca="a"), None, None),
    ],
)
def test_what_goes_together(security: Security, listens: str | None, dials: str | None):
    for words, check in (
        (listens, lambda: security.check_listening(HERE)),
        (dials, lambda: security.check_dialling(HERE, who="verifier")),
    ):
        if words is None:
            check()
        else:
            with pytest.raises(InputError, match=words):
                check()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9", "::ffff:127.0.0.1"])
def test_loopback_needs_no_tls(host: str):
    Security().check_listening(Address(host, 1))
    Security().check_dialling(Address(host, 1), who="verifier")


def test_other_machines_do_unless_plaintext_is_allowed():
    for security in (Security(allow_plaintext=True), Security(tls_cert="c", tls_key="k", tls_ca="a")):
        security.check_listening(ELSEWHERE)
        security.check_dialling(ELSEWHERE, who="verifier")
    with pytest.raises(InputError, match=r"listen='192.0.2.1:1'"):
        Security().check_listening(ELSEWHERE)
    with pytest.raises(InputError, match=r"coordinator='192.0.2.1:1'"):
        Security().check_dialling(ELSEWHERE, who="coordinator")


# ---- files --------------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used_are_named(ours: TestAuthority, tmp_path: Path):
    good, other = ours.mutual(Role.VERIFIER), ours.mutual(Role.VERIFIER, "b")
    junk, nowhere = tmp_path / "junk.pem", tmp_path / "nowhere.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    for changed, value, words in (
        ("tls_cert", str(nowhere), "tls-cert=.*cannot be read: No such file"),
        ("tls_key", str(nowhere), "tls-key=.*cannot be read: No such file"),
        ("tls_ca", str(nowhere), "tls-ca=.*cannot be read: No such file"),
        ("tls_cert", str(tmp_path), "tls-cert=.*cannot be read: Is a directory"),
        ("tls_cert", str(junk), "tls-cert=.*holds no certificate"),
        ("tls_key", str(junk), "tls-key=.*holds no key"),
        ("tls_ca", str(junk), "tls-ca=.*holds no certificate"),
        ("tls_key", other.tls_key, "tls-key=.*is not the key of"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            PemFiles(good.model_copy(update={changed: value}))
        assert caught.value.remedy
    assert PemFiles(good).newest().certificate == Path(good.tls_cert or "").read_bytes()


def test_an_expired_certificate_is_refused_at_the_start_and_tried_again_later(ours: TestAuthority):
    files = ours.issue(Role.VERIFIER, "old", lifetime=-datetime.timedelta(minutes=1))
    security = Security(tls_cert=str(files.certificate), tls_key=str(files.key), tls_ca=ours.ca)
    with pytest.raises(InputError, match=r"expired on .* UTC") as caught:
        pem_files(security)
    assert "certs renew" in caught.value.remedy
    ours.folder.renew(files.certificate, datetime.timedelta(hours=1))
    assert pem_files(security).newest().certificate == files.certificate.read_bytes()


def test_a_key_that_needs_a_password_is_refused_without_asking_for_it(ours: TestAuthority):
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    security = ours.mutual(Role.VERIFIER)
    locked = ours.authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    Path(security.tls_key or "").write_bytes(locked)
    with pytest.raises(InputError, match=r"tls-key=.*without a password"):
        PemFiles(security)


def test_its_end_is_warned_of(ours: TestAuthority, caplog: pytest.LogCaptureFixture):
    files = ours.issue(Role.DRAFTER, "soon", lifetime=datetime.timedelta(minutes=1))  # of six, with the clocks' share
    PemFiles(Security(tls_cert=str(files.certificate), tls_key=str(files.key), tls_ca=ours.ca))
    assert "soon.pem ends on" in caplog.text and "certs renew" in caplog.text
    caplog.clear()
    PemFiles(ours.mutual(Role.DRAFTER))
    assert not caplog.text


def test_files_are_read_again_only_when_they_change(ours: TestAuthority):
    security = ours.mutual(Role.DRAFTER)
    files = pem_files(security)
    first = files.newest()
    assert files.newest() is first and pem_files(security.model_copy()) is files
    os.utime(security.tls_cert or "", ns=(1, 1))
    assert files.newest() == first and files.newest() is not first


@pytest.mark.process
def test_who_uses_no_tls_imports_no_cryptography():
    code = "import sys, dragoman.cli, coordinator.server, drafter_service.client; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
