"""The whole loop on one screen: a target and a drafter of different vocabularies, without sockets or threads.

    python examples/one_process.py --target qwen2.5-coder-1.5b --drafter smollm2-135m

The two sessions are state machines: events in, instructions out. What the services add is the wire between them.
"""

from __future__ import annotations

import typer

from drafter_service.desk import DeskSession, Message
from drafter_service.loading import load_drafter
from language_models.causal_lm import CausalLM
from speculation.protocol.messages import Prompt, SessionOffer, Span, SpeculationPlan
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sessions.instructions import Emit, Keep, SendVerdict
from speculation.sessions.target_session import TargetSession
from speculation.verification.draft_verifier import DraftVerifier
from verifier_service.transformers_engine import TransformersEngine


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    prompt: str = "def fibonacci(n):",
    max_tokens: int = 48,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Write one completion, drafted text underlined."""
    engine = TransformersEngine(CausalLM.load(target))
    vocab, noise = engine.tokenizer.vocab, RaceNoise(engine.tokenizer.vocab)
    sampling, plan = SamplingParams(temperature=temperature, seed=seed), SpeculationPlan(width=8, lookahead=8)

    prompt_ids = tuple(engine.tokenizer.prompt_ids(Prompt(text=prompt)))
    request = SessionRequest(prompt_ids, sampling, max_tokens, engine.context_length)
    session = TargetSession(request, vocab, engine.tokenizer.encode, plan=plan)
    verifier = DraftVerifier.of(request, vocab, noise)
    slot = engine.open(prompt_ids)
    drafting = DeskSession(
        load_drafter(drafter), SessionOffer("s", Prompt(text=prompt), sampling, Rule.RACE, b"", 0, plan)
    )

    def hear(messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, Span):
                session.on_span(message)  # text, which the target retokenises in its own vocabulary
            elif (verdict := session.on_resync(message)) is not None:
                hear(drafting.on_verdict(verdict))

    typer.echo(prompt, nl=False)
    while session.finish_reason is None:
        while drafting.wants_draft():
            hear(drafting.take(drafting.prepare().alone()))
        step = session.next_step()
        logits = slot.step(step.last, step.candidates)  # one forward pass over the last token and all candidates
        for instruction in session.on_acceptance(verifier.verify(step, logits)):
            match instruction:
                case Keep(rows):
                    slot.keep(rows)  # the accepted rows of the KV cache
                case Emit(runs, _):
                    for run in runs:
                        typer.secho(run.text.decode(errors="replace"), nl=False, underline=run.drafted)
                case SendVerdict(verdict):
                    hear(drafting.on_verdict(verdict))
    stats = session.stats
    typer.echo(f"\n\n{stats.steps} steps, {stats.accepted_tokens} of {stats.draft_tokens} draft tokens accepted")


if __name__ == "__main__":
    typer.run(main)
