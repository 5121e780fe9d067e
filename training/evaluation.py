"""Figures of a classifier, with bootstrap intervals, and the decision threshold.

Label 1 is bad credit.  A row is decided "bad" when its probability is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherscore.errors import TrainingError

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]

INTERVAL = (2.5, 97.5)
"""Percentiles of a 95 % bootstrap interval."""

_TINY = 1e-7
"""Probabilities are clipped this far from 0 and 1 before a logarithm is taken."""


def auc(labels: Labels, scores: Floats) -> float:
    """Return the area under the ROC curve; ties count half.  NaN when a class is absent."""
    positive = labels == 1
    count = int(positive.sum())
    other = len(labels) - count
    if not count or not other:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse][positive].sum())
    return (rank_sum - count * (count + 1) / 2) / (count * other)


def confusion(labels: Labels, probabilities: Floats, threshold: float) -> dict[str, int]:
    """Return the four counts; "bad" is the positive class."""
    bad, called_bad = labels == 1, probabilities >= threshold
    return {
        "bad_called_bad": int((bad & called_bad).sum()),
        "bad_called_good": int((bad & ~called_bad).sum()),
        "good_called_bad": int((~bad & called_bad).sum()),
        "good_called_good": int((~bad & ~called_bad).sum()),
    }


def cost_threshold(
    labels: Labels, probabilities: Floats, cost_false_good: float, cost_false_bad: float
) -> float:
    """Return the threshold of least total cost on validation rows.

    Candidates lie midway between neighbouring probabilities, so that rounding moves no row over
    the threshold.  Of equal costs the one nearest to the cost ratio
    ``cost_false_bad / (cost_false_good + cost_false_bad)`` wins: it is the best threshold of a
    calibrated model, whatever the sample.

    Raises:
        TrainingError: There is no row.
    """
    if not len(labels):
        raise TrainingError("a threshold needs validation rows, and there are none")
    order = np.argsort(probabilities, kind="stable")
    ordered = probabilities[order].astype(np.float64)
    bad = labels[order] == 1
    missed = np.concatenate([[0], np.cumsum(bad)]) * cost_false_good
    refused = np.concatenate([[0], np.cumsum(~bad)])
    cost = missed + (refused[-1] - refused) * cost_false_bad
    cuts = np.concatenate([[ordered[0] / 2], (ordered[1:] + ordered[:-1]) / 2])
    cuts = np.append(cuts, (ordered[-1] + 1) / 2)
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    cost = np.where(possible, cost, np.inf)
    fair = cost_false_bad / (cost_false_good + cost_false_bad)
    best = np.flatnonzero(cost <= cost.min() + 1e-9)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - fair))]])


def figures(
    labels: Labels, probabilities: Floats, threshold: float,
    cost_false_good: float, cost_false_bad: float,
) -> dict[str, float]:  # fmt: skip
    """Return all scalar figures; a ratio without rows is 0, an AUC without both classes NaN.

    ``expected_cost`` is per applicant, in the schema's cost unit.
    """
    counts = confusion(labels, probabilities, threshold)
    hit, missed = counts["bad_called_bad"], counts["bad_called_good"]
    alarm, passed = counts["good_called_bad"], counts["good_called_good"]
    rows = len(labels)
    clipped = np.clip(probabilities, _TINY, 1 - _TINY)
    result = {
        "auc": auc(labels, probabilities),
        "accuracy": (hit + passed) / rows,
        "log_loss": float(-np.log(np.where(labels == 1, clipped, 1 - clipped)).mean()),
        "brier": float(((probabilities - labels) ** 2).mean()),
        "expected_cost": (missed * cost_false_good + alarm * cost_false_bad) / rows,
    }
    for name, right, wrong, lost in (
        ("bad", hit, alarm, missed),
        ("good", passed, missed, alarm),
    ):
        result[f"precision_{name}"] = right / (right + wrong) if right + wrong else 0.0
        result[f"recall_{name}"] = right / (right + lost) if right + lost else 0.0
        doubled = 2 * right + wrong + lost
        result[f"f1_{name}"] = 2 * right / doubled if doubled else 0.0
    return result


def evaluate(
    labels: Labels, probabilities: Floats, threshold: float,
    cost_false_good: float, cost_false_bad: float,
    *, bootstrap: int = 1000, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Return every figure as ``{"value", "low", "high"}`` plus rows, threshold and confusion.

    ``low`` and ``high`` bound the 95 % percentile bootstrap interval over rows, resampled within
    each class so that no sample lacks one; they are absent with ``bootstrap=0``.

    Raises:
        TrainingError: There is no row, or the arrays' lengths differ.
    """
    if not len(labels) or len(labels) != len(probabilities):
        raise TrainingError(
            f"evaluation needs as many probabilities ({len(probabilities)}) as labels "
            f"({len(labels)}), and at least one"
        )
    chances = np.asarray(probabilities, np.float64)

    def measure(rows: NDArray[np.intp]) -> dict[str, float]:
        return figures(labels[rows], chances[rows], threshold, cost_false_good, cost_false_bad)

    values = measure(np.arange(len(labels)))
    intervals = _intervals(labels, measure, bootstrap, seed) if bootstrap else {}
    report: dict[str, Any] = {
        name: {"value": value, **intervals.get(name, {})} for name, value in values.items()
    }
    report["confusion"] = confusion(labels, chances, threshold)
    report["rows"] = len(labels)
    report["threshold"] = threshold
    return report


def _intervals(
    labels: Labels, measure: Callable[[NDArray[np.intp]], dict[str, float]], samples: int, seed: int
) -> dict[str, dict[str, float]]:
    generator = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == value) for value in (0, 1)]
    drawn: dict[str, list[float]] = {}
    for _ in range(samples):
        rows = np.concatenate([generator.choice(part, len(part)) for part in classes if len(part)])
        for name, value in measure(rows).items():
            drawn.setdefault(name, []).append(value)
    result = {}
    for name, values in drawn.items():
        low, high = np.percentile(values, INTERVAL)
        result[name] = {"low": float(low), "high": float(high)}
    return result
