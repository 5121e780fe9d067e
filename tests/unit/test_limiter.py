"""Rates and concurrency of one client."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import RateLimited
from serving.limiter import Limiter, Limits

rates = st.floats(0.01, 50_000)
bursts = st.integers(1, 500)
gaps = st.lists(st.floats(0, 3), min_size=1, max_size=200)


def wait(limiter: Limiter, now: float) -> float:
    """Take a token; return how long to wait for it, 0 if it was there."""
    try:
        limiter.take(now)
    except RateLimited as error:
        return error.retry_after or -1
    return 0


def passed(limiter: Limiter, now: float) -> bool:
    seconds = wait(limiter, now)
    assert seconds >= 0
    return seconds == 0


@given(rates, bursts, gaps, st.floats(0, 1e7))
def test_never_more_than_the_rate_and_one_burst(rate, burst, waits, start):
    limiter = Limiter(Limits(rate, burst))
    times = [start + gap for gap in itertools.accumulate(waits)]
    taken = [now for now in times if passed(limiter, now)]
    for first, last in itertools.combinations_with_replacement(range(len(taken)), 2):
        # Rounding of the clock may let one more through where the bound is a whole number.
        allowed = rate * (taken[last] - taken[first] + 1e-5) + burst
        assert last - first + 1 <= allowed + 1e-6


@given(rates, bursts, st.floats(0, 1e6))
def test_a_whole_burst_passes_and_then_none(rate, burst, now):
    limiter = Limiter(Limits(rate, burst))
    extra = math.ceil(rate * 1e-5) + 1
    results = [passed(limiter, now) for _ in range(burst + extra)]
    assert all(results[:burst])
    assert not results[-1]


@given(rates, bursts, gaps)
def test_who_waits_as_told_passes(rate, burst, waits):
    limiter = Limiter(Limits(rate, burst))
    now = 100.0
    for gap in waits:
        now += gap / 1000
        if told := wait(limiter, now):
            assert 0 < told <= 1 / rate + 1e-6
            now += told
            assert passed(limiter, now)


def test_who_waits_as_told_passes_although_the_sum_is_rounded():
    limiter = Limiter(Limits(3.0, 2))
    assert passed(limiter, 100.0)
    assert passed(limiter, 100.0)
    assert passed(limiter, 100.0 + wait(limiter, 100.0))


def test_no_limit_counts_only_what_runs():
    limiter = Limiter(Limits())
    for _ in range(1000):
        limiter.enter()
    assert limiter.running == 1000


def test_concurrency_is_given_back():
    limiter = Limiter(Limits(concurrent=2))
    limiter.enter()
    limiter.enter()
    with pytest.raises(RateLimited, match="more than 2 requests") as caught:
        limiter.enter()
    assert caught.value.retry_after
    limiter.leave()
    limiter.enter()
    assert limiter.running == 2


def test_a_request_that_is_refused_for_concurrency_uses_no_token():
    limiter = Limiter(Limits(rate=0.001, burst=2, concurrent=1))
    limiter.enter()
    for _ in range(5):
        with pytest.raises(RateLimited, match="running"):
            limiter.enter()
    limiter.leave()
    limiter.enter()
    limiter.leave()
    with pytest.raises(RateLimited, match="per second"):
        limiter.enter()
    assert limiter.running == 0


def test_other_limits_apply_at_once_and_forget_nothing():
    limiter = Limiter(Limits(rate=0.001, burst=2))
    limiter.take(10.0)
    limiter.change(Limits(rate=0.001, burst=1))
    assert not passed(limiter, 10.0)
    limiter.change(Limits())
    limiter.enter()
    assert limiter.running == 1


def test_idle_means_nothing_is_lost():
    limiter = Limiter(Limits(rate=1, burst=1))
    assert limiter.idle(5.0)
    limiter.take(5.0)
    assert not limiter.idle(5.5)
    assert limiter.idle(6.1)
    limiter.running += 1
    assert not limiter.idle(7.0)
