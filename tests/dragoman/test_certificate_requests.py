"""`dragoman certs issue --request`: certificates for keys that are elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dragoman.certificates.folder import identity_of, read_certificate
from dragoman.certificates.request import make_request, new_key
from tests.support.commands import run_here
from transport.identity import Identity, Role

EDGE = Identity(Role.DRAFTER, "edge-1")
PEM = serialization.Encoding.PEM


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `dragoman certs`."""
    return run_here(capsys, "certs", *arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """One with an authority, at the default place, and a request of a drafter beside it."""
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "init")[0] == 0
    Path("a.csr").write_bytes(make_request(EDGE, new_key()))
    return tmp_path / "certs"


def key_in(path: Path) -> object:
    text = path.read_bytes()
    load = x509.load_pem_x509_csr if path.suffix == ".csr" else x509.load_pem_x509_certificate
    return load(text).public_key()


def test_a_request_is_signed_and_its_key_is_not_here(folder: Path, capsys):
    code, out, _ = run(capsys, "issue", "--request=a.csr", "--for=12h")
    made = folder / "drafter-edge-1.pem"
    assert code == 0 and "certs/drafter-edge-1.pem: drafter edge-1, valid until" in out and "ca.pem" in out
    assert key_in(made) == key_in(Path("a.csr")) and not (folder / "drafter-edge-1.key").exists()
    assert identity_of(read_certificate(made)) == EDGE
    read_certificate(made).verify_directly_issued_by(read_certificate(folder / "ca.pem"))
    assert run(capsys, "show")[0] == 0
    assert run(capsys, "issue", "drafter", "edge-1")[0] == 2, "that would be another key's"


def test_a_renewal_is_of_the_same_key_or_of_a_new_request(folder: Path, capsys):
    run(capsys, "issue", "--request=a.csr")
    made = folder / "drafter-edge-1.pem"
    first = read_certificate(made)
    code, out, _ = run(capsys, "renew", "--for=30d")
    assert code == 0 and "certs/drafter-edge-1.pem: drafter edge-1, valid until" in out
    assert read_certificate(made).serial_number != first.serial_number and key_in(made) == first.public_key()
    Path("b.csr").write_bytes(make_request(EDGE, new_key()))
    assert run(capsys, "issue", "drafter", "edge-1", "--request=b.csr")[0] == 0
    assert key_in(made) == key_in(Path("b.csr")) != first.public_key()
    assert not (folder / "drafter-edge-1.key").exists()


def test_a_revoked_key_is_not_certified_again(folder: Path, capsys):
    run(capsys, "issue", "--request=a.csr")
    run(capsys, "revoke", "drafter", "edge-1")
    for arguments in (["renew"], ["issue", "--request=a.csr"]):
        code, _, errors = run(capsys, *arguments)
        assert code == 2 and "is for a key that was revoked" in errors and "fix: " in errors
    Path("b.csr").write_bytes(make_request(EDGE, new_key()))
    assert run(capsys, "issue", "drafter", "edge-1", "--request=b.csr")[0] == 0


def test_a_revoked_key_stays_revoked_whatever_came_after(folder: Path, capsys):
    """Neither its certificate's being replaced, before or after the revocation, nor another name helps it."""
    key_a, key_b, key_c = new_key(), new_key(), new_key()
    for name, key in (("a", key_a), ("b", key_b), ("c", key_c)):
        Path(f"{name}.csr").write_bytes(make_request(EDGE, key))
    ours = ("issue", "drafter", "edge-1")
    assert run(capsys, *ours, "--request=a.csr")[0] == run(capsys, *ours, "--request=b.csr")[0] == 0
    run(capsys, "revoke", "drafter", "edge-1")
    assert run(capsys, *ours, "--request=c.csr")[0] == 0
    made = (folder / "drafter-edge-1.pem").read_bytes()
    Path("x.csr").write_bytes(make_request(Identity(Role.DRAFTER, "x"), key_a))
    for name, path in (("edge-1", "a.csr"), ("edge-1", "b.csr"), ("x", "x.csr")):
        code, out, errors = run(capsys, "issue", "drafter", name, f"--request={path}")
        assert (code, out) == (2, "") and "is for a key that was revoked" in errors
    assert (folder / "drafter-edge-1.pem").read_bytes() == made
    assert run(capsys, "renew")[0] == 0, "the new one is not revoked"
    assert key_in(folder / "drafter-edge-1.pem") == key_c.public_key()
    assert run(capsys, "issue", "client", "anna")[0] == 0


