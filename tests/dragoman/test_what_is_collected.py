"""What a verifier and a gateway that run export: docs, dashboard and rules name that, and the docs name all of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.ports import free_port
from dragoman.gateway_backend import verifier_backend
from dragoman.metrics_page import metrics_page
from tests.support.gateways import STORY, clients_of, gateway_to
from tests.support.scrapes import collect
from tests.support.service_drivers import drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine
from verifier_service.instruments import PrometheusInstruments
from verifier_service.metrics import VerifierMetrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "grafana.json").read_text("utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
OF_VERIFIERS = [expression for expression in EXPRESSIONS if "dragoman_gateway_" not in expression]
ALERTS = ROOT / "deploy" / "kubernetes" / "components" / "monitoring" / "alerts.yaml"
RULES = yaml.safe_load(ALERTS.read_text("utf-8"))["spec"]["groups"][0]["rules"]
_ROW = re.compile(r"^\| `((?:vllm:|dragoman_)\w+)`((?: `\w+`)*) \| (counter|gauge|histogram) \|", re.MULTILINE)

#: Type by name, and labels, of all that is exported, with a counter's ``_total``; and all names of samples.
Scraped = tuple[dict[str, tuple[str, frozenset[str]]], set[str]]


def read(page: str) -> Scraped:
    kinds: dict[str, tuple[str, frozenset[str]]] = {}
    samples: set[str] = set()
    for family in text_string_to_metric_families(page):
        if family.name.endswith("_created") or family.name.startswith("process_"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        assert name not in kinds
        kinds[name] = family.type, labels
        samples |= {sample.name for sample in family.samples}
    return kinds, samples


@pytest.fixture(scope="module")
def scraped() -> Scraped:
    """Both pages, over HTTP, after a text."""
    return asyncio.run(_scrape())


async def _scrape() -> Scraped:
    port = free_port()
    with metrics_page("127.0.0.1", port, asyncio.get_running_loop()) as instruments_of:
        instruments = instruments_of(TextEngine.name, "v")
        async with (
            serving(TextEngine(), instruments=instruments) as (verifier, at),
            drafting(at),
            verifier_backend(at) as backend,
            gateway_to(backend) as (_, address),
            clients_of(address) as (_, http, _),
        ):
            await drafters(verifier, 1)
            response = await http.post("/v1/completions", json={**STORY, "max_tokens": 20})
            assert response.status_code == 200
            await eventually(lambda: not verifier.sessions)
            front = (await http.get("/metrics")).text
            page = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
    (of_verifier, some), (of_gateway, others) = read(page), read(front)
    assert not of_verifier.keys() & of_gateway.keys(), "a sum over both pages counts nothing twice"
    return of_verifier | of_gateway, some | others


def _get(url: str) -> str:
    return httpx.get(url, trust_env=False, timeout=60).text


def test_the_docs_have_a_line_for_everything_and_for_nothing_else(scraped: Scraped):
    rows = _ROW.findall((ROOT / "docs" / "operations.md").read_text("utf-8"))
    assert len(rows) == len({name for name, _, _ in rows})
    always = frozenset({"model_name", "engine", "replica"})
    told = {name: (kind, frozenset(re.findall(r"\w+", labels))) for name, labels, kind in rows}
    found = {
        name: (kind, labels - always if always <= labels else labels) for name, (kind, labels) in scraped[0].items()
    }
    assert told == found


def selected(expression: str) -> Iterator[str]:
    """Patterns of the names that it selects."""
    yield from re.findall(r'__name__=~"([^"]+)"', expression)
    yield from re.findall(r"(?:dragoman_|vllm:)\w+", re.sub(r'__name__=~"[^"]+"', "", expression))


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *(rule["expr"] for rule in RULES)])
def test_what_dashboard_and_rules_ask_for_is_there(scraped: Scraped, expression: str):
    patterns = list(selected(expression))
    assert patterns
    for pattern in patterns:
        found = {name for name in scraped[1] if re.fullmatch(pattern, name)}
        assert len(found) == 1, f"{pattern} is {found or 'nothing'}"


def test_the_docs_show_queries_of_what_is_there(scraped: Scraped):
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    asked = {name for block in blocks for name in selected(block)}
    assert asked and asked <= scraped[1]


def test_the_rules_say_what_is_wrong():
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 5
    assert all(rule["annotations"]["summary"] for rule in RULES)


def test_the_dashboard_shows_what_matters():
    """Requests, drafters, acceptance, plan, memory and speed."""
    shown = " ".join(EXPRESSIONS)
    for name in (
        *("num_requests_running", "num_requests_waiting", "generation_tokens_total", "kv_cache_usage_perc"),
        *("spec_decode_num_accepted_tokens_total", "spec_decode_num_accepted_tokens_per_source_total"),
        *("plan_width", "plan_lookahead", "drafters_connected", "time_to_first_token_seconds_bucket"),
    ):
        assert name in shown
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["title"] for panel in DASHBOARD["panels"]})


def test_the_dashboard_shows_plain_verifiers_and_those_on_ray_without_being_told():
    """On Ray a colon is an underscore, and all names begin with ``ray_``."""
    for expression in OF_VERIFIERS:
        patterns = re.findall(r'\{__name__=~"([^"]+)"\}', expression)
        assert patterns and patterns == list(selected(expression))
        for pattern in patterns:
            name = pattern.removeprefix("(ray_)?")
            plain = name.replace("[:_]", ":")
            assert re.fullmatch(pattern, plain) and re.fullmatch(pattern, "ray_" + plain.replace(":", "_"))


def test_two_verifiers_of_one_model_are_two_series_on_the_dashboard():
    """Also two of one name, which Prometheus tells apart by where it found them."""
    grouped = [re.findall(r"\bby \(([^)]*)\)", expression) for expression in OF_VERIFIERS]
    assert all(grouped), "every figure is summed by something"
    kept = {frozenset(re.split(r",\s*", labels)) for groups in grouped for labels in groups}
    for named, scraped in (({"replica": "one"}, {"instance": "a:9100"}), ({"replica": "one"}, {"instance": "b:9100"})):
        for other in ({"replica": "two", "instance": "a:9100"}, {"replica": "one", "instance": "c:9100"}):
            mine = {"model_name": "target", **named, **scraped}
            theirs = {"model_name": "target", **other}
            assert all(any(mine.get(key) != theirs.get(key) for key in labels) for labels in kept)
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            named = {"{{instance}}"} if target["expr"] not in OF_VERIFIERS else {"{{replica}}", "{{instance}}"}
            assert named <= set(re.findall(r"\{\{\w+\}\}", target["legendFormat"]))
    registries = [CollectorRegistry(), CollectorRegistry()]
    for registry, name in zip(registries, ("one", "two"), strict=True):
        VerifierMetrics(PrometheusInstruments(registry, "target", name), engine=TextEngine(), sessions={})
    assert [collect(registry).replicas for registry in registries] == [{"one"}, {"two"}]
