"""Prometheus's text, read."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families


class Collected:
    """A page: samples by name, summed over other labels than the model's; ``process``: of the verifier's process."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        self.replicas: set[str] = set()
        self.process: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self.positions: dict[int, float] = {}
        self.drafted: dict[tuple[str, str], float] = {}  # draft tokens by source and drafter
        self.accepted: dict[tuple[str, str], float] = {}
        self.reasons: dict[str, float] = {}  # requests by how they ended
        for family in text_string_to_metric_families(text):
            if family.name.endswith("_created"):
                continue
            if family.name.startswith("process_") or family.name == "dragoman_event_loop_tasks":
                self.process[family.name] = family.samples[0].value
                continue
            self.kinds[family.name] = family.type
            for sample in family.samples:
                assert sample.labels["model_name"] and sample.labels["engine"] == "0"
                self.replicas.add(sample.labels["replica"])
                if not sample.name.endswith(("_created", "_bucket")):
                    self.values[sample.name] = self.values.get(sample.name, 0.0) + sample.value
                if "position" in sample.labels and sample.name.endswith("_total"):
                    self.positions[int(sample.labels["position"])] = sample.value
                if sample.name == "vllm:request_success_total":
                    self.reasons[sample.labels["finished_reason"]] = sample.value
                if "source" in sample.labels and sample.name.endswith("_total"):
                    counts = self.drafted if "draft_tokens" in sample.name else self.accepted
                    counts[sample.labels["source"], sample.labels["drafter"]] = sample.value

    def __getitem__(self, name: str) -> float:
        """Without the prefix."""
        found = [self.values[prefix + name] for prefix in ("vllm:", "dragoman_") if prefix + name in self.values]
        assert len(found) == 1, f"{name} is told once, under one name"
        return found[0]

    def reason(self, finished_reason: str) -> float:
        """Requests that ended so."""
        return self.reasons.get(finished_reason, 0.0)


def collect(registry: CollectorRegistry) -> Collected:
    """What a page of it would have."""
    return Collected(generate_latest(registry).decode())