def test_keys_of_a_folder_that_did_not_remember_them(folder: Path, capsys):
    run(capsys, "issue", "--request=a.csr")
    (folder / "keys").unlink()
    run(capsys, "revoke", "drafter", "edge-1")
    Path("b.csr").write_bytes(make_request(EDGE, new_key()))
    run(capsys, "issue", "drafter", "edge-1", "--request=b.csr")
    assert "is for a key that was revoked" in run(capsys, "issue", "drafter", "edge-1", "--request=a.csr")[2]
    (folder / "keys").write_text("drafter edge-1 what\n")
    code, _, errors = run(capsys, "issue", "drafter", "edge-1", "--request=b.csr")
    assert code == 2 and "has a line that is none of ours" in errors and "fix: " in errors


def test_another_key_of_a_known_holder_is_certified_only_by_name(folder: Path, capsys):
    run(capsys, "issue", "--request=a.csr")
    made = folder / "drafter-edge-1.pem"
    first = made.read_bytes()
    Path("b.csr").write_bytes(make_request(EDGE, new_key()))
    for revoke in (False, True):
        if revoke:
            run(capsys, "revoke", "drafter", "edge-1")
        for arguments in ([], ["drafter"]):
            code, out, errors = run(capsys, "issue", *arguments, "--request=b.csr")
            assert (code, out) == (2, "") and "is of another key than this holder's certificate" in errors
            assert "dragoman certs issue drafter edge-1 --request FILE" in errors and made.read_bytes() == first
    for path in folder.glob("drafter-*"):
        path.unlink()
    code, _, errors = run(capsys, "issue", "--request=b.csr")
    assert code == 2 and "is of a holder that was revoked" in errors and not made.exists()
    assert run(capsys, "issue", "drafter", "edge-1", "--request=b.csr")[0] == 0
    assert run(capsys, "issue", "--request=b.csr")[0] == 0, "the same key again"


def test_who_signs_says_it_if_it_is_no_drafter(folder: Path, capsys):
    Path("root.csr").write_bytes(make_request(Identity(Role.ADMIN, "mallory"), new_key()))
    for arguments in ([], ["drafter"], ["drafter", "mallory"], ["admin", "anna"]):
        code, _, errors = run(capsys, "issue", *arguments, "--request=root.csr")
        assert code == 2 and "asks for a certificate of admin mallory" in errors
        assert "dragoman certs issue admin mallory --request root.csr" in errors
    assert run(capsys, "issue", "admin", "mallory", "--request=root.csr")[0] == 0
    Path("box.csr").write_bytes(make_request(Identity(Role.VERIFIER, "box"), new_key()))
    assert run(capsys, "issue", "verifier", "box", "--request=box.csr", "--host=box.example")[0] == 0
    assert "box.example" in run(capsys, "show", str(folder / "verifier-box.pem"))[1]


def test_a_holder_whose_key_was_made_here_keeps_it(folder: Path, capsys):
    run(capsys, "issue", "drafter", "edge-1")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, _, errors = run(capsys, "issue", "--request=a.csr")
    assert code == 2 and "is there already, and was not issued for a request" in errors
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def nameless() -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(new_key(), hashes.SHA256()).public_bytes(PEM)


def named(uri: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.add_extension(names, critical=False).sign(key, hashes.SHA256()).public_bytes(PEM)


def forged() -> bytes:
    """One whose signature is another's."""
    request = x509.load_pem_x509_csr(make_request(EDGE, new_key()))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    at = bytes(der).index(b"edge-1")
    der[at : at + 6] = b"edge-2"
    return x509.load_der_x509_csr(bytes(der)).public_bytes(PEM)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (b"nothing", "holds no certificate request"),
        (nameless(), "names no role and holder"),
        (named("spiffe://elsewhere/drafter/edge-1", new_key()), "names no role and holder"),
        (named("spiffe://dragoman/drafter/..", new_key()), "names no role and holder"),
        (named(EDGE.uri, rsa.generate_private_key(65537, 2048)), "another kind than P-256"),
        (named(EDGE.uri, ec.generate_private_key(ec.SECP384R1())), "another kind than P-256"),
        (forged(), "is not signed with its own key"),
    ],
)
def test_mistakes(folder: Path, capsys, made: bytes, words: str):
    before = sorted(folder.iterdir())
    Path("bad.csr").write_bytes(made)
    code, out, errors = run(capsys, "issue", "--request=bad.csr")
    assert (code, out) == (2, "") and words in errors and "fix: " in errors
    assert "cannot be read: No such file" in run(capsys, "issue", "--request=none.csr")[2]
    assert "role: is missing" in run(capsys, "issue")[2] and "name: is missing" in run(capsys, "issue", "client")[2]
    assert "is of no use to a drafter" in run(capsys, "issue", "--request=a.csr", "--host=x")[2]
    assert sorted(folder.iterdir()) == before
