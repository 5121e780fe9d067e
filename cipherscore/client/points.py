"""Fit a scorecard's points: ridge logistic regression on the levels of attributes.

Every level of every attribute has a weight, the log-odds of bad credit that it adds; an applicant's
are summed.  The weights minimise

    log-loss over the rows + ridge / 2 * sum of squared weights

by Newton's method (iteratively reweighted least squares; le Cessie and van Houwelingen, Applied
Statistics 41, 1992).  The second derivatives are two-way tables of attributes, so that no indicator
matrix is ever made.  How strong the ridge is decides cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RIDGES = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Strengths that are tried: the inverse variance that weights are expected to have."""
FOLDS = 5
TUNE_ROWS = 10_000
"""The ridge is chosen on about this many rows at most: with more of them it matters little."""
TUNE_RARE = 200
"""But on about this many rows of the rarer class at least, where there are as many."""
STEPS = 30
ENOUGH = 1e-8
"""A Newton step that promises less log-loss a row than this is the last one."""
CELLS = 1 << 21
"""Cells that are counted at once; it bounds memory."""

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Levels:
    """Levels of the attributes of some rows.

    Args:
        columns: int [rows, attributes], the number of each level among all levels of all
            attributes.
        starts: Number of each attribute's first level, and of all levels at the end.
    """

    columns: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, levels: np.ndarray, sizes: tuple[int, ...]) -> Levels:
        """Return levels given by their number in their attribute, int [rows, attributes]."""
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return cls((levels + starts[:-1]).astype(np.int32), starts)

    def take(self, rows: np.ndarray) -> Levels:
        """Return some rows."""
        return Levels(self.columns[rows], self.starts)

    def every(self, step: int) -> Levels:
        """Return every ``step``-th row."""
        return Levels(self.columns[::step], self.starts)

    def sums(self, weights: Weights) -> NDArray[np.float64]:
        """Return float64 [rows]: the sum of each row's weights."""
        total = np.zeros(len(self.columns))
        for column in self.columns.T:
            total += weights[column]
        return total

    def totals(self, values: NDArray[np.float64]) -> Weights:
        """Return float64 [levels]: the sum of ``values`` [rows] over the rows of each level."""
        found = np.zeros(self.starts[-1])
        for column, low, high in zip(
            self.columns.T, self.starts[:-1], self.starts[1:], strict=True
        ):
            found[low:high] = np.bincount(column - low, values, high - low)
        return found

    def tables(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64 [levels, levels]: the sum of ``values`` over rows that have both."""
        rows, attributes = self.columns.shape
        width = int(self.starts[-1])
        found = np.zeros((width, width))
        step = max(1, CELLS // attributes)
        bounds = list(zip(self.starts[:-1], self.starts[1:], strict=True))
        for first in range(0, rows, step):
            columns = self.columns[first : first + step].astype(np.int64)
            for place, (low, high) in enumerate(bounds):  # the other half is the same
                later = columns[:, place:]
                cells = (columns[:, place] - low)[:, None] * width + later
                part = np.repeat(values[first : first + step], later.shape[1])
                counts = np.bincount(cells.ravel(), part, int(high - low) * width)
                found[low:high] += counts.reshape(-1, width)
        for low, high in bounds:
            found[high:, low:high] = found[low:high, high:].T
        return found


def fit_weights(levels: Levels, label: np.ndarray, ridge: float, start: Weights) -> Weights:
    """Return float64 [1 + levels]: the intercept, which is not shrunk, and the weights.

    Args:
        levels: Of the rows to learn from.
        label: int8 [rows], 1 = bad credit; both classes occur.
        ridge: Strength of the ridge, above 0.
        start: Weights to begin at; zeros will do.
    """
    weights = np.array(start, np.float64)
    penalty = np.full(len(weights), ridge)
    penalty[0] = 0.0
    loss = _loss(levels, label, weights, penalty)
    for _ in range(STEPS):
        chance = _chance(levels, weights)
        error, spread = chance - label, chance * (1 - chance)
        slope = np.concatenate([[error.sum()], levels.totals(error)]) + penalty * weights
        cross = levels.totals(spread)
        curve = np.block([[spread.sum(), cross], [cross[:, None], levels.tables(spread)]])
        curve[np.diag_indices_from(curve)] += penalty + 1e-9
        step = np.linalg.solve(curve, slope)
        gain, size = float(slope @ step), 1.0
        while (new := _loss(levels, label, weights - size * step, penalty)) > loss and size > 1e-4:
            size /= 2
        if new > loss:
            break
        weights, loss = weights - size * step, new
        if gain < ENOUGH * len(label):
            break
    return weights


def best_weights(levels: Levels, label: np.ndarray) -> Weights:
    """Return float64 [levels], the weights with the ridge that cross-validation chooses.

    Args:
        levels: Of the rows to learn from.
        label: int8 [rows], 1 = bad credit.
    """
    rare = int(np.bincount(label, minlength=2).min())
    step = max(1, min(-(-len(label) // TUNE_ROWS), rare // TUNE_RARE))
    ridge = choose_ridge(levels.every(step), label[::step])
    weights = np.zeros(1 + int(levels.starts[-1]))
    for stride in dict.fromkeys((step, 1)):  # from few rows to all: fewer steps on all
        weights = fit_weights(levels.every(stride), label[::stride], ridge, weights)
    return weights[1:]


def choose_ridge(levels: Levels, label: np.ndarray) -> float:
    """Return the ridge of the smallest cross-validated log-loss; the same rows give the same one.

    Rows are dealt over `FOLDS` folds class by class.  With too few rows of a class for that it is
    the strongest one.
    """
    generator = np.random.default_rng(0)
    fold = np.empty(len(label), np.int64)
    for value in (0, 1):
        rows = generator.permutation(np.flatnonzero(label == value))
        if len(rows) < FOLDS:
            return RIDGES[0]
        fold[rows] = np.arange(len(rows)) % FOLDS
    losses = np.zeros(len(RIDGES))
    for number in range(FOLDS):
        learned, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        own, other = levels.take(learned), levels.take(held)
        weights = np.zeros(1 + int(levels.starts[-1]))
        for place, ridge in enumerate(RIDGES):  # from strong to weak: each starts near its end
            weights = fit_weights(own, label[learned], ridge, weights)
            losses[place] += _loss(other, label[held], weights, np.zeros(len(weights)))
    return RIDGES[int(np.argmin(losses))]


def _chance(levels: Levels, weights: Weights) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-(weights[0] + levels.sums(weights[1:])))))


def _loss(levels: Levels, label: np.ndarray, weights: Weights, penalty: Weights) -> float:
    margin = weights[0] + levels.sums(weights[1:])
    loss = np.logaddexp(0, margin).sum() - margin[label == 1].sum()
    return float(loss + 0.5 * (penalty * weights * weights).sum())
