"""Noise of differential privacy has exactly the distribution that the accountant counts with."""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction

import pytest

from training.private_noise import SYSTEM, discrete_gaussian, exponential_mechanism

DRAWS = 20_000
LARGEST_Z = 5.0
"""Seeded, so that a test that passes once passes always; a wrong formula is off by far more."""


def chi_square_z(counts: Counter[int], expected: dict[int, float]) -> float:
    """Return how many standard deviations chi-square is above its mean; rare values pooled."""
    common = {x: share for x, share in expected.items() if share * DRAWS >= 10}
    found = [counts[x] for x in common]
    wanted = [share * DRAWS for share in common.values()]
    found.append(DRAWS - sum(found))
    wanted.append(DRAWS - sum(wanted))
    square = sum((f - w) ** 2 / w for f, w in zip(found, wanted, strict=True) if w > 1)
    freedom = len(common)
    return (square - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("variance", ["1/10", "1", "5/2", "100", "12345/67"])
def test_the_discrete_gaussian_has_its_probabilities(variance):
    """Definition 1 of Canonne, Kamath & Steinke 2020."""
    exact = Fraction(variance)
    source = random.Random(f"gaussian {variance}")
    counts = Counter(discrete_gaussian(exact, source) for _ in range(DRAWS))
    reach = range(-200, 201)
    weights = {x: math.exp(-(x**2) / (2 * float(exact))) for x in reach}
    expected = {x: weight / sum(weights.values()) for x, weight in weights.items()}
    assert chi_square_z(counts, expected) < LARGEST_Z


def test_the_exponential_mechanism_has_its_probabilities():
    scores, epsilon = [3, -2, 0, 3, 10], Fraction(3, 7)
    source = random.Random("choice")
    counts = Counter(exponential_mechanism(scores, epsilon, source) for _ in range(DRAWS))
    weights = [math.exp(float(epsilon) * score / 2) for score in scores]
    expected = {i: weight / sum(weights) for i, weight in enumerate(weights)}
    assert chi_square_z(counts, expected) < LARGEST_Z


def test_huge_scores_and_variances_are_no_trouble():
    source = random.Random("huge")
    assert exponential_mechanism([0, 10**9], Fraction(1, 3), source) == 1
    assert abs(discrete_gaussian(Fraction(10**24), source)) < 10**13


def test_the_default_source_cannot_be_seeded():
    assert isinstance(SYSTEM, random.SystemRandom)
    draws = []
    for _ in range(2):
        SYSTEM.seed(1)
        draws.append([discrete_gaussian(Fraction(10**6), SYSTEM) for _ in range(20)])
    assert draws[0] != draws[1]
