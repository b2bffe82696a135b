"""How a target and a drafter speculate that share the processors of one machine: one works while the other waits."""

from __future__ import annotations

from typing import Final

from speculation.protocol.messages import SpeculationPlan

#: Together they would only share the processors.
TAKING_TURNS: Final = SpeculationPlan(
    width=8, lookahead=8, stop_threshold=0.3, span_tokens=8, alternatives=0, patience=0.4
)
#: The same as options of `dragoman verifier`.
TAKING_TURNS_OPTIONS: Final = (
    "--no-adaptive",
    f"--width={TAKING_TURNS.width}",
    f"--lookahead={TAKING_TURNS.lookahead}",
    f"--stop-threshold={TAKING_TURNS.stop_threshold:g}",
    f"--span-tokens={TAKING_TURNS.span_tokens}",
    f"--alternatives={TAKING_TURNS.alternatives}",
    f"--patience={TAKING_TURNS.patience * 1000:.0f}",
)
