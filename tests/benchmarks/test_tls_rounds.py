"""What TLS adds to a round: rounds really go over both connections, and the figures are theirs."""

from __future__ import annotations

import pytest

from benchmarks.tls_rounds import Rounds, run


def test_rounds_go_over_both_connections():
    rounds = run(pairs=10, up=300, down=100)
    assert len(rounds.plaintext) == len(rounds.tls) == 10
    assert min(rounds.plaintext + rounds.tls) > 0


def test_what_tls_adds_is_told_at_the_median_and_pair_by_pair():
    row = Rounds(plaintext=[0.001, 0.002, 0.003], tls=[0.0015, 0.0021, 0.0042]).row()
    assert row["plaintext_ms"]["p50"] == pytest.approx(2) and row["tls_ms"]["p50"] == pytest.approx(2.1)
    assert row["added_p50_ms"] == pytest.approx(0.1) and row["median_of_differences_ms"] == pytest.approx(0.5)
    assert row["rounds"] == 3
