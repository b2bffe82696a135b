"""Web pages from elsewhere: what a browser asks first, and what it is told (CORS)."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest

from dragoman.gateway_backend import verifier_backend
from dragoman.settings_options import settings_from
from gateway.settings import GatewaySettings
from speculation.errors import InputError
from tests.support.certificates import TestAuthority
from tests.support.gateways import STORY, front, gateway_to
from tests.support.service_drivers import PATIENCE, serving
from tests.support.text_engine import TextEngine
from transport.identity import Identity, Role
from transport.tokens import new_token

PAGE, ELSEWHERE = "https://chat.example", "https://other.example"
ALLOWED = "access-control-allow-origin"
BODY = {**STORY, "max_tokens": 3}


async def first_asked(http: httpx.AsyncClient, origin: str) -> httpx.Response:
    """What a browser asks before it sends a request of a page, without any key."""
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return await http.options("/v1/completions", headers={"origin": origin, **wanted})


async def test_no_page_from_elsewhere_may_ask_by_default():
    async with front() as served:
        assert ALLOWED not in (await first_asked(served.http, PAGE)).headers
        answered = await served.http.post("/v1/completions", json=BODY, headers={"origin": PAGE})
        assert answered.status_code == 200 and ALLOWED not in answered.headers, "programs may say what they like"


async def test_pages_of_allowed_origins_may_and_others_may_not():
    settings = GatewaySettings(allowed_origins=[PAGE, "http://localhost:3000"])
    async with front(settings=settings) as served:
        may = await first_asked(served.http, PAGE)
        assert may.status_code == 200 and may.headers[ALLOWED] == PAGE
        assert "POST" in may.headers["access-control-allow-methods"]
        assert "authorization" in may.headers["access-control-allow-headers"]
        may_not = await first_asked(served.http, ELSEWHERE)
        assert may_not.status_code == 400 and ALLOWED not in may_not.headers
        for body in (BODY, BODY | {"stream": True}, BODY | {"max_tokens": -1}):
            answered = await served.http.post("/v1/completions", json=body, headers={"origin": PAGE})
            assert answered.headers[ALLOWED] == PAGE, "or the page could not even read the error"
            assert "retry-after" in answered.headers["access-control-expose-headers"]
        refused = await served.http.post("/v1/completions", json=BODY, headers={"origin": ELSEWHERE})
        assert ALLOWED not in refused.headers


async def test_a_key_is_asked_for_all_the_same(tmp_path: Path):
    secret, token = new_token(Identity(Role.CLIENT, "anna"))
    (tmp_path / "tokens").write_text(f"{token.line}\n")
    ours = TestAuthority(tmp_path / "ours")
    security = ours.one_way().model_copy(update={"tokens": str(tmp_path / "tokens")})
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, settings=GatewaySettings(allowed_origins=["*"]), security=security) as (_, address),
        httpx.AsyncClient(
            base_url=f"https://{address}",
            verify=ssl.create_default_context(cafile=ours.ca),
            trust_env=False,
            timeout=PATIENCE,
        ) as http,
    ):
        assert (await first_asked(http, ELSEWHERE)).headers[ALLOWED] == "*"
        keyless = await http.post("/v1/completions", json=BODY, headers={"origin": ELSEWHERE})
        assert keyless.status_code == 401 and keyless.headers[ALLOWED] == "*"
        headers = {"origin": ELSEWHERE, "authorization": f"Bearer {secret}"}
        assert (await http.post("/v1/completions", json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "chat.example",
        f"{PAGE}/",
        f"{PAGE}/page",
        f"{PAGE}:99999",
        "ftp://chat.example",
        "HTTPS://chat.example",
        "null",
        "",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str):
    with pytest.raises(InputError, match="is no origin of a web page: write https") as refused:
        settings_from(GatewaySettings, allowed_origins=[PAGE, origin])
    assert refused.value.field == "allowed-origins"


@pytest.mark.parametrize("origin", ["https://chat.example:443", "http://localhost:80"])
def test_a_port_that_browsers_leave_out_is_refused(origin: str):
    with pytest.raises(InputError, match=f"browsers leave out: write {origin.rpartition(':')[0]}$"):
        settings_from(GatewaySettings, allowed_origins=[origin])


@pytest.mark.parametrize("origin", ["*", PAGE, "http://localhost:3000", "http://[::1]:8080", "https://192.168.1.7"])
def test_origins(origin: str):
    assert GatewaySettings(allowed_origins=[origin]).allowed_origins == [origin]
