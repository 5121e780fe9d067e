"""Everything the report says of the one method it evaluates in depth, from out-of-fold predictions.

Figures that are one number a fold (AUC, KS, cost, ...) have the mean over folds and the corrected
interval of `evaluation.paired`; curves and counts have a bootstrap band over rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cipherscore.schema import Target
from evaluation import curves
from evaluation.curves import GRID, Calibration, Floats, Ranking
from evaluation.paired import Estimate, estimate
from evaluation.plan import Plan
from evaluation.pooled import Band, OutOfFold, band

Content = dict[str, Any]

CALIBRATION_BINS = 10

FOLD_FIGURES = ("auc", "gini", "ks", "average_precision", "accuracy", "log_loss", "brier")
"""Figures of a fold that need no decision, or decide at probability 0.5."""

LIMITS = {"gini": (-1.0, 1.0), "log_loss": (0.0, math.inf),
          "expected_cost_at_threshold": (0.0, math.inf)}  # fmt: skip
"""Least and largest value of a figure, where they are not 0 and 1."""
UNIT = (0.0, 1.0)

CLASS_FIGURES = ("precision", "recall", "f1")


def headline(entries: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Content]:
    """Return mean and interval over folds of every single figure of the main method."""
    found = {name: [entry[name] for entry in entries] for name in FOLD_FIGURES}
    found["threshold"] = [entry["threshold"] for entry in entries]
    for name in ("accuracy", "expected_cost"):
        found[f"{name}_at_threshold"] = [entry["tuned"][name] for entry in entries]
    found["train_auc"] = [entry["train_auc"] for entry in entries]
    return {
        name: asdict(estimate(values, plan.test_share, LIMITS.get(name, UNIT)))
        for name, values in found.items()
    }


def per_class(
    entries: Sequence[Mapping[str, Any]], label: np.ndarray, plan: Plan
) -> dict[str, Content]:
    """Return precision, recall and F1 of each class at the folds' own thresholds."""
    report: dict[str, Content] = {}
    for name, value in (("good", 0), ("bad", 1)):
        report[name] = {"rows": int((label == value).sum())}
        for figure in CLASS_FIGURES:
            values = [entry["tuned"][f"{figure}_{name}"] for entry in entries]
            report[name][figure] = asdict(estimate(values, plan.test_share, UNIT))
    return report


def curve_bands(data: OutOfFold, target: Target, plan: Plan) -> dict[str, Content]:
    """Return ROC, precision-recall, gain, lift and cost on `GRID`, and calibration in bins."""
    measures = {
        "roc": curves.roc, "precision_recall": curves.precision, "gain": curves.gain,
        "lift": curves.lift,
    }  # fmt: skip
    names = list(measures)

    def ranked(sample: OutOfFold) -> Floats:
        def all_curves(label: np.ndarray, chance: Floats) -> Floats:
            ranking = Ranking.of(label, chance)
            return np.stack([measures[name](ranking) for name in names])

        return sample.mean(all_curves)

    def costs(sample: OutOfFold) -> Floats:
        return sample.mean(
            lambda label, chance: curves.cost(
                label, chance, target.cost_false_good, target.cost_false_bad
            )
        )

    rank_band = band(data, ranked, plan.samples)
    report = {
        name: {"grid": GRID.tolist(), **_lists(_part(rank_band, place))}
        for place, name in enumerate(names)
    }
    bad = float((data.label == 1).mean())
    report["cost"] = {
        "grid": GRID.tolist(),
        **_lists(band(data, costs, plan.samples)),
        "accept_all": bad * target.cost_false_good,
        "refuse_all": (1 - bad) * target.cost_false_bad,
        "ratio_threshold": target.cost_false_bad / (target.cost_false_good + target.cost_false_bad),
    }
    report["calibration"] = _calibration(data, plan)
    report["ks"] = _separation(data)
    return report


