"""Differentially private tables of the training rows, for a generator that sees nothing else.

The way of MST and AIM (McKenna, Miklau & Sheldon 2021; McKenna et al. 2022): measure small tables
with noise, choose privately where more is worth measuring, and make all the rest of the results.

1. The one-way tables of all fields per class, for `SHARES["singles"]` of the budget.
2. From them follows what every two-way table were if fields were independent within a class.  The
   pairs that are farthest from that are chosen, for `SHARES["choice"]`, and measured, both classes
   together, for the rest.  Where noise would drown them, the rest goes to the one-way tables.
3. What was measured is shrunk towards independence by what noise explains of it (James & Stein
   1961), and made to agree: no negative cell, one number of rows.

A row added or removed changes one cell of each table by one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cipherscore.errors import TrainingError
from training.class_tables import CLASSES, ClassTables
from training.fidelity import Rows
from training.privacy import PrivacyBudget
from training.private_noise import discrete_gaussian, exponential_mechanism

SHARES = {"singles": 0.7, "choice": 0.05}
"""Shares of rho; what is left goes to the chosen pairs.  Measured in docs/synthetic-privacy.md."""
PAIR_NOISE = 0.08
"""As many pairs are measured as keep the noise, in total variation of a usual pair, below this."""
FEWEST_PAIRS = 3
MIN_CLASS_COUNT = 5.0
_GRID = 1 << 20
"""Variances and parameters are fractions of this, rounded so that rho is never exceeded."""

Counts = NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class PrivateTables:
    """What a private generator learns from.

    Args:
        tables: Estimated tables per class.
        class_prior: Estimated share of bad rows.
        measured: Number of two-way tables that were measured.
    """

    tables: ClassTables
    class_prior: float
    measured: int


def private_tables(
    rows: Rows, sizes: Sequence[int], budget: PrivacyBudget, source: random.Random
) -> PrivateTables:
    """Measure the tables of ``rows`` within ``budget``; each call spends it anew.

    Args:
        rows: Rows whose tokens are all in the vocabulary.
        sizes: Columns of each field.
        budget: What may be spent.
        source: Where the noise comes from: the operating system, but for tests.

    Raises:
        TrainingError: With noise, a class has fewer than `MIN_CLASS_COUNT` rows.
    """
    exact = _Counter(rows, sizes, source)
    variance = _variance(len(sizes), SHARES["singles"] * budget.rho)
    singles = exact.singles(variance)
    rest = (1 - SHARES["singles"]) * budget.rho
    pairs_rho = rest - SHARES["choice"] * budget.rho
    wanted = _affordable_pairs(sizes, float(np.mean([p.sum() for p in singles])), pairs_rho)
    if wanted == 0:
        again = _variance(len(sizes), rest)
        singles = _combined(singles, variance, exact.singles(again), again)
        variance = 1 / (1 / variance + 1 / again)
    count, singles = _agreeing(singles, float(variance))
    found = {}
    if wanted:
        spread = _variance(wanted, pairs_rho)
        chosen = _chosen(exact, singles, count, wanted, SHARES["choice"] * budget.rho, spread)
        found = {pair: _pair(exact, pair, singles, count, spread) for pair in chosen}
    tables = _class_tables(sizes, singles, count, found)
    return PrivateTables(tables, float(count[1] / count.sum()), wanted)


class _Counter:
    """The only holder of the rows: exact counts for the mechanisms, noisy ones for all else."""

    def __init__(self, rows: Rows, sizes: Sequence[int], source: random.Random) -> None:
        self.source = source
        self._rows, self._sizes = rows, sizes

    def singles(self, variance: Fraction) -> list[Counts]:
        """Return, per field, float64 [2, columns] counts with noise; one row changes one cell."""
        label = self._rows.label.astype(np.int64)
        return [
            self._noisy(_crossed(label, column, CLASSES, size), variance)
            for column, size in zip(self._rows.indices.T, self._sizes, strict=True)
        ]

    def pair(self, pair: Pair, variance: Fraction) -> Counts:
        """Return float64 [columns, columns] counts with noise."""
        return self._noisy(self.exact_pair(pair), variance)

    def exact_pair(self, pair: Pair) -> NDArray[np.int64]:
        """Return the counts themselves, for `exponential_mechanism` only."""
        left, right = pair
        columns = self._rows.indices[:, left].astype(np.int64), self._rows.indices[:, right]
        return _crossed(*columns, self._sizes[left], self._sizes[right])

    def _noisy(self, table: NDArray[np.int64], variance: Fraction) -> Counts:
        noise = [discrete_gaussian(variance, self.source) for _ in range(table.size)]
        noisy: Counts = (table + np.reshape(noise, table.shape)).astype(np.float64)
        return noisy


def _crossed(
    left: NDArray[np.int64], right: NDArray[np.int32], height: int, width: int
) -> NDArray[np.int64]:
    counts = np.bincount(left * width + right, minlength=height * width)
    return counts.reshape(height, width)


def _variance(tables: int, rho: float) -> Fraction:
    """Return the noise's variance that measures so many tables for ``rho``."""
    return Fraction(math.ceil(_GRID * tables / (2 * rho)), _GRID)


