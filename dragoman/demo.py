"""`dragoman demo`: a target and a drafter as processes on loopback, the same prompts with and without the drafter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from dataclasses import dataclass
from typing import Any, Unpack

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from drafter_service.loading import LOOKUP_MODEL
from dragoman.client import Client
from dragoman.loading import show_licence
from dragoman.processes import ChildProcess, child, run_with_children
from dragoman.prompts import PROMPTS
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from dragoman.terminal import err, progress_bar
from dragoman.transcript import TextOptions, check_max_tokens
from language_models.weights import check_name, resolve
from speculation.errors import DragomanError
from speculation.protocol.completion import Completion
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.sampling.params import SamplingParams

#: Without a word of text from the target, in seconds: something hangs.
QUIET_SECONDS = 600.0
HEADINGS = ("alone\ntokens/s", "drafted\ntokens/s", "ratio", "tokens\nper step", "accepted", "same\ntext")


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What to compare. ``target_threads`` and ``drafter_threads``: CPU threads of the two processes."""

    target: str
    drafter: str
    max_tokens: int
    temperature: float
    seed: int
    device: str
    target_dtype: str
    drafter_dtype: str
    target_threads: int
    drafter_threads: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt, answered by the target alone and with the drafter."""

    prompt: Prompt
    alone: Completion
    drafted: Completion

    @property
    def identical(self) -> bool:
        return self.alone.data == self.drafted.data and self.alone.token_ids == self.drafted.token_ids

    @property
    def ratio(self) -> float | None:
        """Decoding speed with the drafter over that without."""
        if self.alone.tpot is None or not self.drafted.tpot:
            return None
        return self.alone.tpot / self.drafted.tpot

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": title(self.prompt),
            "identical": self.identical,
            "ratio": self.ratio,
            "alone": self.alone.to_json(),
            "drafted": self.drafted.to_json(),
        }


def _seconds_per_token(completions: list[Completion]) -> float | None:
    tokens = sum(completion.decode_tokens for completion in completions)
    return sum(completion.decode_seconds for completion in completions) / tokens if tokens else None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """All prompts; totals weigh each token alike."""

    comparisons: list[Comparison]

    @property
    def identical(self) -> bool:
        return all(comparison.identical for comparison in self.comparisons)

    @property
    def speed_up(self) -> float | None:
        """Decoding time per token of all prompts alone over that with the drafter."""
        alone = _seconds_per_token([comparison.alone for comparison in self.comparisons])
        drafted = _seconds_per_token([comparison.drafted for comparison in self.comparisons])
        return alone / drafted if alone is not None and drafted else None

    def to_json(self) -> dict[str, Any]:
        ratios = [c.ratio for c in self.comparisons if c.ratio is not None]
        return {
            "identical": self.identical,
            "speed_up": self.speed_up,
            "median_ratio": statistics.median(ratios) if ratios else None,
            "prompts": [comparison.to_json() for comparison in self.comparisons],
        }


def title(prompt: Prompt) -> str:
    """The first line of what is asked."""
    text = prompt.text if prompt.text is not None else prompt.messages[-1].content
    return text.strip().splitlines()[0]


def run_demo(config: DemoConfig, *, as_json: bool) -> bool:
    """Run and show it; returns whether every text was identical. Raises DragomanError."""
    check_max_tokens(config.max_tokens)
    models = [config.target, *([config.drafter] if config.drafter != LOOKUP_MODEL else [])]
    for model in models:
        check_name(model)
    for model in models:
        show_licence(model)
        with progress_bar() as progress:  # converting is slow and belongs on this terminal, not a child's
            resolve(model, progress=progress)
    result = run_with_children(_compare(config, quiet=as_json))
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        show(result, Console())
    return result.identical


async def _compare(config: DemoConfig, *, quiet: bool) -> DemoResult:
    async with contextlib.AsyncExitStack() as stack:
        status = None if quiet else stack.enter_context(err.status(""))

        def note(words: str) -> None:
            if status is not None:
                status.update(Text(words, no_wrap=True, overflow="ellipsis"))

        async def start(name: str, what: str, arguments: list[str]) -> tuple[ChildProcess, dict[str, Any]]:
            note(f"starting {what}")
            started = await stack.enter_async_context(child(name, arguments))
            # Why it takes so long, if it does: the child says so where nobody sees it.
            started.on_words = lambda line: note(f"starting {what}: {line}")
            said = await started.ready()
            started.on_words = lambda line: None
            return started, said

        verifier, ready = await start("verifier", f"the target, {config.target}", _verifier_arguments(config))
        address = ready["address"]
        starting = start("drafter", f"the drafter, {config.drafter}", _drafter_arguments(config, address))
        drafter, _ = await verifier.during(starting)
        client = await stack.enter_async_context(Client(address))
        sampling = SamplingParams(temperature=config.temperature, seed=config.seed)
        note("warming up")

        async def ask(prompt: Prompt, **options: Unpack[TextOptions]) -> Completion:
            return await verifier.during(drafter.during(_complete(client, verifier, prompt, **options)))

        await ask(Prompt(messages=(ChatMessage("user", "Count to ten."),)), max_tokens=12)
        comparisons = []
        for number, prompt in enumerate(PROMPTS):
            answers: dict[bool, Completion] = {}
            # In turn, so that a machine that gets slower or faster is fair to both.
            for draft in (False, True) if number % 2 else (True, False):
                arm = "with the drafter" if draft else "target alone"
                note(f"prompt {number + 1} of {len(PROMPTS)}, {arm}: {title(prompt)}")
                answers[draft] = await ask(prompt, sampling=sampling, max_tokens=config.max_tokens, draft=draft)
            comparisons.append(Comparison(prompt, alone=answers[False], drafted=answers[True]))
        return DemoResult(comparisons)


async def _complete(
    client: Client, verifier: ChildProcess, prompt: Prompt, **options: Unpack[TextOptions]
) -> Completion:
    """Raises DragomanError if no text comes for too long."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(QUIET_SECONDS) as quiet:
            return await client.complete(
                prompt, on_chunk=lambda chunk: quiet.reschedule(loop.time() + QUIET_SECONDS), **options
            )
    except TimeoutError as error:
        raise DragomanError(
            f"the target wrote nothing for {QUIET_SECONDS:g} s; the last that it said:\n{verifier.last_words}"
        ) from error


