"""`dragoman plan`: the cost model on paper, for machines that one does not have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from dragoman.plot_file import check_plot, save_figure
from dragoman.record_table import record_table
from speculation.errors import InputError
from speculation.planning.best_plan import best_plan, break_even_round_trip
from speculation.planning.cost_model import PairCosts, predict, predict_synchronous
from speculation.plural import count_of
from speculation.protocol.messages import SpeculationPlan
from transport.durations import parse_duration, show_duration

#: Round trips beside the asked one, in seconds.
ROUND_TRIPS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
SYNCHRONOUS_WIDTHS = range(1, 17)


def plan(
    target_step: Annotated[str | None, typer.Option(help="Time of a verify step of the target, 25ms")] = None,
    draft_token: Annotated[str | None, typer.Option(help="Time of the drafter per token, 4ms")] = None,
    acceptance: Annotated[float | None, typer.Option(help="Chance that a draft token is accepted, 0..1")] = None,
    rtt: Annotated[str, typer.Option(help="Round trip between them, 40ms")] = "0ms",
    step_per_token: Annotated[
        str | None, typer.Option(help="What each draft token adds to a step  [default: 1 % of the step]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw speed-up against round trip into this .png or .svg")] = None,
    kubernetes: Annotated[
        Path | None, typer.Option(help="Instead: requests and limits of each group of this fleet file")
    ] = None,
    context: Annotated[int, typer.Option(help="With --kubernetes: tokens of a session", min=1, max=10_000_000)] = 4096,
) -> None:
    """The best plan for two machines and a distance, what to expect of it, and where it stops paying; or, for a fleet
    file, what its replicas ask of Kubernetes."""
    if kubernetes is not None:
        from dragoman.kubernetes_plan import show_resources

        show_resources(kubernetes, context=context, as_json=as_json)
        return
    if target_step is None or draft_token is None or acceptance is None:
        given = {"target-step": target_step, "draft-token": draft_token, "acceptance": acceptance}
        missing = next(name for name, value in given.items() if value is None)
        raise InputError(missing, None, "is missing", remedy=f"add --{missing}; see `dragoman plan --help`")
    step = parse_duration("target-step", target_step)
    if not step:
        raise InputError(
            "target-step", target_step, "must be above 0", remedy="give the time of one step of the target"
        )
    costs = PairCosts(
        step=step,
        step_per_token=step / 100 if step_per_token is None else parse_duration("step-per-token", step_per_token),
        draft_token=parse_duration("draft-token", draft_token),
        round_trip=parse_duration("rtt", rtt),
        acceptance=(acceptance,),
    )
    if plot is not None:
        draw(costs, plot)
    if as_json:
        print_json(costs)
    else:
        show(costs, Console())


def synchronous(costs: PairCosts) -> tuple[int, float]:
    """The best width of drafting and waiting in turns, and its speed-up."""
    return max(((w, predict_synchronous(costs, w).speed_up) for w in SYNCHRONOUS_WIDTHS), key=lambda found: found[1])


def show(costs: PairCosts, console: Console) -> None:
    best = best_plan(costs)
    expected = predict(costs, best)
    console.print(words_of(best), highlight=False, soft_wrap=True)
    if best.width:
        console.print(
            f"expected: [bold]{expected.speed_up:.2f}x[/] the target alone, {expected.tokens_per_second:.1f} tokens/s, "
            f"{expected.tokens_per_step:.2f} tokens per step, {expected.wasted_share:.0%} of draft tokens wasted",
            highlight=False,
            soft_wrap=True,
        )
    furthest = break_even_round_trip(costs)
    if furthest is None:
        console.print("it never pays, at no distance", highlight=False)
    else:
        beyond = "at any distance up to" if furthest >= 2 else "up to a round trip of"
        console.print(f"it pays {beyond} {show_duration(furthest)}", highlight=False)
    rows = []
    for round_trip in sorted({*ROUND_TRIPS, costs.round_trip}):
        there = replace(costs, round_trip=round_trip)
        found = best_plan(there)
        width, waiting = synchronous(there)
        cells = (
            show_duration(round_trip),
            short(found),
            f"{predict(there, found).speed_up:.2f}x",
            f"{waiting:.2f}x ({width})",
        )
        rows.append([Text(cell, style="bold" if round_trip == costs.round_trip else "") for cell in cells])
    console.print()
    headings = ("speed-up", "synchronous, best width")
    console.print(record_table(console.width, ("round trip", "best plan"), headings, rows), highlight=False)


def words_of(plan: SpeculationPlan) -> str:
    if not plan.width:
        return "best plan: [bold]no speculation[/], the target alone is faster"
    patience = f", wait up to {show_duration(plan.patience)} for a draft" if plan.patience else ""
    alternatives = f", {count_of(plan.alternatives, 'alternative')}" if plan.alternatives else ""
    tokens = "draft token" if plan.width == 1 else "draft tokens"
    return (
        f"best plan: [bold]{plan.width}[/] {tokens} per step, {plan.lookahead} ahead, spans of {plan.span_tokens}, "
        f"rest below {plan.stop_threshold:g}{alternatives}{patience}"
    )


def short(plan: SpeculationPlan) -> str:
    """A plan in few characters: width/lookahead, +alternatives, w for one that waits."""
    if not plan.width:
        return "off"
    more = f"+{plan.alternatives}" if plan.alternatives else ""
    return f"{plan.width}/{plan.lookahead}{more}{' waits' if plan.patience else ''}"


def print_json(costs: PairCosts) -> None:
    import json
    from dataclasses import asdict

    best = best_plan(costs)
    width, waiting = synchronous(costs)
    found = {
        "plan": asdict(best),
        "prediction": asdict(predict(costs, best)),
        "break_even_round_trip_ms": None if (trip := break_even_round_trip(costs)) is None else trip * 1000,
        "synchronous": {"width": width, "speed_up": waiting},
    }
    print(json.dumps(found))


def draw(costs: PairCosts, path: Path) -> None:
    """Speed-up against round trip, free-running and synchronous. Raises InputError."""
    check_plot(path)
    from matplotlib.figure import Figure

    longest = max(0.16, 2 * costs.round_trip)
    trips = [longest * i / 60 for i in range(61)]
    there = [replace(costs, round_trip=trip) for trip in trips]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    milliseconds = [trip * 1000 for trip in trips]
    axes.plot(milliseconds, [predict(c, best_plan(c)).speed_up for c in there], label="adaptive, never waits", lw=2)
    axes.plot(milliseconds, [synchronous(c)[1] for c in there], label="synchronous, best width", lw=2, ls="--")
    axes.axhline(1.0, color="grey", lw=1)
    axes.axvline(costs.round_trip * 1000, color="grey", lw=1, ls=":")
    axes.set_xlabel("round trip, ms")
    axes.set_ylabel("speed-up over the target alone")
    axes.set_title(
        f"step {show_duration(costs.step)}, draft token {show_duration(costs.draft_token)}, "
        f"acceptance {costs.acceptance[0]:g}",
        fontsize=10,
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    save_figure(figure, path)
