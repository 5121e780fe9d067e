"""Out-of-fold predictions of one method: every row scored by models that did not learn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.folds import Fold, Rows

Floats = NDArray[np.float64]

INTERVAL = (2.5, 97.5)
"""Percentiles of a 95 % bootstrap interval."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of a whole table.

    Args:
        label: int8 [rows], 1 = bad credit.
        chance: float64 [repeats, rows], probability of bad credit.
        threshold: float64 [repeats, rows], the one of the fold the row was tested in.
    """

    label: np.ndarray
    chance: Floats
    threshold: Floats

    @classmethod
    def collect(
        cls, label: np.ndarray, folds: Sequence[Fold], results: Mapping[str, Mapping[str, Any]]
    ) -> OutOfFold:
        """Put the folds' predictions together; every row is tested once in each repeat."""
        repeats = 1 + max(fold.repeat for fold in folds)
        chance = np.full((repeats, len(label)), np.nan)
        threshold = np.full((repeats, len(label)), np.nan)
        for fold in folds:
            entry = results[fold.name]
            chance[fold.repeat, fold.test] = entry["probabilities"]
            threshold[fold.repeat, fold.test] = entry["threshold"]
        assert not np.isnan(chance).any(), "a row was not tested"
        return cls(label, chance, threshold)

    @property
    def repeats(self) -> int:
        """Number of repeats."""
        return len(self.chance)

    @property
    def refused(self) -> Floats:
        """Share of the repeats in which each row is called bad, float64 [rows]."""
        return np.asarray((self.chance >= self.threshold).mean(axis=0), np.float64)

    def of(self, rows: Rows) -> OutOfFold:
        """Return the predictions of some rows, which may repeat."""
        return replace(
            self,
            label=self.label[rows],
            chance=self.chance[:, rows],
            threshold=self.threshold[:, rows],
        )

    def mean(self, measure: Callable[[np.ndarray, Floats], Floats]) -> Floats:
        """Return the mean over repeats of what ``measure`` makes of labels and scores."""
        found = [measure(self.label, chance) for chance in self.chance]
        return np.asarray(np.mean(found, axis=0), np.float64)


@dataclass(frozen=True)
class Band:
    """A figure or curve with its 95 % bootstrap interval over rows."""

    value: Floats
    low: Floats
    high: Floats


def band(
    data: OutOfFold, measure: Callable[[OutOfFold], Floats], samples: int, seed: int = 0
) -> Band:
    """Return ``measure`` of the rows with its interval.

    Rows are drawn with replacement inside each class, so that no sample lacks one, and a row brings
    its predictions of all repeats with it.  The models are not trained again: the interval is that
    of the sample of applicants, given these models.
    """
    generator = np.random.default_rng(seed)
    classes = [np.flatnonzero(data.label == value) for value in (0, 1)]
    drawn = []
    for _ in range(samples):
        rows = np.concatenate([generator.choice(part, len(part)) for part in classes if len(part)])
        drawn.append(measure(data.of(rows)))
    low, high = np.nanpercentile(drawn, INTERVAL, axis=0)
    return Band(np.asarray(measure(data)), np.asarray(low), np.asarray(high))