def _verifier_arguments(config: DemoConfig) -> list[str]:
    return [
        "verifier",
        f"--model={config.target}",
        "--listen=127.0.0.1:0",
        f"--device={config.device}",
        f"--dtype={config.target_dtype}",
        f"--threads={config.target_threads}",
        *TAKING_TURNS_OPTIONS,
    ]


def _drafter_arguments(config: DemoConfig, address: str) -> list[str]:
    return [
        "drafter",
        f"--model={config.drafter}",
        f"--verifier={address}",
        f"--device={config.device}",
        f"--dtype={config.drafter_dtype}",
        f"--threads={config.drafter_threads}",
    ]


def show(result: DemoResult, console: Console) -> None:
    """A table and a last line."""
    table = Table(title="The same text, target alone and with the drafter", title_justify="left", box=SIMPLE_HEAD)
    table.width = min(console.width, 110)
    table.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=1)
    for heading in HEADINGS:
        # On a narrow terminal only the prompt is cut.
        table.add_column(heading, justify="right", min_width=max(map(len, heading.splitlines())))
    for comparison in result.comparisons:
        drafted = comparison.drafted
        table.add_row(
            title(comparison.prompt),
            _number(comparison.alone.tokens_per_second, ".1f"),
            _number(drafted.tokens_per_second, ".1f"),
            _number(comparison.ratio, ".2f", "x"),
            _number(drafted.tokens_per_step, ".2f"),
            _number(drafted.drafter_acceptance_rate, ".0%"),
            _yes(comparison.identical),
        )
    console.print(table)
    line = Text.assemble("speed-up ", (_number(result.speed_up, ".2f", "x"), "bold"), ", identical: ")
    console.print(line + _yes(result.identical))


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _yes(value: bool) -> Text:
    return Text("yes", style="green") if value else Text("NO", style="bold red")
