"""What the drafters of a session are offered."""

from __future__ import annotations

import dataclasses

from speculation.protocol.messages import Prompt, SessionOffer
from speculation.sampling.noise import drafter_seed
from speculation.sampling.params import Rule
from speculation.sessions.target_session import TargetSession


class SessionOffers:
    """Of one session, offer after offer. ``name``: of the session. ``vocab_hash``: of the target. ``traceparent``: of
    the request's span, "" without one."""

    def __init__(self, name: str, prompt: Prompt, *, vocab_hash: str, traceparent: str = "") -> None:
        self._name = name
        self._prompt = prompt
        self._vocab_hash = vocab_hash
        self._traceparent = traceparent
        self._made = 0

    def next(self, session: TargetSession) -> SessionOffer:
        """As it stands now."""
        request = session.request
        self._made += 1
        sampling = request.sampling
        if request.rule is not Rule.RACE:  # where both draw with the same noise
            sampling = dataclasses.replace(sampling, seed=drafter_seed(sampling.seed))
        return SessionOffer(
            session=self._name,
            prompt=self._prompt,
            sampling=sampling,
            rule=request.rule,
            committed=session.committed,
            zero_width=session.zero_width,
            plan=session.plan,
            number=self._made,
            vocab_hash=self._vocab_hash if request.rule.proposes else "",
            traceparent=self._traceparent,
        )
