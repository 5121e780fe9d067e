"""Name fields from the reason codes of many answers, without the model and without any token.

The level of a field contributes about the same in each answer, so that contributions fall into
groups, and a group stands for a level as a token does.  Groups are named together: by what the
attacker's own models say a level contributes, by how often each level occurs, and by which levels
go with which in its rows.

It needs answers that tell all fields.  Where only the largest contributions are told, groups are
cut off at their lower ends, and naming them so was found to be worse than not doing it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from scipy.stats import norm  # type: ignore[import-untyped]
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from attacks.classifier.answers import Floats
from attacks.classifier.inference import Imputer
from attacks.classifier.reconstruction import ContributionTable, Reasons
from attacks.view import Auxiliary, Indices

MOST_GROUPS = 12
"""Groups of one field at most; rarer levels share them."""
LEAST_VARIANCE = 1e-5
"""Of contributions within a group."""
ROUNDS = 8
KNOWN_DOUBT = 0.02
"""What is left of the doubt about a level's mean once answers have been named by it."""
SPREAD_ANSWERS = 5.0
"""A level's spread over its answers weighs against the expected one as its answers to these."""

Groups = list[Indices]
"""Per field the group of each answer, int32 [rows], numbered from 0 without a gap."""


@dataclass(frozen=True)
class ReasonLog:
    """Reason codes of many answers, and what the attacker knows of the population.

    Args:
        reasons: Of all answers, with all fields.
        sample: The attacker's rows.
        table: What levels contribute by its own models.
        imputer: Each field from the others.
    """

    reasons: Reasons
    sample: Auxiliary
    table: ContributionTable
    imputer: Imputer

    def learned(self, guess: Indices) -> ContributionTable:
        """Return what levels contribute, as the answers themselves show it.

        Groups are named from two starts, the guess and the order of frequencies, by the likeliest
        one-to-one names of one field after the other, until nothing changes; the likelier end
        counts.

        Args:
            guess: int32 [rows, fields], of each answer alone.

        Raises:
            ValueError: Some answer does not tell all fields.
        """
        if not self.reasons.told.all():
            raise ValueError("a log of reasons needs answers that tell all fields")
        groups = grouped(self.reasons, self.sample.sizes)
        ends = [self._climb(start, groups) for start in (guess, self._by_rank(guess, groups))]
        best = max(ends, key=lambda end: end[1])[0]
        return self._refitted(best)

    def _by_rank(self, guess: Indices, groups: Groups) -> Indices:
        """Return the guess with each field's most frequent group as its most frequent level."""
        found = guess.copy()
        for field, group in enumerate(groups):
            order = np.argsort(-np.bincount(group), kind="stable")
            level = np.argsort(-self.sample.counts[field], kind="stable")
            found[:, field] = level[np.argsort(order)][group]
        return found

    def _climb(self, start: Indices, groups: Groups) -> tuple[Indices, float]:
        """Return the guess where no field's renaming is likelier, and how likely it is."""
        found, likelihood = start.copy(), -np.inf
        for _ in range(ROUNDS):
            parts = [self._renamed(field, group, found) for field, group in enumerate(groups)]
            if sum(parts) <= likelihood + 1e-6:
                break
            likelihood = sum(parts)
        return found, likelihood

    def _renamed(self, field: int, group: Indices, guess: Indices) -> float:
        """Name one field's groups in place and return how likely the names are."""
        mean = np.bincount(group, self.reasons.contribution[:, field]) / np.bincount(group)
        likelihood = self._expected(field, mean)
        np.add.at(likelihood, group, self.imputer.field_log_shares(field, guess))
        row, level = linear_sum_assignment(likelihood, maximize=True)
        guess[:, field] = level[group]
        return float(likelihood[row, level].sum())

    def _expected(self, field: int, mean: Floats) -> Floats:
        """Return how likely groups' means are for each level, float64 [groups, levels]."""
        reach = np.hypot(self.table.doubt[field], self.table.spread[field])
        found: Floats = norm.logpdf(mean[:, None], self.table.mean[field], reach)
        return found

    def _refitted(self, guess: Indices) -> ContributionTable:
        """Return the table with means and spreads of the answers that a guess gives to a level."""
        means, spreads, doubts = [], [], []
        for field, size in enumerate(self.sample.sizes):
            levels, values = guess[:, field], self.reasons.contribution[:, field]
            count = np.bincount(levels, minlength=size)
            known, safe = count > 0, np.maximum(count, 1)
            own = np.where(known, np.bincount(levels, values, minlength=size) / safe, 0.0)
            squares = np.bincount(levels, (values - own[levels]) ** 2, minlength=size)
            before = self.table.spread[field]
            spread = np.sqrt((squares + SPREAD_ANSWERS * before**2) / (count + SPREAD_ANSWERS))
            means.append(np.where(known, own, self.table.mean[field]))
            spreads.append(np.where(known, spread, before))
            doubts.append(np.where(known, KNOWN_DOUBT, self.table.doubt[field]))
        return ContributionTable(means, spreads, doubts)


def grouped(reasons: Reasons, sizes: tuple[int, ...]) -> Groups:
    """Return the groups into which each field's contributions fall.

    As many normal distributions as the Bayesian information criterion prefers, at most one a level.
    """
    columns = zip(reasons.contribution.T, sizes, strict=True)
    return [_mixture(values, min(size, MOST_GROUPS), reasons.reach) for values, size in columns]


def _mixture(values: Floats, most: int, reach: float) -> NDArray[np.int32]:
    """Return the group of each value, numbered from 0 without a gap."""
    column, best = values[:, None], np.inf
    found = np.zeros(len(values), np.int32)
    if len(values) < 2:  # a mixture needs two
        return found
    for count in range(1, min(most, len(np.unique(values))) + 1):
        model = GaussianMixture(count, reg_covar=LEAST_VARIANCE + reach**2 / 3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(column)
        if (criterion := model.bic(column)) < best:
            best, found = criterion, model.predict(column)
    return np.unique(found, return_inverse=True)[1].astype(np.int32)