def confusion(data: OutOfFold, plan: Plan) -> Content:
    """Return the four counts at the folds' own thresholds, mean over repeats, and their bands."""

    def counts(sample: OutOfFold) -> Floats:
        bad, refused = sample.label == 1, sample.refused
        return np.array([
            refused[bad].sum(), (1 - refused[bad]).sum(),
            refused[~bad].sum(), (1 - refused[~bad]).sum(),
        ])  # fmt: skip

    found = band(data, counts, plan.samples)
    names = ("bad_called_bad", "bad_called_good", "good_called_bad", "good_called_good")
    return {
        name: {"value": value, "low": low, "high": high}
        for name, value, low, high in zip(
            names, found.value.tolist(), found.low.tolist(), found.high.tolist(), strict=True
        )
    }


def learning_curve(
    learning: Mapping[str, Mapping[str, Any]], main: Sequence[Mapping[str, Any]], plan: Plan
) -> list[Content]:
    """Return test and training AUC by number of training rows; the last point has all of them."""
    points = []
    for share in (*plan.shares, 1.0):
        prefix = f"{share}/"
        if share == 1:
            entries = main[: plan.learning_folds]
        else:
            entries = [entry for key, entry in learning.items() if key.startswith(prefix)]
        points.append(
            {
                "share": share,
                "rows": round(float(np.mean([entry["learned_rows"] for entry in entries]))),
                "test": _estimate([entry["auc"] for entry in entries], plan),
                "train": _estimate([entry["train_auc"] for entry in entries], plan),
            }
        )
    return points


def seed_spread(
    seeds: Mapping[str, Mapping[str, Any]], main: Sequence[Mapping[str, Any]], plan: Plan
) -> Content:
    """Return the mean AUC of the same folds for each seed, and how far it moves between seeds.

    ``sd_of_mean`` is the standard deviation over seeds of the mean over folds, ``sd_in_fold`` that
    of a single fold's AUC over seeds, averaged over folds as a variance.
    """
    first = [entry["auc"] for entry in main[: plan.seed_folds]]
    table = [first] + [
        [entry["auc"] for key, entry in seeds.items() if key.startswith(f"{number}/")]
        for number in range(1, plan.seeds)
    ]
    values = np.array(table)
    return {
        "folds": len(first),
        "means": values.mean(axis=1).tolist(),
        "sd_of_mean": float(values.mean(axis=1).std(ddof=1)) if len(table) > 1 else None,
        "sd_in_fold": float(np.sqrt(values.var(axis=0, ddof=1).mean())) if len(table) > 1 else None,
    }


def _calibration(data: OutOfFold, plan: Plan) -> Content:
    """Return the bins of all repeats together, with intervals of the observed shares."""

    def bins(sample: OutOfFold, edges: Floats | None) -> Calibration:
        label = np.tile(sample.label, sample.repeats)
        return curves.calibration(label, sample.chance.ravel(), CALIBRATION_BINS, edges)

    found = bins(data, None)

    def measure(sample: OutOfFold) -> Floats:
        made = bins(sample, found.edges)
        return np.append(made.observed, made.error)

    spread = band(data, measure, plan.samples)
    return {
        "predicted": found.predicted.tolist(),
        "observed": found.observed.tolist(),
        "low": spread.low[:-1].tolist(),
        "high": spread.high[:-1].tolist(),
        "rows": (found.rows / data.repeats).round(1).tolist(),
        "error": {
            "value": found.error, "low": float(spread.low[-1]), "high": float(spread.high[-1]),
        },
    }  # fmt: skip


def _separation(data: OutOfFold) -> Content:
    """Return the share of each class with a score of at least each point of `GRID`: the KS plot."""

    def share(value: int) -> list[float]:
        chances = data.chance[:, data.label == value]
        return [float((chances >= point).mean()) for point in GRID]

    return {"grid": GRID.tolist(), "bad": share(1), "good": share(0)}


def _part(found: Band, place: int) -> Band:
    return Band(found.value[place], found.low[place], found.high[place])


def _lists(found: Band) -> Content:
    return {"value": found.value.tolist(), "low": found.low.tolist(), "high": found.high.tolist()}


def _estimate(values: Sequence[float], plan: Plan) -> Content:
    found: Estimate = estimate(values, plan.test_share, UNIT)
    return asdict(found)
