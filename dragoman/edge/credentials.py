"""What a drafter proves itself with: certificate, key, authority, token, as files of root's that systemd hands over.

They are copied into the layout's folder. systemd reads them there as it starts the service, and shows the service
copies that are its own, at $CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dragoman.certificates.authority import key_pem
from dragoman.certificates.folder import identity_of, read_certificate
from dragoman.certificates.request import make_request, new_key
from dragoman.edge.files import PRIVATE, PUBLIC, File
from dragoman.edge.layout import Layout
from speculation.errors import InputError
from transport.identity import Identity, Role
from transport.security import Security

#: By the setting of ``Security``: the file's name, and who may read it.
_FILES: Final = {
    "tls_ca": ("ca.pem", PUBLIC),
    "tls_cert": ("cert.pem", PUBLIC),
    "tls_key": ("key.pem", PRIVATE),
    "token_file": ("token", PRIVATE),
}
REQUEST: Final = "request.csr"
#: All that may be in the folder.
NAMES: Final = (*(name for name, _ in _FILES.values()), REQUEST)
_WITH_REQUEST: Final = ("tls_ca", "tls_cert", "tls_key")


@dataclass(frozen=True, slots=True)
class Credentials:
    """``settings``: those of ``Security`` that the service has. ``files``: to be written. ``missing``: names that
    others have to bring before it can start. ``holder``: whose request is among the files, None: there is none.
    ``rekeyed``: he had a certificate of another key, so that the new one has to be asked for by name."""

    settings: tuple[str, ...]
    files: tuple[File, ...]
    missing: tuple[str, ...] = ()
    holder: Identity | None = None
    rekeyed: bool = False

    @property
    def names(self) -> list[str]:
        """For LoadCredential=."""
        return [_FILES[setting][0] for setting in self.settings]

    @property
    def options(self) -> list[str]:
        """Of `dragoman drafter`. Systemd puts the folder in."""
        return [f"--{name.replace('_', '-')}=${{CREDENTIALS_DIRECTORY}}/{_FILES[name][0]}" for name in self.settings]


def with_own_key(security: Security, layout: Layout) -> Security:
    """A certificate without a key is for the one that was made here, by a request before."""
    key = layout.below(layout.folder / _FILES["tls_key"][0])
    if security.tls_cert is not None and security.tls_key is None and key.exists():
        return security.model_copy(update={"tls_key": str(key)})
    return security


def given_credentials(security: Security, layout: Layout) -> Credentials:
    """Of files that were checked as a drafter does. Raises InputError for a certificate of another role."""
    if security.tls_cert is not None:
        identity = identity_of(read_certificate(Path(security.tls_cert)))
        if identity is None or identity.role is not Role.DRAFTER:
            whose = f"is that of {identity}" if identity is not None else "names no role"
            remedy = "`dragoman certs issue drafter NAME` makes one for a drafter"
            raise InputError("tls-cert", security.tls_cert, whose, remedy=remedy)
    settings = tuple(name for name in _FILES if getattr(security, name) is not None)
    return Credentials(settings, tuple(_copy(layout, name, getattr(security, name)) for name in settings))


def requested_credentials(security: Security, layout: Layout, holder: Identity) -> Credentials:
    """A key, unless there is one, and its request. Raises InputError for a key that is none."""
    path = layout.below(layout.folder / _FILES["tls_key"][0])
    try:
        key = load_pem_private_key(path.read_bytes(), None) if path.exists() else new_key()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError("request", str(path), problem, remedy="run it as root (sudo)") from error
    except (ValueError, TypeError) as error:
        remedy = "remove it, so that another is made"
        raise InputError("request", str(path), "holds no key that can be read", remedy=remedy) from error
    files = [
        File(layout.folder / _FILES["tls_key"][0], key_pem(key), PRIVATE, replaces=True),  # type: ignore[arg-type]
        File(layout.folder / REQUEST, make_request(holder, key), replaces=True),  # type: ignore[arg-type]
    ]
    if security.tls_ca is not None:
        files.insert(0, _copy(layout, "tls_ca", security.tls_ca))
    present = {file.path.name for file in files}
    present |= {name for name in map(_name, _WITH_REQUEST) if layout.below(layout.folder / name).exists()}
    certificate = _name("tls_cert")
    rekeyed = certificate in present and not _is_of(layout.below(layout.folder / certificate), key)
    missing = [name for name in map(_name, _WITH_REQUEST) if name not in present or (rekeyed and name == certificate)]
    return Credentials(
        settings=_WITH_REQUEST, files=tuple(files), missing=tuple(missing), holder=holder, rekeyed=rekeyed
    )


def _name(setting: str) -> str:
    return _FILES[setting][0]


def _is_of(certificate: Path, key: PrivateKeyTypes) -> bool:
    """With one of another key, or with none that can be read, the service would restart for ever."""
    try:
        return read_certificate(certificate).public_key() == key.public_key()
    except InputError:
        return False


def _copy(layout: Layout, setting: str, source: str) -> File:
    """Raises InputError."""
    name, mode = _FILES[setting]
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError(setting.replace("_", "-"), source, problem, remedy="check the path") from error
    return File(layout.folder / name, content, mode, replaces=True)
