"""Which request an answer is of, and a line of the audit log."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import httpx
import pytest

from gateway.json_bytes import json_bytes
from gateway.settings import GatewaySettings
from tests.support.gateways import MODEL, STORY, front
from transport.audit import LOGGER

BODY = {**STORY, "max_tokens": 3}
NEW = re.compile("req_[0-9a-f]{32}")
OWN = "4f1c:lb/abc-1.2_3+x="


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/completions", BODY, 200),
        ("POST", "/v1/completions", {**BODY, "stream": True}, 200),
        ("POST", "/v1/completions", {**BODY, "max_tokens": "x"}, 400),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/completions", None, 405),
        ("GET", "/health", None, 200),
    ],
)
async def test_every_answer_has_one(method: str, path: str, body: object, status: int):
    async with front() as found:
        first, second, own = [
            await found.http.request(method, path, json=body, headers=headers)
            for headers in ({}, {}, {"X-Request-ID": OWN})
        ]
        assert [each.status_code for each in (first, second, own)] == [status] * 3
        ids = [each.headers["x-request-id"] for each in (first, second)]
        assert all(map(NEW.fullmatch, ids)) and len(set(ids)) == 2
        assert own.headers.get_list("x-request-id") == [OWN]


@pytest.mark.parametrize("given", ["", "a b", 'a"', "x" * 129, "caf\xe9"])
async def test_what_could_be_taken_for_more_than_a_name_is_replaced(given: str):
    async with front() as found:
        answered = await found.http.get("/health", headers=httpx.Headers({b"x-request-id": given.encode("latin-1")}))
        assert NEW.fullmatch(answered.headers["x-request-id"])


async def test_openais_client_knows_it_and_the_audit_log_has_it(caplog: pytest.LogCaptureFixture):
    logging.getLogger(LOGGER).addHandler(caplog.handler)
    try:
        async with front(settings=GatewaySettings(max_texts_per_key=1)) as found:
            asked: Any = {"model": MODEL, "prompt": "a story", "max_tokens": 3}
            raw = found.openai.completions.with_raw_response
            told = await raw.create(**asked)
            named = await raw.create(**asked, extra_headers={"x-request-id": OWN})
    finally:
        logging.getLogger(LOGGER).removeHandler(caplog.handler)
    assert NEW.fullmatch(told.request_id or "") and named.request_id == OWN
    facts = [record.__dict__["facts"] for record in caplog.records if record.getMessage() == "texts"]
    assert [fact["request"] for fact in facts if "request" in fact] == [told.request_id, OWN]


async def test_a_page_from_elsewhere_is_shown_it():
    async with front(settings=GatewaySettings(allowed_origins=["https://chat.example"])) as found:
        answered = await found.http.get("/health", headers={"origin": "https://chat.example"})
        assert "x-request-id" in answered.headers["access-control-expose-headers"]


def test_no_reader_of_lines_breaks_an_event_in_two():
    value = {"text": "a\x85b\u2028c\u2029d\n猫\ud800"}
    line = json_bytes(value)
    assert len(line.decode().splitlines()) == 1 and json.loads(line) == value
    assert "猫".encode() in line and json_bytes({"a": [1, "b"]}) == b'{"a":[1,"b"]}'
