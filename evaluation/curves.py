"""Curves and figures of a classifier as arrays, for any labels and scores.

Label 1 is bad credit, the positive class; a high score means bad.  Rows of equal score are never
told apart: a curve has a point per distinct score.  Every function raises `DataError` where a class
is absent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cipherscore.errors import DataError

Floats = NDArray[np.float64]

GRID = np.linspace(0, 1, 101)
"""Where curves of different samples are compared: false alarm rate, recall, share of rows."""

HAIR = 1e-12
"""How far equal points of a curve are drawn apart for interpolation."""


@dataclass(frozen=True)
class Ranking:
    """Rows by falling score: float64 [distinct scores + 1] counts when the first ones are refused.

    ``bad[i]`` and ``good[i]`` are the numbers of bad and good rows whose score is at least
    ``scores[i - 1]``; both start at 0.
    """

    scores: Floats
    bad: Floats
    good: Floats

    @classmethod
    def of(cls, labels: np.ndarray, scores: Floats) -> Ranking:
        """Rank rows."""
        if len(np.unique(labels)) < 2:
            raise DataError("a curve needs rows of both classes")
        order = np.argsort(-scores, kind="stable")
        falling, positive = scores[order], labels[order] == 1
        last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
        bad = np.concatenate([[0.0], np.cumsum(positive)[last]])
        good = np.concatenate([[0.0], np.cumsum(~positive)[last]])
        return cls(falling[last], bad, good)

    @property
    def recall(self) -> Floats:
        """Share of the bad rows that are refused (true positive rate)."""
        return np.asarray(self.bad / self.bad[-1])

    @property
    def false_alarm(self) -> Floats:
        """Share of the good rows that are refused (false positive rate)."""
        return np.asarray(self.good / self.good[-1])

    @property
    def refused(self) -> Floats:
        """Share of all rows that are refused."""
        return np.asarray((self.bad + self.good) / (self.bad[-1] + self.good[-1]))


def roc(ranking: Ranking, grid: Floats = GRID) -> Floats:
    """Return the recall at each false alarm rate of ``grid``, straight lines between points.

    At a vertical step it is the upper end.
    """
    # Equal rates are drawn apart by a hair downwards, so that interpolation meets the last of them.
    hair = np.arange(len(ranking.bad) - 1, -1, -1) * HAIR
    return np.asarray(np.interp(grid, ranking.false_alarm - hair, ranking.recall))


def precision(ranking: Ranking, grid: Floats = GRID) -> Floats:
    """Return the precision at each recall of ``grid``.

    Between two points counts are interpolated, not precisions (Davis and Goadrich, ICML 2006); at
    recall 0 it is the precision of the highest scores.
    """
    bad = grid * ranking.bad[-1]
    # Of points of equal recall the first one counts, which has the best precision.
    good = np.interp(bad, ranking.bad + np.arange(len(ranking.bad)) * HAIR, ranking.good)
    with np.errstate(invalid="ignore"):
        found = bad / (bad + good)
    first = np.flatnonzero(ranking.bad > 0)[0]
    start = ranking.bad[first] / (ranking.bad[first] + ranking.good[first])
    return np.asarray(np.where(bad > 0, found, start))


def average_precision(ranking: Ranking) -> float:
    """Return the sum of precision times gain in recall, without interpolation."""
    gained = np.diff(ranking.recall)
    return float((gained * ranking.bad[1:] / (ranking.bad[1:] + ranking.good[1:])).sum())


def area(ranking: Ranking) -> float:
    """Return the area under the ROC curve; ties count half."""
    return float(np.trapezoid(ranking.recall, ranking.false_alarm))


def gini(ranking: Ranking) -> float:
    """Return the Gini coefficient, ``2 AUC - 1``, also called accuracy ratio."""
    return 2 * area(ranking) - 1


def kolmogorov_smirnov(ranking: Ranking) -> tuple[float, float]:
    """Return KS, the largest ``recall - false alarm``, and the score at which it is reached."""
    gap = ranking.recall - ranking.false_alarm
    best = int(np.argmax(gap))
    return float(gap[best]), float(ranking.scores[max(best - 1, 0)])


def gain(ranking: Ranking, grid: Floats = GRID) -> Floats:
    """Return the share of all bad rows among each ``grid`` share of rows of highest score."""
    return np.asarray(np.interp(grid, ranking.refused, ranking.recall))


def lift(ranking: Ranking, grid: Floats = GRID) -> Floats:
    """Return how many times more bad rows there are among the first than in all; at 0 the limit."""
    with np.errstate(invalid="ignore"):
        found = gain(ranking, grid) / grid
    return np.where(grid > 0, found, ranking.recall[1] / ranking.refused[1])


@dataclass(frozen=True)
class Calibration:
    """Rows in bins of rising score: mean score, observed share of bad, and rows of each bin.

    ``edges`` are the scores between bins; mean and share of an empty bin are NaN.
    """

    edges: Floats
    predicted: Floats
    observed: Floats
    rows: NDArray[np.intp]

    @property
    def error(self) -> float:
        """Expected calibration error: mean of ``|observed - predicted|``, weighted by rows."""
        weight = self.rows / self.rows.sum()
        return float(np.nansum(weight * np.abs(self.observed - self.predicted)))


def calibration(
    labels: np.ndarray, scores: Floats, bins: int = 10, edges: Floats | None = None
) -> Calibration:
    """Cut the rows at ``edges``, else into at most ``bins`` bins of about equal count.

    Equal scores stay together.
    """
    if edges is None:
        edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]))
        edges = edges[edges > scores.min()]
    bin_of = np.searchsorted(edges, scores, side="right")
    rows = np.bincount(bin_of, minlength=len(edges) + 1)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bin_of, scores, len(edges) + 1) / rows
        bad = np.bincount(bin_of, labels == 1, len(edges) + 1) / rows
    return Calibration(edges, mean, bad, rows)


def cost(
    labels: np.ndarray, scores: Floats, false_good: float, false_bad: float, grid: Floats = GRID
) -> Floats:
    """Return the cost per row at each threshold of ``grid``; refused is ``score >= threshold``."""
    bad = np.sort(scores[labels == 1])
    good = np.sort(scores[labels != 1])
    missed = np.searchsorted(bad, grid, side="left")
    refused = len(good) - np.searchsorted(good, grid, side="left")
    return np.asarray((missed * false_good + refused * false_bad) / len(scores), np.float64)
