"""All methods beside each other, with paired tests against the one evaluated in depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evaluation.contestants import MAIN, Contestant
from evaluation.paired import compare, estimate, holm
from evaluation.plan import Plan

Content = dict[str, Any]

UNIT = (0.0, 1.0)
LIMITS = {"expected_cost": (0.0, math.inf), "log_loss": (0.0, math.inf)}
"""Least and largest value of a figure, where they are not `UNIT`."""

FIGURES = ("auc", "accuracy", "expected_cost", "log_loss", "brier", "ks")

PUBLISHED = {"german-credit": ({"method": "plain Keras network", "accuracy": 0.70},
                               {"method": "token classifier", "accuracy": 0.75})}  # fmt: skip
"""What the capstone published for a table: accuracies of one split, without an interval."""


def comparison(
    methods: Sequence[Contestant],
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    plan: Plan,
) -> list[Content]:
    """Return a row per method: figures with intervals, and its difference to the main method.

    A method that runs on fewer folds is compared on those.
    """
    main = results[MAIN]
    rows = [_row(method, results[method.name], main, plan) for method in methods]
    for figure in ("auc", "accuracy"):
        tests = [row["difference"][figure] for row in rows[1:]]
        adjusted = holm([test["p"] for test in tests])
        for test, p in zip(tests, adjusted, strict=True):
            test["p_holm"] = p
    return rows


def token_cost(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float | None:
    """Return the largest difference of a fold's AUC between tokens and plain levels."""
    tokens, plain = results[MAIN], results.get("plain", {})
    shared = tokens.keys() & plain.keys()
    return max((abs(tokens[key]["auc"] - plain[key]["auc"]) for key in shared), default=None)


def _row(
    method: Contestant,
    own: Mapping[str, Mapping[str, Any]],
    main: Mapping[str, Mapping[str, Any]],
    plan: Plan,
) -> Content:
    keys = list(own)
    row: Content = {
        "name": method.name,
        "title": method.title,
        "sees": method.sees,
        "folds": len(keys),
        "most_rows": method.most_rows,
        "learned_rows": max((own[key]["learned_rows"] for key in keys), default=0),
        "seconds": math.fsum(own[key]["seconds"] for key in keys) / max(1, len(keys)),
        "figures": {
            name: asdict(
                estimate([own[key][name] for key in keys], plan.test_share, LIMITS.get(name, UNIT))
            )
            for name in FIGURES
        },
    }
    if method.name != MAIN:
        row["difference"] = {}
        for name in ("auc", "accuracy"):
            found = compare(
                [main[key][name] for key in keys], [own[key][name] for key in keys],
                plan.test_share,
            )  # fmt: skip
            row["difference"][name] = {**asdict(found.estimate), "t": found.t, "p": found.p}
    return row
