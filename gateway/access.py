"""Who may ask: those with a token of the gateway's file, or with a certificate where it asks for certificates."""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.connection import HOLDER, PEER, Peer
from gateway.http_errors import HttpError
from gateway.request_ids import audit_request
from gateway.static_page import is_of_page
from speculation.errors import AccessError
from transport.identity import Identity, Role
from transport.revocations import RevocationFile
from transport.security import Security
from transport.tokens import TokenFile

#: Whose holders may have texts written: as at a verifier.
_PEOPLE: Final = frozenset({Role.CLIENT, Role.ADMIN})
#: For load balancers, collectors and checks that the process is alive; the page is for all as well: it has a field for
#: the key.
_OPEN_TO_ALL: Final = frozenset({"/health", "/metrics", "/version"})


class Access:
    """Turns away whom the settings do not let in, before anything of a request is read. Raises InputError for files
    that cannot be used."""

    def __init__(self, app: ASGIApp, *, security: Security) -> None:
        self._app = app
        self._tokens = TokenFile(security.tokens) if security.tokens is not None else None
        self._revocations = RevocationFile(security.tls_revoked) if security.tls_revoked is not None else None
        self._asks = self._tokens is not None or security.asks_for_certificates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._asks and not _is_open(scope["path"]):
            refused = self._refused(scope)
            if refused is not None:
                audit_request("refused", call=scope["path"], reason=refused.code)
                await refused.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> HttpError | None:
        try:
            holder = self._holder(scope)
        except AccessError as error:
            return HttpError(401, error.message, code="invalid_api_key")
        if holder is None or holder.role not in _PEOPLE:
            roles = " or ".join(sorted(_PEOPLE))
            return HttpError(403, f"{holder or 'a certificate without a role'} may not ask for texts, a {roles} may")
        scope[HOLDER] = holder
        return None

    def _holder(self, scope: Scope) -> Identity | None:
        """Raises AccessError for one that is not known, or no longer."""
        if self._tokens is not None:
            return self._tokens.holder(_in_one_case(HTTPConnection(scope).headers.get("authorization")))
        peer: Peer = scope[PEER]
        if peer.identity is not None and self._revocations is not None:
            self._revocations.check(peer.identity, peer.certificate)
        return peer.identity


def _is_open(path: str) -> bool:
    return path in _OPEN_TO_ALL or is_of_page(path)


def _in_one_case(authorization: str | None) -> str | None:
    """The scheme of HTTP's header may be written as one likes."""
    if authorization is None:
        return None
    scheme, _, secret = authorization.partition(" ")
    return f"{scheme.capitalize()} {secret.strip()}"
