"""The repository as the rules of the house see it: our packages, who may import whom, and the files of each folder."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Our packages, and those of ours that each may import besides itself.
ARROWS: dict[str, set[str]] = {
    "speculation": set(),
    "protos": set(),
    "transport": {"protos", "speculation"},
    "language_models": {"speculation"},
    "engine": {"language_models", "speculation"},
    "verifier_service": {"engine", "language_models", "protos", "speculation", "transport"},
    "drafter_service": {"engine", "language_models", "protos", "speculation", "transport"},
    "coordinator": {"protos", "speculation", "transport"},
    "gateway": {"speculation", "transport"},
    "dragoman": {
        "coordinator",
        "drafter_service",
        "gateway",
        "language_models",
        "protos",
        "speculation",
        "transport",
        "verifier_service",
    },
    "deploy": {"dragoman"},
}
# Folders with Python in them that nothing of the above may import.
OUTSIDE = ("benchmarks", "examples", "tests")


def is_generated(path: Path) -> bool:
    """Whether protoc wrote it."""
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def sources(*folders: str) -> list[Path]:
    """The hand-written Python files under these folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if not is_generated(path))
