"""Intervals and paired tests over the folds of repeated cross-validation.

Folds share training rows, so their results are not independent and an ordinary t-test finds
differences that are not there.  Nadeau and Bengio (Inference for the Generalization Error, Machine
Learning 52, 2003, section 3) correct the variance of the mean over ``J`` folds from ``s2 / J`` to
``s2 * (1 / J + n_test / n_train)``; Bouckaert and Frank (PAKDD 2004) recommend it for repeated
k-fold cross-validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

LEAST_FOLDS = 3
"""Fewest folds from which an interval or a test is given."""


@dataclass(frozen=True)
class Estimate:
    """Mean over folds, standard deviation of folds, and 95 % interval of the mean.

    ``low`` and ``high`` are NaN with fewer than `LEAST_FOLDS` folds.
    """

    mean: float
    sd: float
    low: float
    high: float
    folds: int


@dataclass(frozen=True)
class Comparison:
    """An `Estimate` of the differences of paired folds with its two-sided p-value."""

    estimate: Estimate
    t: float
    p: float


def estimate(
    values: Sequence[float],
    test_share: float,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return mean and corrected interval of one figure over folds.

    ``test_share`` is test rows divided by training rows of a fold.  The interval is cut at
    ``limits``, the least and largest value that the figure can have.
    """
    mean, sd, error = _moments(values, test_share)
    if len(values) < LEAST_FOLDS:
        return Estimate(mean, sd, math.nan, math.nan, len(values))
    reach = float(stdtrit(len(values) - 1, 0.975)) * error
    low, high = max(limits[0], mean - reach), min(limits[1], mean + reach)
    return Estimate(mean, sd, low, high, len(values))


def compare(first: Sequence[float], second: Sequence[float], test_share: float) -> Comparison:
    """Test whether two methods' results on the same folds, in the same order, differ in the mean.

    Equal results on every fold give t = 0 and p = 1; a difference that is the same on every fold,
    but not 0, gives an infinite t and p = 0.

    Raises:
        ValueError: The lengths differ.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    found = estimate(differences, test_share)
    if len(differences) < LEAST_FOLDS:
        return Comparison(found, math.nan, math.nan)
    mean, _, error = _moments(differences, test_share)
    if error == 0:
        return Comparison(found, math.copysign(math.inf, mean) if mean else 0.0, float(mean == 0))
    t = mean / error
    p = 2 * float(stdtr(len(differences) - 1, -abs(t)))
    return Comparison(found, t, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing several hypotheses (Holm 1979); a NaN stays.

    All adjusted values below 0.05 are then wrong with a chance of at most 5 % together.
    """
    adjusted = [math.nan] * len(p_values)
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    worst = 0.0
    for rank, (p, place) in enumerate(known):
        worst = max(worst, min(1.0, p * (len(known) - rank)))
        adjusted[place] = worst
    return adjusted


def _moments(values: Sequence[float], test_share: float) -> tuple[float, float, float]:
    """Return mean, standard deviation and corrected standard error."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return math.nan, math.nan, math.nan
    sd = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return float(array.mean()), sd, sd * math.sqrt(1 / len(array) + test_share)
