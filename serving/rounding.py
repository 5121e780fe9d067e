"""Rounded answers: what a client sees of a model's probabilities, if it is to see less than all.

A probability with seven digits tells a client more about the model, and about the rows that taught
it, than a decision needs.  With ``score_decimals`` answers are rounded.  Decisions are made before,
on the exact probability, so that rounding changes none of them.

Reason codes would undo it: with the base they add up to the log-odds of the exact probability.  So
all contributions of a row are moved by the same amount until they add up to the log-odds of what
is answered, and rounded to as many decimals.  Their order stays, but for ties.
"""

from __future__ import annotations

import numpy as np


class Rounding:
    """Rounds the answers of a model.

    Args:
        decimals: Of probabilities and contributions.
        base: Log-odds of bad credit that contributions are counted from; 0 without reason codes.
    """

    def __init__(self, decimals: int, base: float = 0.0) -> None:
        self._decimals = decimals
        self._base = base
        # Half of the last decimal: an answer of 0 or 1 has no log-odds.
        self._edge = 0.5 * 10.0**-decimals

    def probability(self, exact: np.ndarray) -> np.ndarray:
        """Return float32 [rows] rounded."""
        return self._rounded(exact.astype(np.float64))

    def contribution(self, exact: np.ndarray, answered: np.ndarray) -> np.ndarray:
        """Return float32 [rows, fields], contributions that tell no more than the answer.

        Args:
            exact: float32 [rows, fields], log-odds towards bad credit, of all fields.
            answered: float32 [rows], the rounded probabilities.
        """
        share = np.clip(answered.astype(np.float64), self._edge, 1 - self._edge)
        wanted = np.log(share) - np.log1p(-share)
        exact = exact.astype(np.float64)
        away = wanted - self._base - exact.sum(axis=1)
        moved = exact + away[:, None] / exact.shape[1]
        return self._rounded(moved)

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        # The sum turns -0.0, which would say from which side it was rounded, into 0.0.
        found: np.ndarray = (np.round(values, self._decimals) + 0.0).astype(np.float32)
        return found
