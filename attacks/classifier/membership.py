"""Was a row in the training table?  Attacks that see a model's signal for the row.

The signal is a number per row that tends to be larger for rows that were learned: for a classifier
the logit of the true class, for a generator how densely its rows lie around the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.classifier.answers import Floats

SHADOWS_OF_SPREAD = 32
"""A row's own spread over the shadows weighs against that of all rows as its shadows to these."""
LEAST_SPREAD = 1e-3
PSEUDO_SHADOWS = 1.0


@dataclass(frozen=True)
class Shadows:
    """Models that the attacker trained to see what a row's signal is with and without it.

    Args:
        signal: float64 [models, rows].
        inside: bool [models, rows], whether the model learned from the row.
    """

    signal: Floats
    inside: NDArray[np.bool_]

    def without(self, *models: int) -> Shadows:
        """Return the shadows less some of them."""
        kept = np.delete(np.arange(len(self.signal)), models)
        return Shadows(self.signal[kept], self.inside[kept])


def by_signal(signal: Floats) -> Floats:
    """Return a score per row, larger for likelier members: the signal itself.

    For a classifier it is the threshold on the loss of Yeom et al. (CSF 2018), the logit falling
    with the loss; for a generator the closest record of Chen et al. (CCS 2020), or its density.
    """
    return signal


def lira_online(signal: Floats, shadows: Shadows) -> Floats:
    """Return the log-likelihood ratio of a signal between models with and without the row.

    LiRA (Carlini et al., S&P 2022, algorithm 1) with normal distributions per row.  Their spread is
    drawn towards that of all rows (`SHADOWS_OF_SPREAD`), because there are few shadows.

    Args:
        signal: float64 [rows], of the attacked model.
        shadows: Of the same rows; the attacked model is none of them.
    """
    parts = []
    for chosen in (shadows.inside, ~shadows.inside):
        mean, spread = _moments(shadows.signal, chosen)
        parts.append(-0.5 * ((signal - mean) / spread) ** 2 - np.log(spread))
    return parts[0] - parts[1]


def lira_offline(signal: Floats, shadows: Shadows) -> Floats:
    """Return by how many spreads a signal exceeds that of models without the row.

    The one-sided test of Carlini et al. (S&P 2022, section V-A): the attacker needs no shadow that
    learned from the row, so shadows can be trained before it is known whom to attack.
    """
    mean, spread = _moments(shadows.signal, ~shadows.inside)
    return (signal - mean) / spread


def by_rightness(right: Floats, shadows: Shadows) -> tuple[Floats, Floats]:
    """Return online and offline scores where only decisions are told.

    Args:
        right: float64 [rows], 1 where the attacked model decides as the label says, else 0.
        shadows: Their signal likewise.
    """
    inside, outside = (
        _share_right(shadows.signal, chosen) for chosen in (shadows.inside, ~shadows.inside)
    )
    online = np.where(right == 1, np.log(inside / outside), np.log((1 - inside) / (1 - outside)))
    return online, right - outside


def _moments(signal: Floats, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return mean and spread per row over the chosen models, float64 [rows].

    A row without a chosen model gets the mean of all.
    """
    count = chosen.sum(axis=0)
    total = np.where(chosen, signal, 0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), signal[chosen].mean())
    squares = np.where(chosen, (signal - mean) ** 2, 0).sum(axis=0)
    common = squares.sum() / max(1, int(count.sum() - (count > 0).sum()))
    degrees = np.maximum(count - 1, 0)
    spread = (squares + SHADOWS_OF_SPREAD * common) / (degrees + SHADOWS_OF_SPREAD)
    return mean, np.maximum(np.sqrt(spread), LEAST_SPREAD)


def _share_right(right: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return per row the share of right decisions, drawn towards that of all rows."""
    overall = np.clip(right[chosen].mean(), 0.01, 0.99)
    hits = np.where(chosen, right, 0).sum(axis=0)
    found: Floats = (hits + PSEUDO_SHADOWS * overall) / (chosen.sum(axis=0) + PSEUDO_SHADOWS)
    return found
