"""One trace of a request: from the caller's span through the gateway and a verifier to its drafters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import Tensor

from benchmarks.ports import free_port
from gateway.settings import GatewaySettings
from speculation.errors import SessionError
from speculation.protocol.messages import SpeculationPlan
from tests.support.collectors import CONSUMER, SERVER, CollectedSpan, traced_here
from tests.support.gateways import STORY, Front, events_of, front
from tests.support.service_drivers import drafters, drafting, eventually
from tests.support.text_engine import TextEngine, TextSlot
from transport.tracing import start_tracing, stop_tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
#: Steps wait for the drafter, so that it contributes.
WAITING = SpeculationPlan(width=4, lookahead=6, stop_threshold=0.0, span_tokens=2, patience=10.0)
SECRET = "the-prompt-is-nobodys-business"


def named(spans: list[CollectedSpan], kind: str) -> list[CollectedSpan]:
    """Of the gateway, of verifiers, of drafters; by what each alone tells."""
    own = {"gateway": "http.route", "verifier": "rpc.method", "drafter": "dragoman.drafter.model"}
    return [span for span in spans if own[kind] in span.attributes]


async def asked(there: Front, *, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    response = await there.http.post("/v1/completions", json=STORY | fields, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def test_one_trace_goes_from_the_caller_to_the_drafter():
    with traced_here() as collector:
        async with front(plan=WAITING, adaptive=False, lookup=False) as there, drafting(there.verifier_address):
            await drafters(there.verifier, 1)
            body = await asked(there, headers=CALLER, max_tokens=60)
            await eventually(lambda: not there.verifier.sessions)
    (gateway,), (verifier,), (drafter,) = (named(collector.spans, kind) for kind in ("gateway", "verifier", "drafter"))
    assert {span.trace for span in collector.spans} == {TRACE}
    assert (gateway.parent, verifier.parent, drafter.parent) == (SPAN, gateway.id, verifier.id)
    assert (gateway.state, verifier.state, drafter.state) == ("vendor=1", "vendor=1", "")
    assert (gateway.kind, verifier.kind, drafter.kind) == (SERVER, SERVER, CONSUMER)
    assert gateway.began <= verifier.began <= drafter.began and verifier.ended <= gateway.ended
    assert gateway.name == verifier.name == f"text_completion {TextEngine.name}"
    assert not any(span.failed for span in collector.spans)
    told = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "dragoman",
        "gen_ai.request.model": TextEngine.name,
        "gen_ai.request.max_tokens": 60,
        "gen_ai.request.temperature": 0.8,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.usage.input_tokens": body["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": 60,
        "gen_ai.response.finish_reasons": ["length"],
    }
    assert told.items() <= verifier.attributes.items()
    told |= {"http.route": "/v1/completions", "http.response.status_code": 200, "gen_ai.request.stream": False}
    assert told.items() <= gateway.attributes.items()


async def test_each_round_is_an_event_and_the_sums_are_of_all_rounds():
    with traced_here() as collector:
        async with front(plan=WAITING, adaptive=False) as there, drafting(there.verifier_address):
            await drafters(there.verifier, 1)
            await asked(there, max_tokens=60)
            await eventually(lambda: not there.verifier.sessions)
    (verifier,), (drafter,) = named(collector.spans, "verifier"), named(collector.spans, "drafter")
    rounds, sums = [event.attributes for event in verifier.events], verifier.attributes
    assert {event.name for event in verifier.events} == {"dragoman.round"}
    assert [each["dragoman.step"] for each in rounds] == list(range(1, sums["dragoman.steps"] + 1))
    assert sum(each["dragoman.committed_tokens"] for each in rounds) == 60
    for name in ("dragoman.draft_tokens", "dragoman.accepted_tokens"):
        assert sum(each[name] for each in rounds) == sums[name] > 0
        for each in [*rounds, sums]:
            assert sum(each.get(f"{name}_per_source", ())) == each[name]
    assert sums["dragoman.drafters"] == 1 and sums["dragoman.rule"] == "race"
    assert {"drafter d"} <= set(sums["dragoman.sources"]) <= {"drafter d", "lookup", "recycled"}
    assert all(each["dragoman.step_seconds"] > 0 and each["dragoman.plan.width"] == 4 for each in rounds)
    assert all(verifier.began <= event.at <= verifier.ended for event in verifier.events)
    assert drafter.attributes["dragoman.verdicts"] == len(drafter.events) <= len(rounds)
    assert sum(event.attributes["dragoman.accepted_tokens"] for event in drafter.events) > 0
    assert drafter.attributes["dragoman.sent_tokens"] > 0


@pytest.mark.parametrize("value", ["nonsense", CALLER["traceparent"] + "0", f"00-{TRACE}-{'0' * 16}-01"])
async def test_a_malformed_traceparent_is_ignored(value: str):
    with traced_here() as collector:
        async with front() as there:
            await asked(there, headers={"traceparent": value}, max_tokens=2)
    (gateway,), (verifier,) = named(collector.spans, "gateway"), named(collector.spans, "verifier")
    assert gateway.parent == "" and gateway.trace != TRACE
    assert (verifier.trace, verifier.parent) == (gateway.trace, gateway.id)


async def test_no_span_holds_a_text_or_a_seed():
    """Of requests that go well, and of those whose errors quote them."""
    seed = 0x5EED_5EED_5EED
    with traced_here() as collector:
        async with front() as there, drafting(there.verifier_address):
            await drafters(there.verifier, 1)
            messages = [{"role": "user", "content": SECRET}]
            chat = {"model": TextEngine.name, "messages": messages, "max_tokens": 20, "seed": seed, "stop": [SECRET]}
            answers = [await there.post("/v1/chat/completions", **chat)]
            answers.append(await there.post("/v1/completions", **STORY | {"prompt": SECRET, "max_tokens": -1}))
            answers.append(await there.post("/v1/completions", **STORY | {"prompt": SECRET, "model": SECRET}))
            guide = {"structured_outputs": {"regex": f"({SECRET}"}}
            answers.append(await there.post("/v1/completions", **STORY | {"prompt": SECRET} | guide))
            await eventually(lambda: not there.verifier.sessions)
    assert [answer.status_code for answer in answers] == [200, 400, 404, 400]
    text = answers[0].json()["choices"][0]["message"]["content"].encode()
    assert len(named(collector.spans, "gateway")) == 4 and len(text) > 8
    for secret in (SECRET.encode(), SECRET.lower().encode(), text, text[:8], str(seed).encode()):
        assert secret not in collector.raw
    assert seed not in [value for span in collector.spans for value in span.attributes.values()]


async def test_what_fails_is_told_by_its_class(monkeypatch: pytest.MonkeyPatch):
    def step(batch: object) -> list[Tensor]:
        raise SessionError(SECRET)

    with traced_here() as collector:
        engine = TextEngine()
        async with front(engine) as there:
            refused = await there.post("/v1/completions", **STORY | {"max_tokens": 4, "logit_bias": {"99999": 1}})
            monkeypatch.setattr(engine, "step", step)
            failed = await there.post("/v1/completions", **STORY | {"max_tokens": 4})
    assert (refused.status_code, failed.status_code) == (400, 502)
    asked_badly, broken = named(collector.spans, "gateway")
    refusing, *breaking = named(collector.spans, "verifier")
    assert not asked_badly.failed and asked_badly.attributes["error.type"] == "InputError"
    assert not refusing.failed and refusing.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert broken.failed and broken.attributes["http.response.status_code"] == 502
    assert len(breaking) > 1 and {span.parent for span in breaking} == {broken.id}  # it was tried again
    for span in breaking:
        assert span.failed and span.attributes["gen_ai.response.finish_reasons"] == ["error"]
        assert span.attributes["error.type"] == "SessionError"
    assert SECRET.encode() not in collector.raw


async def test_what_the_prefix_cache_had_of_a_prompt_is_told(monkeypatch: pytest.MonkeyPatch):
    with traced_here() as collector:
        async with front() as there:
            await asked(there, max_tokens=3)
            monkeypatch.setattr(TextSlot, "shared_positions", 5)
            await asked(there, max_tokens=3)
    told = [span.attributes.get("gen_ai.usage.cache_read.input_tokens") for span in named(collector.spans, "verifier")]
    assert told == [None, 5]


async def test_a_client_that_leaves_ends_all_spans():
    with traced_here() as collector:
        async with front(TextEngine(step_seconds=0.01)) as there, drafting(there.verifier_address):
            await drafters(there.verifier, 1)
            body = STORY | {"max_tokens": 5000, "stream": True}
            async with there.http.stream("POST", "/v1/completions", json=body) as response:
                async for _ in response.aiter_lines():
                    break
            await eventually(lambda: not there.verifier.sessions)
    (gateway,), (verifier,), (drafter,) = (named(collector.spans, kind) for kind in ("gateway", "verifier", "drafter"))
    assert gateway.attributes["gen_ai.response.finish_reasons"] == ["abort"]
    assert gateway.attributes["gen_ai.request.stream"] is True
    assert verifier.attributes["gen_ai.response.finish_reasons"] == ["abort"]
    assert verifier.attributes["rpc.response.status_code"] == "CANCELLED" and drafter.parent == verifier.id


async def test_each_text_of_a_request_has_a_span_at_its_verifier():
    with traced_here() as collector:
        async with front() as there:
            body = await asked(there, prompt=["a story: ", "another: "], n=2, max_tokens=3)
            response = await there.post("/v1/completions", **STORY | {"max_tokens": 3, "stream": True})
    *_, streamed = events_of(response.text)
    assert streamed == "[DONE]" and len(body["choices"]) == 4
    first, second = named(collector.spans, "gateway")
    assert first.attributes["gen_ai.request.choice.count"] == 2
    assert first.attributes["gen_ai.response.finish_reasons"] == ["length"] * 4
    assert first.attributes["gen_ai.usage.output_tokens"] == 12 == body["usage"]["completion_tokens"]
    assert first.attributes["gen_ai.usage.input_tokens"] == body["usage"]["prompt_tokens"]
    parents = [span.parent for span in named(collector.spans, "verifier")]
    assert sorted(parents) == sorted([first.id] * 4 + [second.id])


async def test_only_requests_for_texts_have_spans():
    with traced_here() as collector:
        async with front(settings=GatewaySettings(page=False)) as there:
            for path in ("/health", "/metrics", "/v1/models", "/v1/completions", "/nowhere"):
                await there.http.get(path)
            await there.post("/tokenize", prompt="x")
    assert collector.spans == []


async def test_the_text_is_the_same_with_and_without_and_with_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch):
    async def text() -> str:
        async with front(plan=WAITING, adaptive=False) as there, drafting(there.verifier_address):
            await drafters(there.verifier, 1)
            body = await asked(there, headers=CALLER, max_tokens=40)
            return json.dumps(body["choices"])

    plain = await text()
    with traced_here() as collector:
        recorded = await text()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    start_tracing("test", f"http://127.0.0.1:{free_port()}")
    unheard = await text()
    stop_tracing(0.0)
    assert plain == recorded == unheard and len(collector.spans) == 3
