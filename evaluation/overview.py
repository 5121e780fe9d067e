"""What the data look like, as aggregates only: no row, and no category of fewer than five rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]

from cipherscore.client.tables import field_column, level_indices
from evaluation.fairness import LEAST_SHOWN
from evaluation.folds import RawData

Content = dict[str, Any]

BOX = (5, 25, 50, 75, 95)
"""Percentiles of a box plot: whiskers at the outer ones, so that no single row can be seen."""


def overview(raw: RawData) -> Content:
    """Return class balance, boxes of numeric fields, levels of categories, and correlations."""
    bad = int((raw.label == 1).sum())
    levels = encoded(raw)
    names = [f.name for f in raw.schema.inputs]
    with_target = np.column_stack([levels, raw.label])
    return {
        "rows": raw.rows,
        "fields": len(names),
        "classes": {"good": raw.rows - bad, "bad": bad},
        "numeric": [
            _box(raw, f.name, f.unit) for f in raw.schema.inputs if f.kind == "numeric"
        ],
        "categories": [
            _levels(raw, f.name) for f in raw.schema.inputs if f.kind != "numeric"
        ],
        "correlation": {
            "names": [*names, raw.schema.target.name],
            "cramers_v": _table(with_target, cramers_v),
            "pearson": np.nan_to_num(np.corrcoef(with_target, rowvar=False)).tolist(),
        },
    }  # fmt: skip


def encoded(raw: RawData) -> NDArray[np.int64]:
    """Return the position of each cell's level, int64 [rows, fields], bins fitted on all rows."""
    fitted = raw.fitted(np.arange(raw.rows))
    columns = [level_indices(field_column(raw.table, f), f) for f in fitted.inputs]
    return np.stack(columns, axis=1).astype(np.int64)


def cramers_v(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return Cramer's V of two columns of levels with Bergsma's correction for bias (2013).

    0 is independence, 1 that each level of one goes with one level of the other.
    """
    rows = len(first)
    left, right = (np.unique(column, return_inverse=True)[1] for column in (first, second))
    table = np.zeros((left.max() + 1, right.max() + 1))
    np.add.at(table, (left, right), 1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / rows
    phi = float(((table - expected) ** 2 / expected).sum()) / rows
    height, width = table.shape
    phi = max(0.0, phi - (height - 1) * (width - 1) / (rows - 1))
    height = height - (height - 1) ** 2 / (rows - 1)
    width = width - (width - 1) ** 2 / (rows - 1)
    least = min(height, width) - 1
    return float(np.sqrt(phi / least)) if least > 0 else 0.0


def _table(columns: NDArray[np.int64], measure: Any) -> list[list[float]]:
    width = columns.shape[1]
    found = np.eye(width)
    for row in range(width):
        for column in range(row):
            value = measure(columns[:, row], columns[:, column])
            found[row, column] = found[column, row] = value
    return [[float(value) for value in row] for row in found]


def _box(raw: RawData, name: str, unit: str) -> Content:
    values = raw.numbers(name)
    entry: Content = {"field": name, "unit": unit, "absent": int(np.isnan(values).sum())}
    for text, value in (("good", 0), ("bad", 1)):
        part = values[(raw.label == value) & np.isfinite(values)]
        shown = len(part) >= 4 * LEAST_SHOWN
        entry[text] = np.percentile(part, BOX).tolist() if shown else None
    entry["auc"] = _alone(values, raw.label)
    return entry


def _alone(values: NDArray[np.float64], label: np.ndarray) -> float | None:
    """Return the AUC of the field by itself, the better direction; absent cells left out."""
    present = np.isfinite(values)
    ranks, bad = rankdata(values[present]), label[present] == 1
    if not bad.any() or bad.all():
        return None
    count = int(bad.sum())
    area = (ranks[bad].sum() - count * (count + 1) / 2) / (count * int((~bad).sum()))
    return float(max(area, 1 - area))


def _levels(raw: RawData, name: str) -> Content:
    """Return rows and share of bad of each level; levels of too few rows are put together."""
    field = {f.name: f for f in raw.schema.inputs}[name]
    texts = raw.texts(name)
    values, counts = np.unique(texts, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [
        {
            "value": str(values[place]),
            "meaning": field.categories.get(str(values[place]), ""),
            "rows": int(counts[place]),
            "bad_share": float(raw.label[texts == values[place]].mean()),
        }
        for place in order
        if counts[place] >= LEAST_SHOWN
    ]
    return {"field": name, "levels": shown, "rare_levels": len(values) - len(shown)}
