"""Random numbers of differential privacy, drawn exactly: whole numbers in, whole numbers out.

Noise made of floating-point numbers has gaps that give away what it was added to (Mironov 2012).
So everything here is integer arithmetic, after Canonne, Kamath & Steinke 2020, "The Discrete
Gaussian for Differential Privacy".

``source`` gives the random bits.  A training takes the operating system's (`SYSTEM`): whoever
knew the seed could subtract the noise.  Tests give a seeded one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction

SYSTEM: random.Random = random.SystemRandom()
"""The operating system's source, which no seed repeats."""


def discrete_gaussian(variance: Fraction, source: random.Random) -> int:
    """Draw x with a probability in proportion to ``exp(-x**2 / (2 variance))`` (algorithm 3).

    Args:
        variance: Above 0; for 1 and more it is the variance but for a share below 1e-7.
        source: Source of the bits.
    """
    top, bottom = variance.numerator, variance.denominator
    scale = math.isqrt(top // bottom) + 1
    while True:
        drawn = _discrete_laplace(scale, source)
        excess = (abs(drawn) * bottom * scale - top) ** 2
        if _chance_exp(excess, 2 * top * bottom * scale * scale, source):
            return drawn


def exponential_mechanism(scores: Sequence[int], epsilon: Fraction, source: random.Random) -> int:
    """Draw a position with a probability in proportion to ``exp(epsilon * score / 2)``.

    epsilon-private, and ``epsilon**2 / 8``-zCDP, if one row changes each score by at most 1
    (McSherry & Talwar 2007).

    Args:
        scores: One per candidate, at least one.
        epsilon: Above 0.
        source: Source of the bits.
    """
    best = max(scores)
    while True:
        position = source.randrange(len(scores))
        behind = (best - scores[position]) * epsilon.numerator
        if _chance_exp(behind, 2 * epsilon.denominator, source):
            return position


def _discrete_laplace(scale: int, source: random.Random) -> int:
    """Draw x with a probability in proportion to ``exp(-abs(x) / scale)`` (algorithm 2)."""
    while True:
        low = source.randrange(scale)
        if not _chance_exp(low, scale, source):
            continue
        high = 0
        while _chance_exp(1, 1, source):
            high += 1
        size = low + scale * high
        negative = source.randrange(2)
        if size or not negative:
            return -size if negative else size


def _chance_exp(top: int, bottom: int, source: random.Random) -> bool:
    """Return true with probability ``exp(-top / bottom)`` (algorithm 1)."""
    while top > bottom:
        if not _chance_exp(1, 1, source):
            return False
        top -= bottom
    tries = 1
    while source.randrange(bottom * tries) < top:
        tries += 1
    return tries % 2 == 1
