"""The verifier that settings ask for."""

from __future__ import annotations

from verifier_service.engine import Engine
from verifier_service.instruments import Instruments
from verifier_service.recycled_texts import Recycle, RecycledTexts
from verifier_service.settings import VerifierSettings
from verifier_service.verifier import Verifier


def verifier_of(engine: Engine, settings: VerifierSettings, instruments: Instruments | None) -> Verifier:
    """Whoever starts it, a command or an actor. Raises InputError for a plan that is too wide for the engine."""
    return Verifier(
        engine,
        plan=settings.plan.plan(),
        adaptive=settings.adaptive,
        lookup=settings.lookup,
        recycled=RecycledTexts(Recycle(settings.recycling), fills=settings.adaptive),
        max_sessions=settings.max_sessions,
        max_sessions_each=settings.max_sessions_each,
        trust=settings.trust,
        instruments=instruments,
    )
