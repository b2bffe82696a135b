"""Which verifier a text goes to: the same for prompts that begin alike, and none above its share of the load.

Rendezvous hashing (Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates"): every replica has
a score for every prefix, and the highest wins. Where a replica leaves, only its own prefixes move. Bounded loads
(Mirrokni, Thorup and Zadimoghaddam 2018, "Consistent hashing with bounded loads", arXiv 1608.01350, section 2): with
m sessions on n replicas, the new one counted, none takes more than ceil(c m / n) of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoutedVerifier:
    """``key``: by which prefixes find it. ``load``: sessions that it has, of at most ``capacity``."""

    key: str
    load: int
    capacity: int

    @property
    def full(self) -> bool:
        return self.load >= self.capacity


def score(prefix: int, key: str) -> int:
    """How much a replica wants a prefix: 64 bits that look random, the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"{prefix:x} {key}".encode(), digest_size=8).digest(), "big")


def share(replicas: Sequence[RoutedVerifier], bound: float) -> int:
    """Sessions that a replica may have once there is one more: ceil(c m / n)."""
    sessions = 1 + sum(replica.load for replica in replicas)
    return math.ceil(bound * sessions / len(replicas) - 1e-9)


def ranked(prefix: int, replicas: Iterable[RoutedVerifier], *, bound: float) -> list[RoutedVerifier]:
    """Those that can take a session, best first: by score within their share, then those beyond it by their load.

    ``bound``: c, at least 1. Full replicas are left out, and count for nobody's share.
    """
    open_ones = [replica for replica in replicas if not replica.full]
    if not open_ones:
        return []
    most = share(open_ones, bound)

    def place(replica: RoutedVerifier) -> tuple[bool, int, int]:
        crowded = replica.load + 1 > most
        return crowded, replica.load if crowded else 0, -score(prefix, replica.key)

    return sorted(open_ones, key=place)
