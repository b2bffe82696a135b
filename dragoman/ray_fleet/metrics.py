"""Figures of a verifier as Ray's own metrics: its agent on each node exports them, its dashboard shows them.

Names are those of `dragoman verifier --metrics-port`, with the prefix ``ray_`` that Ray gives to all, and without
colons, which Ray takes none of: ``ray_vllm_...``, as vLLM's are on Ray, and ``ray_dragoman_...``.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier_service.instruments import Record

#: The actor that a figure comes from, for example qwen/0.
_REPLICA = "replica"


class RayInstruments:
    """Use inside an actor. ``replica``: its name, a label of every figure."""

    def __init__(self, replica: str) -> None:
        self._tags = {_REPLICA: replica}

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Record:
        from ray.util.metrics import Counter

        made = Counter(_plain(name), meaning, tag_keys=(_REPLICA, *labels))

        def add(value: float, **given: str) -> None:
            if value > 0:  # Ray takes nothing else
                made.inc(value, tags={**self._tags, **given})

        return add

    def gauge(self, name: str, meaning: str) -> Record:
        from ray.util.metrics import Gauge

        made = Gauge(_plain(name), meaning, tag_keys=(_REPLICA,))
        made.set_default_tags(self._tags)
        return made.set

    def histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Record:
        from ray.util.metrics import Histogram

        # Ray counts what is at most 0 in the first bucket anyway.
        made = Histogram(
            _plain(name), meaning, boundaries=[bound for bound in bounds if bound > 0], tag_keys=(_REPLICA,)
        )
        made.set_default_tags(self._tags)
        return made.observe


def _plain(name: str) -> str:
    return name.replace(":", "_")