def _affordable_pairs(sizes: Sequence[int], total: float, rho: float) -> int:
    """Return how many two-way tables can be measured usefully, at most half of them."""
    pairs = list(combinations(sizes, 2))
    if not pairs or total <= 0:
        return 0
    cells = float(np.mean([left * right for left, right in pairs]))
    # The noise of k tables has a standard deviation of sqrt(k / (2 rho)) in each cell.
    noise = math.sqrt(2 / math.pi) * cells / (2 * total) / math.sqrt(2 * rho)
    wanted = min(len(pairs) // 2, int((PAIR_NOISE / noise) ** 2))
    return wanted if wanted >= FEWEST_PAIRS else 0


def _combined(
    first: list[Counts], first_variance: Fraction, second: list[Counts], second_variance: Fraction
) -> list[Counts]:
    weight = float(second_variance / (first_variance + second_variance))
    return [weight * a + (1 - weight) * b for a, b in zip(first, second, strict=True)]


def _agreeing(singles: list[Counts], variance: float) -> tuple[Counts, list[Counts]]:
    """Return the class counts, float64 [2], and tables that sum to them in every field."""
    weights = np.array([1 / part.shape[1] for part in singles])
    sums = np.array([part.sum(axis=1) for part in singles])
    count: Counts = weights @ sums / weights.sum()
    if count.min() < MIN_CLASS_COUNT:
        raise TrainingError(
            "too few rows for this epsilon: with its noise, one class has fewer than "
            f"{MIN_CLASS_COUNT:g} rows; give more rows or a larger epsilon"
        )
    share = count / count.sum()
    agreed = []
    for part in singles:
        alike = np.outer(share, part.sum(axis=0))
        noise = 2 * (part.shape[1] - 1) * variance * float((share**2).sum())
        kept = alike + _kept_share(part - alike, noise) * (part - alike)
        agreed.append(np.stack([_on_simplex(*both) for both in zip(kept, count, strict=True)]))
    return count, agreed


def _chosen(
    exact: _Counter, singles: list[Counts], count: Counts, wanted: int, rho: float, spread: Fraction
) -> list[Pair]:
    """Choose the pairs that are farthest from independence, beyond what their noise will be."""
    candidates = list(combinations(range(len(singles)), 2))
    scores = [_score(exact, pair, singles, count, spread) for pair in candidates]
    epsilon = Fraction(math.floor(_GRID * math.sqrt(8 * rho / wanted)), _GRID)
    chosen = []
    for _ in range(wanted):
        position = exponential_mechanism(scores, epsilon, exact.source)
        chosen.append(candidates.pop(position))
        scores.pop(position)
    return chosen


def _score(
    exact: _Counter, pair: Pair, singles: list[Counts], count: Counts, spread: Fraction
) -> int:
    """Return how far a pair is from independence; it counts rows, so one row moves it by 1."""
    expected = np.rint(_independent(pair, singles, count)).astype(np.int64)
    noise = math.sqrt(2 / math.pi * float(spread)) * expected.size
    return int(np.abs(exact.exact_pair(pair) - expected).sum()) - round(noise)


def _pair(
    exact: _Counter, pair: Pair, singles: list[Counts], count: Counts, spread: Fraction
) -> Counts:
    """Return the estimated two-way table of both classes together."""
    expected = _independent(pair, singles, count)
    extra = exact.pair(pair, spread) - expected
    extra += extra.mean() - extra.mean(axis=0) - extra.mean(axis=1, keepdims=True)
    freedom = (extra.shape[0] - 1) * (extra.shape[1] - 1)
    table = expected + _kept_share(extra, freedom * float(spread)) * extra
    return _on_simplex(table.ravel(), float(count.sum())).reshape(table.shape)


def _independent(pair: Pair, singles: list[Counts], count: Counts) -> Counts:
    """Return the table of both classes together, were the fields independent within each."""
    left, right = (singles[field] for field in pair)
    expected: Counts = left.T @ (right / count[:, None])
    return expected


def _class_tables(
    sizes: Sequence[int], singles: list[Counts], count: Counts, found: dict[Pair, Counts]
) -> ClassTables:
    """Return shares per class; a measured pair scales both classes' independent tables alike."""
    bounds = np.cumsum((0, *sizes))
    marginals = np.concatenate([part / count[:, None] for part in singles], axis=1)
    pairs = marginals[:, :, None] * marginals[:, None, :]
    for (left, right), table in found.items():
        rows, columns = (slice(bounds[f], bounds[f + 1]) for f in (left, right))
        ratio = table / np.maximum(_independent((left, right), singles, count), 1e-9)
        pairs[:, rows, columns] *= ratio
        pairs[:, columns, rows] *= ratio.T
    return ClassTables(marginals.astype(np.float32), pairs.astype(np.float32))


def _kept_share(extra: Counts, noise: float) -> float:
    """Return the share of the squares of ``extra`` that noise of this expectation leaves over."""
    squares = float((extra**2).sum())
    return max(0.0, 1 - noise / squares) if squares > 0 else 0.0


def _on_simplex(values: Counts, total: float) -> Counts:
    """Return the nearest numbers that are not negative and sum to ``total`` (Duchi et al. 2008)."""
    ordered = np.sort(values)[::-1]
    excess = np.cumsum(ordered) - total
    steps = np.arange(1, len(values) + 1)
    last = np.flatnonzero(ordered * steps > excess)[-1]
    result: Counts = np.maximum(values - excess[last] / steps[last], 0)
    return result
