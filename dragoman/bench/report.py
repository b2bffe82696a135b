"""The result of a benchmark as people read it, arranged as `vllm bench serve` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from dragoman.bench.figures import METRICS
from dragoman.bench.percentiles import rank_name
from speculation.plural import count_of

_WIDTH: Final = 50
_LABEL: Final = 41
#: Different failures that are shown.
_FAILURES: Final = 5


def show(result: dict[str, Any], errors: Sequence[str], console: Console) -> None:
    """``errors``: of requests that failed."""
    for line in _lines(result):
        console.print(line, soft_wrap=True)
    for error, count in Counter(errors).most_common(_FAILURES):
        console.print(Text.assemble((f"{count_of(count, 'request')} failed: ", "bold red"), error), soft_wrap=True)


def _lines(result: dict[str, Any]) -> Iterator[Text]:
    yield _ruled(" Serving Benchmark Result ", "=")
    for label, key, form in (
        ("Successful requests:", "completed", "d"),
        ("Failed requests:", "failed", "d"),
        ("Maximum request concurrency:", "max_concurrency", "d"),
        ("Request rate configured (RPS):", "request_rate", ".2f"),
        ("Benchmark duration (s):", "duration", ".2f"),
        ("Total input tokens:", "total_input_tokens", "d"),
        ("Total generated tokens:", "total_output_tokens", "d"),
        ("Request throughput (req/s):", "request_throughput", ".2f"),
        ("Request goodput (req/s):", "request_goodput", ".2f"),
        ("Output token throughput (tok/s):", "output_throughput", ".2f"),
        ("Total token throughput (tok/s):", "total_token_throughput", ".2f"),
    ):
        if result.get(key) not in (None, "inf"):
            yield _line(label, result[key], form)
    yield from _latencies(result)
    yield from _speculation(result)
    if "compare" in result:
        yield from _comparison(result["compare"])
    yield Text("=" * _WIDTH)


def _latencies(result: dict[str, Any]) -> Iterator[Text]:
    for metric, words in METRICS.items():
        if f"mean_{metric}_ms" not in result:
            continue
        yield _ruled(words, "-")
        for key, word in (("mean", "Mean"), ("median", "Median"), *_ranks(result, metric)):
            yield _line(f"{word} {metric.upper()} (ms):", result[f"{key}_{metric}_ms"], ".2f")


def _ranks(result: dict[str, Any], metric: str) -> Iterator[tuple[str, str]]:
    for rank in result["metric_percentiles"]:
        yield rank_name(rank), rank_name(rank).upper()


def _speculation(result: dict[str, Any]) -> Iterator[Text]:
    if "spec_decode_num_drafts" not in result:
        return
    yield _ruled("Speculative Decoding", "-")
    yield _line("Acceptance rate (%):", result["spec_decode_acceptance_rate"], ".2f")
    yield _line("Acceptance length:", result["spec_decode_acceptance_length"], ".2f")
    yield _line("Verify steps:", result["spec_decode_num_drafts"], "d")
    yield _line("Draft tokens:", result["spec_decode_draft_tokens"], "d")
    yield _line("Accepted tokens:", result["spec_decode_accepted_tokens"], "d")
    positions = result["spec_decode_per_position_acceptance_rates"]
    if positions:
        yield Text("Per-position acceptance (%):")
        for position, share in enumerate(positions):
            yield _line(f"  Position {position}:", share * 100, ".2f")


def _comparison(found: dict[str, Any]) -> Iterator[Text]:
    yield _ruled("With Drafters over Without", "-")
    yield _line("Pairs:", found["pairs"], "d")
    for name, words in (("speed_up", "speed-up"), ("tpot_speed_up", "TPOT speed-up")):
        for key, word in (("median", "Median"), ("p25", "P25"), ("p75", "P75"), ("worst", "Worst")):
            yield _line(f"{word} {words}:", found.get(f"{key}_{name}"), ".2f", "x")
    same = f"{found['identical_texts']} of {found['pairs']}"
    style = "green" if found["identical_texts"] == found["pairs"] else "bold red"
    yield Text.assemble(f"{'Identical texts:':<{_LABEL}}", (same, style))


def _ruled(title: str, rule: str) -> Text:
    return Text(f"{title:{rule}^{_WIDTH}}", style="bold")


def _line(label: str, value: float | None, form: str, unit: str = "") -> Text:
    return Text(f"{label:<{_LABEL}}" + ("-" if value is None else f"{value:{form}}{unit}"))
