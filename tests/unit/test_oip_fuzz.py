"""A short run of the protocol's fuzzer; the long one is run by hand."""

from __future__ import annotations

from tests.fuzz.oip_tensors import Fuzzer


def test_what_is_sent_is_read_or_refused() -> None:
    fuzzer = Fuzzer()
    for seed in range(3000):
        fuzzer.run(seed)
    # What the inputs are meant to reach, they do reach.
    for outcome in ("message read", "JSON read", "by a plan", "unknown-token", "invalid-request"):
        assert fuzzer.outcomes[outcome] > 50, outcome
