"""Figures by the groups of protected fields, on the owner's side, where groups can be read.

Every row is judged by models that did not learn from it, at the threshold of its fold.  Approved
means called good.  All intervals are 95 % bootstrap intervals over rows, drawn inside each group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cipherscore.schema import Field
from evaluation.folds import RawData, Rows
from evaluation.pooled import INTERVAL, OutOfFold
from training.evaluation import auc

Content = dict[str, Any]

LEAST_SHOWN = 5
"""Groups of fewer rows are not shown by value."""
SMALL_ROWS, SMALL_CLASS = 50, 10
"""Groups of fewer rows, or of fewer rows of a class, are flagged: their figures say little."""
BANDS = 4
"""Groups that a numeric field is cut into, of about equal count."""

FIGURES = (
    "base_rate", "approval_rate", "recall", "false_alarm", "good_approved", "auc", "predicted",
    "calibration_gap",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Rows of one group: ``value`` as in the table, and what it means."""

    value: str
    meaning: str
    rows: Rows


def protected_fields(raw: RawData) -> list[Field]:
    """Return the fields, or attributes of scorecards, that the schema marks as protected."""
    return [field for field in raw.schema.inputs if field.protected]


def groups_of(raw: RawData, field: Field) -> list[Group]:
    """Return the groups of a field: its codes, or `BANDS` bands of a numeric field; none is empty.

    Bands are cut at quantiles of all rows, so they do not depend on a fold's bins.
    """
    if field.kind == "numeric":
        return list(_bands(raw.numbers(field.name), field.unit))
    texts = raw.texts(field.name)
    values = sorted(set(texts.tolist()))
    return [
        Group(value, field.categories.get(value, ""), np.flatnonzero(texts == value))
        for value in values
    ]


def by_group(raw: RawData, data: OutOfFold, samples: int, seed: int = 0) -> list[Content]:
    """Return figures of each group of each protected field.

    The reference group is the largest one.  ``ratio`` is a group's approval rate divided by the
    reference's (disparate impact; below 0.8 the four-fifths rule of 29 CFR 1607.4 D speaks of
    adverse impact), ``opportunity`` its share of approved among good applicants minus the
    reference's (equal opportunity difference; Hardt, Price and Srebro, NeurIPS 2016).
    """
    report = []
    for number, field in enumerate(protected_fields(raw)):
        groups = groups_of(raw, field)
        shown = [group for group in groups if len(group.rows) >= LEAST_SHOWN]
        entry: Content = {
            "field": field.name,
            "description": field.description,
            "hidden_groups": len(groups) - len(shown),
        }
        entry["groups"] = _compared(shown, data, samples, [seed, number]) if shown else []
        report.append(entry)
    return report


def figures_of(data: OutOfFold) -> dict[str, float]:
    """Return the figures of one group's rows; NaN where a class is absent.

    ``recall`` is the share of bad applicants refused (TPR), ``false_alarm`` that of good applicants
    refused (FPR), ``calibration_gap`` the mean probability minus the observed share of bad.
    """
    bad, refused = data.label == 1, data.refused
    chance = data.chance.mean(axis=0)
    false_alarm = _mean(refused[~bad])
    areas = [auc(data.label, scores) for scores in data.chance]
    return {
        "base_rate": _mean(bad),
        "approval_rate": 1 - _mean(refused),
        "recall": _mean(refused[bad]),
        "false_alarm": false_alarm,
        "good_approved": 1 - false_alarm,
        "auc": float(np.mean(areas)),
        "predicted": _mean(chance),
        "calibration_gap": _mean(chance) - _mean(bad),
    }


def _compared(groups: list[Group], data: OutOfFold, samples: int, seed: list[int]) -> list[Content]:
    parts = [data.of(group.rows) for group in groups]
    reference = int(np.argmax([len(part.label) for part in parts]))
    generator = np.random.default_rng(seed)
    values = [figures_of(part) for part in parts]
    drawn = [
        [
            figures_of(part.of(generator.integers(len(part.label), size=len(part.label))))
            for _ in range(samples)
        ]
        for part in parts
    ]
    report = []
    for place, (group, part) in enumerate(zip(groups, parts, strict=True)):
        bad = int((part.label == 1).sum())
        entry: Content = {
            "value": group.value,
            "meaning": group.meaning,
            "rows": len(part.label),
            "small": len(part.label) < SMALL_ROWS or min(bad, len(part.label) - bad) < SMALL_CLASS,
            "reference": place == reference,
        }
        for name in FIGURES:
            entry[name] = _interval(values[place][name], [d[name] for d in drawn[place]])
        if place != reference:
            entry |= _against(values[place], values[reference], drawn[place], drawn[reference])
        report.append(entry)
    return report


def _against(
    own: dict[str, float], reference: dict[str, float],
    drawn: list[dict[str, float]], reference_drawn: list[dict[str, float]],
) -> Content:  # fmt: skip
    pairs = list(zip(drawn, reference_drawn, strict=True))
    rate, good = "approval_rate", "good_approved"
    return {
        "ratio": _interval(
            _ratio(own[rate], reference[rate]), [_ratio(a[rate], b[rate]) for a, b in pairs]
        ),
        "opportunity": _interval(
            own[good] - reference[good], [a[good] - b[good] for a, b in pairs]
        ),
    }


def _interval(value: float, drawn: list[float]) -> Content:
    known = [number for number in drawn if not math.isnan(number)]
    low, high = np.percentile(known, INTERVAL) if known else (math.nan, math.nan)
    return {"value": value, "low": float(low), "high": float(high)}


def _bands(values: NDArray[np.float64], unit: str) -> Iterator[Group]:
    present = values[np.isfinite(values)]
    cuts = np.unique(np.quantile(present, np.linspace(0, 1, BANDS + 1)[1:-1], method="nearest"))
    cuts = cuts[cuts > present.min()]
    band_of = np.searchsorted(cuts, values, side="right")
    band_of[~np.isfinite(values)] = -1
    for number in range(len(cuts) + 1):
        rows = np.flatnonzero(band_of == number)
        low = f"{cuts[number - 1]:g} to " if number else ""
        high = f"below {cuts[number]:g}" if number < len(cuts) else ""
        text = (low + high) if high else f"{cuts[number - 1]:g} or more" if number else "all"
        yield Group(text, unit, rows)
    if (band_of == -1).any():
        yield Group("absent", "", np.flatnonzero(band_of == -1))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else math.nan
