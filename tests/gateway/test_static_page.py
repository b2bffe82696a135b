"""What the page is served with, who may have it, and what it is told of texts and of the fleet, without a browser."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import httpx

from dragoman.gateway_backend import verifier_backend
from gateway.settings import GatewaySettings
from gateway.told_chunk import told_chunk
from speculation.protocol.generation import Chunk
from speculation.source import SourceKind
from speculation.text.text_stream import TextRun
from tests.support.certificates import TestAuthority
from tests.support.gateways import STORY, Front, events_of, front, gateway_to
from tests.support.repository import ROOT
from tests.support.service_drivers import WAITING, drafting, eventually, serving
from tests.support.text_engine import TextDrafter, TextEngine

PAGE = ROOT / "gateway" / "page"
TELLING = {"stream": True, "stream_options": {"include_speculation": True, "include_usage": True}}


async def test_every_file_is_served_and_may_load_nothing_from_elsewhere():
    async with front() as fronted:
        names = ["/", *(f"/page/{file.name}" for file in PAGE.iterdir() if file.name != "index.html")]
        for name in names:
            answer = await fronted.http.get(name)
            policy = answer.headers["content-security-policy"]
            assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
            assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
            again = await fronted.http.get(name, headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304 and not again.content
        assert (await fronted.http.get("/page/../app.py")).status_code == 404
        assert (await fronted.http.get("/page/%2e%2e/app.py")).status_code == 404
        assert (await fronted.http.post("/")).status_code == 405


async def test_an_operator_may_leave_it_out():
    async with front(settings=GatewaySettings(page=False)) as fronted:
        assert (await fronted.http.get("/")).status_code == 404
        assert (await fronted.http.get("/page/main.js")).status_code == 404
        assert (await fronted.complete(max_tokens=3))["choices"]


async def test_it_needs_no_key_and_what_it_asks_for_does(tmp_path: Path):
    ours = TestAuthority(tmp_path / "ours")
    (tmp_path / "tokens").write_text("")
    security = ours.one_way().model_copy(update={"tokens": str(tmp_path / "tokens")})
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=security) as (_, address),
        httpx.AsyncClient(
            base_url=f"https://{address}", verify=ssl.create_default_context(cafile=ours.ca), trust_env=False
        ) as http,
    ):
        for path, status in (("/", 200), ("/page/main.js", 200), ("/dragoman/fleet", 401), ("/v1/models", 401)):
            assert (await http.get(path)).status_code == status, path


def test_its_files_are_short_and_name_no_other_host():
    for file in PAGE.iterdir():
        text = file.read_text("utf-8")
        assert len(text.splitlines()) <= 300, file.name
        assert set(re.findall(r"https?://[^\s\"'/]+", text)) <= {"http://www.w3.org"}, file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), file.name


async def told(fronted: Front, path: str = "/v1/completions", **fields: Any) -> list[Any]:
    """The events of a stream that tells of its steps, without [DONE]."""
    response = await fronted.post(path, **{**STORY, **TELLING, **fields})
    assert response.status_code == 200, response.text
    return events_of(response.text)[:-1]


async def test_a_stream_tells_who_wrote_what_and_what_was_tried():
    async with front(plan=WAITING, adaptive=False) as fronted, drafting(fronted.verifier_address, TextDrafter()):
        await eventually(lambda: len(fronted.verifier.describe().drafters) == 1)
        *chunks, totals = await told(fronted, max_tokens=120)
        steps = [chunk["speculation"] for chunk in chunks if "speculation" in chunk]
        written = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        assert written == (await fronted.complete(max_tokens=120))["choices"][0]["text"]
        for chunk in chunks:
            if "speculation" in chunk:
                runs = chunk["speculation"]["runs"]
                assert "".join(run["text"] for run in runs) == chunk["choices"][0]["text"]
        sources = {run["source"] for step in steps for run in step["runs"]}
        assert {"target", "drafter"} <= sources <= {"target", "drafter", "lookup", "recycled"}
        assert sum(step["tokens"] for step in steps) == totals["usage"]["completion_tokens"] == 120
        for name in ("draft_tokens", "accepted_tokens"):
            assert sum(step[name] for step in steps) == totals["speculation"][name]
        assert len(steps) == totals["speculation"]["steps"]
        assert any(step["rejected"] for step in steps)
        for step in steps:
            assert step["accepted_tokens"] <= step["positions"] <= step["draft_tokens"]
            assert not (step["rejected"] and step["accepted_tokens"] == step["draft_tokens"])
            assert step["plan"]["width"] >= 0
        assert any(step["round_trip_ms"] is not None for step in steps)


async def test_who_does_not_ask_is_told_nothing():
    async with front() as fronted, drafting(fronted.verifier_address, TextDrafter()):
        *chunks, _ = await told(fronted, max_tokens=20, stream_options={"include_usage": True})
        assert all("speculation" not in chunk for chunk in chunks)


async def test_of_a_verifier_that_tells_of_no_steps_who_wrote_what_is_told():
    chunk = Chunk((TextRun(b"a", True, SourceKind.LOOKUP), TextRun(b"b", False)), (1, 2))
    runs = [{"text": "a", "source": "lookup"}, {"text": "b", "source": "target"}]
    shown = told_chunk(1, chunk, [("a", SourceKind.LOOKUP), ("b", None), ("", None)])
    assert shown == {"index": 1, "tokens": 2, "runs": runs}


async def test_chats_and_several_choices_tell_as_well():
    async with front() as fronted:
        body = {"messages": [{"role": "user", "content": "hello"}], "prompt": None, "n": 2, "max_tokens": 10}
        *chunks, _ = await told(fronted, "/v1/chat/completions", **body)
        tokens = [0, 0]
        for chunk in chunks:
            if "speculation" in chunk:
                assert chunk["speculation"]["index"] == chunk["choices"][0]["index"]
                tokens[chunk["speculation"]["index"]] += chunk["speculation"]["tokens"]
        assert tokens == [10, 10]


async def test_the_fleet_of_one_verifier():
    async with front() as fronted, drafting(fronted.verifier_address, TextDrafter()):
        await eventually(lambda: len(fronted.verifier.describe().drafters) == 1)
        body = (await fronted.http.get("/dragoman/fleet")).json()
        (verifier,), (drafter,) = body["verifiers"], body["drafters"]
        assert verifier["model"] == TextEngine.name and verifier["sessions"] == 0
        assert drafter["name"] == "d" and drafter["drafts_for"] == [0]
        assert str(fronted.verifier_address) not in str(body)
