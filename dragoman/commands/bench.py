"""The options of `dragoman bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.bench.prompts import LOCAL_URL, Route
from dragoman.options import AsJson, Compare, Temperature
from dragoman.security_options import secured
from transport.security import Security

_MAX_TOKENS = typer.Option("--max-tokens", "--output-len", help="Tokens of each text at most", min=1)


@secured
def bench(
    base_url: Annotated[
        str | None, typer.Option(help=f"Measure the OpenAI API at this URL  [default: {LOCAL_URL}]")
    ] = None,
    verifier: Annotated[str | None, typer.Option(help="Measure the verifier at this address, over gRPC")] = None,
    coordinator: Annotated[str | None, typer.Option(help="Measure the fleet of this coordinator, over gRPC")] = None,
    model: Annotated[str, typer.Option(help="Which model, if several are served")] = "",
    endpoint: Annotated[
        Route | None,
        typer.Option(
            help="Prompts are sent as texts to be written on, or as chats; over gRPC too  [default: as the dataset is]"
        ),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Variable of the environment that has the API key", metavar="NAME")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help='JSONL file with "prompt" or "messages" in each line  [default: built-in ones]')
    ] = None,
    num_prompts: Annotated[
        int | None, typer.Option(help="Requests; prompts come again if there are fewer  [default: each once]", min=1)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the prompts' order, of arrivals and of sampling", min=0, max=(1 << 32) - 1)
    ] = 0,
    max_tokens: Annotated[int, _MAX_TOKENS] = 128,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Write all tokens, also after a text's end")] = False,
    temperature: Temperature = 0.0,
    request_rate: Annotated[
        float, typer.Option(help="Requests a second, arriving at random; inf: all at once")
    ] = float("inf"),
    burstiness: Annotated[
        float, typer.Option(help="Of arrivals: 1 is a Poisson process, below it they come in bursts")
    ] = 1.0,
    max_concurrency: Annotated[
        int | None, typer.Option(help="Requests at once at most  [default: any number]", min=1)
    ] = None,
    num_warmups: Annotated[
        int, typer.Option(help="Requests that come first and are not counted; the run ends if one fails", min=0)
    ] = 1,
    goodput: Annotated[
        list[str] | None,
        typer.Option(help="Count requests within these milliseconds: ttft:200, or 'ttft:200 tpot:20 e2el:5000'"),
    ] = None,
    percentile_metrics: Annotated[str, typer.Option(help="Which latencies to tell")] = "ttft,tpot,itl,e2el",
    metric_percentiles: Annotated[str, typer.Option(help="Which percentiles of them")] = "99",
    compare: Annotated[
        Compare | None, typer.Option(help="no-draft: each prompt with drafters and without, in turn")
    ] = None,
    as_json: AsJson = False,
    save_result: Annotated[
        Path | None, typer.Option(help="Write the JSON, with the times of each request, to this file")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw TTFT, ITL and ratios into this .png or .svg")] = None,
    *,
    security: Security,
) -> None:
    """Measure how fast an OpenAI API, a verifier or a fleet answers, and what drafters do for it."""
    from dragoman.bench.bench import run_bench
    from dragoman.bench.endpoint import TextSettings
    from dragoman.bench.endpoint_choice import Where, endpoint_of
    from dragoman.bench.goal import Goal
    from dragoman.bench.load import Load
    from dragoman.bench.prompts import for_route, read_prompts, requests_of, route_of
    from dragoman.bench.settings import BenchSettings, api_key_of, parse_metrics, parse_ranks
    from speculation.sampling.params import SamplingParams

    SamplingParams(temperature=temperature)  # raises for one that no text is sampled with
    if compare is not None and max_concurrency is None:
        max_concurrency = 1
    settings = BenchSettings(
        load=Load(request_rate, burstiness, max_concurrency, seed=seed),
        goal=Goal.parse(goodput or ()),
        metrics=parse_metrics(percentile_metrics),
        ranks=parse_ranks(metric_percentiles),
        num_warmups=num_warmups,
        compare=compare is not None,
        as_json=as_json,
        save_result=save_result,
        plot=plot,
    )
    prompts = read_prompts(dataset)
    route = endpoint or route_of(prompts)
    requests = requests_of([for_route(prompt, route) for prompt in prompts], count=num_prompts, seed=seed)
    where = Where(base_url, verifier, coordinator, model=model, api_key=api_key_of(api_key_env), security=security)
    texts = TextSettings(max_tokens, temperature=temperature, ignore_end=ignore_eos)
    raise typer.Exit(run_bench(endpoint_of(where, route, texts), requests, settings))
