"""`dragoman demo`: a target and a drafter as processes on loopback, the same prompts with and without the drafter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Unpack

from rich.console import Console
from rich.text import Text

from drafter_service.loading import LOOKUP_MODEL
from dragoman.client import Client
from dragoman.demo_table import Comparison, DemoTable, title
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
#: Of each text, where the target is fast enough for that.
TOKENS = 64
#: Of each text, on the slowest machine.
FEWEST_TOKENS = 12
#: That all texts together should take at most, in seconds.
PATIENCE_SECONDS = 300.0
WARM_UP = Prompt(messages=(ChatMessage("user", "Count to ten."),))


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What to compare.

    ``max_tokens``: of each text; None: as many as this machine writes in a few minutes. ``target_threads`` and
    ``drafter_threads``: CPU threads of the two processes.
    """

    target: str
    drafter: str
    max_tokens: int | None
    temperature: float
    seed: int
    device: str
    target_dtype: str
    drafter_dtype: str
    target_threads: int
    drafter_threads: int


def _seconds_per_token(completions: list[Completion]) -> float | None:
    tokens = sum(completion.decode_tokens for completion in completions)
    return sum(completion.decode_seconds for completion in completions) / tokens if tokens else None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """All prompts; totals weigh each token alike. ``max_tokens``: of each text."""

    comparisons: list[Comparison]
    max_tokens: int

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
            "max_tokens": self.max_tokens,
            "median_ratio": statistics.median(ratios) if ratios else None,
            "prompts": [comparison.to_json() for comparison in self.comparisons],
        }


def run_demo(config: DemoConfig, *, as_json: bool) -> bool:
    """Run and show it; returns whether every text was identical. Raises DragomanError."""
    if config.max_tokens is not None:
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

        await ask(WARM_UP, max_tokens=4)
        if (max_tokens := config.max_tokens) is None:
            warm = [await ask(WARM_UP, max_tokens=FEWEST_TOKENS, draft=draft) for draft in (True, False)]
            max_tokens = _length_of_texts(warm)
        table = DemoTable(Console(), status) if status is not None else None
        comparisons = []
        for number, prompt in enumerate(PROMPTS):
            answers: dict[bool, Completion] = {}
            # In turn, so that a machine that gets slower or faster is fair to both.
            for draft in (False, True) if number % 2 else (True, False):
                arm = "with the drafter" if draft else "target alone"
                note(f"prompt {number + 1} of {len(PROMPTS)}, {arm}: {title(prompt)}")
                answers[draft] = await ask(prompt, sampling=sampling, max_tokens=max_tokens, draft=draft)
            comparisons.append(Comparison(prompt, alone=answers[False], drafted=answers[True]))
            if table is not None:
                table.add(comparisons[-1])
        result = DemoResult(comparisons, max_tokens)
        if table is not None:
            table.end(result.speed_up, identical=result.identical)
        return result


def _length_of_texts(warm: Collection[Completion]) -> int:
    """In tokens, and why it is less than on other machines, if it is. ``warm``: texts with drafter and without."""
    tokens = fitting_tokens(warm)
    if tokens < TOKENS:
        minutes = len(PROMPTS) * sum(text.ttft + TOKENS * (text.tpot or 0.0) for text in warm) / 60
        err.print(f"texts of {tokens} tokens: {TOKENS} would take {minutes:.0f} minutes here (--max-tokens for more)")
    return tokens


def fitting_tokens(warm: Collection[Completion]) -> int:
    """Of each text, so that all prompts together take ``PATIENCE_SECONDS`` at most, if they can.

    ``warm``: a text of each kind that every prompt is to have.
    """
    each = sum(text.tpot or 0.0 for text in warm)
    first = sum(text.ttft for text in warm)
    room = PATIENCE_SECONDS / len(PROMPTS) - first
    return TOKENS if not each or each * TOKENS <= room else max(FEWEST_TOKENS, int(room / each))


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
