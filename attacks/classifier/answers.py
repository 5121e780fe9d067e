"""What a scoring service answers, and how much of it an attacker sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]

from attacks.view import Indices

Floats = NDArray[np.float64]

_EXACT = 1e-6
"""Two probabilities that differ by less are the same: networks answer in float32."""
_LEAST = 1e-12


@dataclass(frozen=True)
class AnswerForm:
    """How a probability is told.

    Args:
        name: Key in results.
        title: What the report calls it.
        decimals: It is rounded to these; None for not at all.
        decision: Whether only "bad" or "good" is told, and no probability.
    """

    name: str
    title: str
    decimals: int | None = None
    decision: bool = False

    def of(self, probability: Floats, threshold: float) -> Floats:
        """Return what is told, float64 [rows]: a probability, or 1 for bad and 0 for good."""
        if self.decision:
            return (probability >= threshold).astype(np.float64)
        if self.decimals is None:
            return probability
        rounded: Floats = np.round(probability, self.decimals)
        return rounded

    def bounds(self, told: Floats, threshold: float) -> tuple[Floats, Floats]:
        """Return the least and the largest probability behind each answer."""
        if self.decision:
            return np.where(told == 1, threshold, 0.0), np.where(told == 1, 1.0, threshold)
        reach = _EXACT if self.decimals is None else 0.5 * 10.0**-self.decimals + _EXACT
        return np.clip(told - reach, 0, 1), np.clip(told + reach, 0, 1)

    def confidence(self, told: Floats, label: NDArray[np.int8], threshold: float) -> Floats:
        """Return the logit of the true class's probability, as far as the answer tells it.

        An answer of 0 or 1 after rounding counts as half of the last digit away from it; a decision
        counts 1 where it is right and 0 where it is wrong.
        """
        if self.decision:
            right: Floats = (told == label).astype(np.float64)
            return right
        low, high = self.bounds(told, threshold)
        middle = np.clip((low + high) / 2, _LEAST, 1 - _LEAST)
        found: Floats = np.where(label == 1, 1.0, -1.0) * logit(middle)
        return found

    def log_likelihood(
        self, told: Floats, expected: Floats, spread: float, threshold: float
    ) -> Floats:
        """Return how likely an answer is, as a logarithm, in the common shape of its arguments.

        Args:
            told: Answers of this form.
            expected: Logits that the attacker expects.
            spread: Standard deviation of the true logit around them; 0 for none, where answers that
                cannot be count as a millionth.
            threshold: Of the decision.
        """
        low, high = (logit(end) for end in self.bounds(told, threshold))
        if spread == 0:
            possible = (expected >= low) & (expected <= high)
            return np.where(possible, 0.0, math.log(_EXACT))
        inside = norm.cdf(high, expected, spread) - norm.cdf(low, expected, spread)
        found: Floats = np.log(np.maximum(inside, _LEAST))
        return found


FULL = AnswerForm("full", "probability")
TWO = AnswerForm("two", "probability, 2 decimals", decimals=2)
ONE = AnswerForm("one", "probability, 1 decimal", decimals=1)
DECISION = AnswerForm("decision", "decision only", decision=True)
FORMS = {form.name: form for form in (FULL, TWO, ONE, DECISION)}


class ScoringModel(Protocol):
    """A classifier that an attacker asks, or has trained, on plain levels."""

    def probability(self, levels: Indices) -> Floats:
        """Return the probability of bad credit, float64 [rows], of int32 [rows, fields]."""

    def contributions(self, levels: Indices) -> Floats:
        """Return what each field contributes to the logit, float64 [rows, fields]."""


def logit(probability: Floats) -> Floats:
    """Return log-odds; of 0 and 1 large finite ones."""
    inside = np.clip(probability, _LEAST, 1 - _LEAST)
    found: Floats = np.log(inside) - np.log1p(-inside)
    return found
