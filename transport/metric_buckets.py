"""Upper bounds of the histograms, so that those of verifier and gateway can be put beside vLLM's (its
``vllm/v1/metrics``)."""

from __future__ import annotations

from typing import Final

#: Seconds until the first token.
FIRST_TOKEN: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
#: Seconds between two tokens, or for each.
PER_TOKEN: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
#: Seconds of a request, or of a part of it.
REQUEST: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
#: Texts that a request asks for.
CHOICES: Final = (1, 2, 5, 10, 20)


def token_counts(most: int) -> list[int]:
    """1, 2, 5, 10, ... up to ``most``, which is 1 at least."""
    bounds = (digit * 10**power for power in range(len(str(most))) for digit in (1, 2, 5))
    return [bound for bound in bounds if bound <= most]
