"""The page for browsers: files that are part of the package, and headers that let it load nothing from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import Response

_HOME, _FOLDER = "/", "/page/"
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
#: A text that a model wrote can neither run as a script nor have anything loaded, and nobody may frame the page.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Asked for at every visit, and sent again only if it changed: another release has other files of the same names.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, file: Traversable) -> _File:
        content = file.read_bytes()
        digest = hashlib.blake2b(content, digest_size=12).hexdigest()
        return cls(content, _TYPES[file.name.rpartition(".")[2]], f'"{digest}"')

    def response(self, known: str | None) -> Response:
        """``known``: what the browser says that it has."""
        headers = {**_HEADERS, "etag": self.etag}
        if known is not None and self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def is_of_page(path: str) -> bool:
    """Whether that is where the page or one of its files is."""
    return path == _HOME or path.startswith(_FOLDER)


def add_page(app: FastAPI) -> None:
    """At ``/``, its files below ``/page/``."""
    folder = resources.files("gateway") / "page"
    files = {file.name: _File.read(file) for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}
    home = files.pop("index.html")

    def route(path: str, file: _File) -> None:
        async def page(request: Request) -> Response:
            return file.response(request.headers.get("if-none-match"))

        app.add_api_route(path, page, methods=["GET", "HEAD"], response_model=None, include_in_schema=False)

    route(_HOME, home)
    for name, file in files.items():
        route(f"{_FOLDER}{name}", file)
