"""How well scores tell members from others: AUC, true positives at few false ones, advantage.

Scores of several attacked models are ranked together, as one attacker with one threshold would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.classifier.answers import Floats
from attacks.recovery import INTERVAL

DRAWS = 400
"""Bootstrap samples; each ranks all scores anew."""
FALSE_SHARES = {"tpr_1": 0.01, "tpr_01": 0.001}
"""Shares of false positives at which true ones are counted."""
LEAST_FALSE = 0.5
"""False positives among a model's rows outside, below which a figure is left out."""


def membership_figures(
    scores: Floats, members: NDArray[np.bool_], seed: int, *, draws: int = DRAWS
) -> dict[str, dict[str, float]]:
    """Return figures with 95 % bootstrap intervals over attacked models and rows, both redrawn.

    ``auc``; the share of members found at 1 % and at 0.1 % false positives (``tpr_1``, ``tpr_01``),
    only where a model has rows enough outside to have half of a false positive; and ``advantage``,
    the largest difference of both shares, which is above 0 by chance, too: compare it with a
    control's.  Between equal scores the attacker tosses a coin.

    Args:
        scores: float64 [models, rows], larger for likelier members.
        members: bool [models, rows].
        seed: Of the bootstrap.
        draws: Its samples.
    """
    curve = _Curve(scores, members)
    least = int((~members).sum(axis=1).min())
    wanted = {
        name: share
        for name, share in FALSE_SHARES.items()
        if round(share * least, 9) >= LEAST_FALSE
    }
    models, rows = scores.shape
    found = curve.figures(np.ones(models), np.ones(rows), wanted)
    random = np.random.default_rng(seed)
    drawn = [
        curve.figures(_counts(random, models), _counts(random, rows), wanted) for _ in range(draws)
    ]
    return {name: _estimate(value, [one[name] for one in drawn]) for name, value in found.items()}


class _Curve:
    """Scores in falling order, with what they belong to."""

    def __init__(self, scores: Floats, members: NDArray[np.bool_]) -> None:
        order = np.argsort(-scores, axis=None, kind="stable")
        self.model, self.row = np.unravel_index(order, scores.shape)
        self.member = members.ravel()[order]
        ranked = scores.ravel()[order]
        self.ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))

    def figures(
        self, models: Floats, rows: Floats, false_shares: dict[str, float]
    ) -> dict[str, float]:
        """Return the figures where each model and row counts as often as given."""
        weight = models[self.model] * rows[self.row]
        true = _shares(weight * self.member, self.ends)
        false = _shares(weight * ~self.member, self.ends)
        return {
            "auc": float(np.trapezoid(true, false)),
            **{name: float(np.interp(at, false, true)) for name, at in false_shares.items()},
            "advantage": float((true - false).max()),
        }


def _shares(weight: Floats, ends: NDArray[np.intp]) -> Floats:
    """Return the share of weight down to each end of equal scores, from 0 to 1."""
    total = np.cumsum(weight)
    found: Floats = np.concatenate([[0.0], total[ends] / total[-1]])
    return found


def _counts(random: np.random.Generator, count: int) -> Floats:
    if count == 1:
        return np.ones(1)
    return np.bincount(random.integers(count, size=count), minlength=count).astype(np.float64)


def _estimate(value: float, drawn: list[float]) -> dict[str, Any]:
    low, high = np.percentile(drawn, INTERVAL) if drawn else (value, value)
    return {"mean": value, "low": float(low), "high": float(high)}
