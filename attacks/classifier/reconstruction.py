"""Name all fields of a person from an answer: a score, and reason codes if there are any.

Reason codes tell a field and what it contributes to the logit.  A level contributes about the same
in each row, so that contributions nearly name levels for whoever has seen others' contributions of
known levels: from the model, or from one trained on plain rows of other people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]

from attacks.classifier.answers import AnswerForm, Floats, ScoringModel
from attacks.classifier.inference import (
    AnswerTable,
    Imputer,
    LogShares,
    likeliest,
    marginals,
    with_each_level,
)
from attacks.view import Auxiliary, Indices

SPREAD_ROWS = 5.0
"""A level's own spread weighs against that of all levels as its rows to these."""
LEAST_SPREAD = 1e-4
DOUBT_ROWS = 10.0
"""The variance of a level's mean contribution falls with its rows and these."""
ROUNDS = 2
"""Times that each field's prior is taken from the guess of the others."""
NEARNESS = (0.1, 0.03, 0.01, 0.003, 0.001)
"""How near contributions must come, round by round, where the attacker can compute them."""
FEW_ROUNDS = 2
"""Rounds where some fields are not told: what these are moves the others' contributions."""
_LEAST = 1e-12


@dataclass(frozen=True)
class Reasons:
    """Reason codes of several answers.

    Args:
        contribution: float64 [rows, fields], NaN where the field is not among the reasons.
        decimals: They were rounded to these; None for not at all.
    """

    contribution: Floats
    decimals: int | None = None

    @classmethod
    def largest(cls, contributions: Floats, count: int, decimals: int | None = None) -> Reasons:
        """Return the ``count`` largest contributions of each row, as the service tells them."""
        order = np.argsort(-contributions, axis=1, kind="stable")
        kept = np.full(contributions.shape, np.nan)
        first = order[:, :count]
        told = np.take_along_axis(contributions, first, axis=1)
        if decimals is not None:
            told = np.round(told, decimals)
        np.put_along_axis(kept, first, told, axis=1)
        return cls(kept, decimals)

    @property
    def told(self) -> NDArray[np.bool_]:
        """Whether a field is among the reasons, bool [rows, fields]."""
        return ~np.isnan(self.contribution)

    @property
    def least(self) -> Floats:
        """The smallest contribution told in each row, float64 [rows]; no other is larger."""
        told: Floats = np.where(self.told, self.contribution, np.inf).min(axis=1)
        return told + self.reach

    @property
    def reach(self) -> float:
        """How far a contribution may lie from what was told."""
        return 0.0 if self.decimals is None else 0.5 * 10.0**-self.decimals


@dataclass(frozen=True)
class Told:
    """What the attacker sees of some answers.

    Args:
        reasons: Reason codes; none told where all are NaN.
        score: float64 [rows]; None where no score is told.
        form: Of the scores.
        threshold: Of decisions.
    """

    reasons: Reasons
    score: Floats | None
    form: AnswerForm
    threshold: float


@dataclass(frozen=True)
class ContributionTable:
    """What each level contributes, as the attacker expects it: per field normal distributions.

    Args:
        mean: Per field float64 [levels].
        spread: Per field float64 [levels], over rows of the level.
        doubt: Per field float64 [levels], standard deviation of the mean itself; 0 where it is
            known from the attacked model.
    """

    mean: list[Floats]
    spread: list[Floats]
    doubt: list[Floats]

    @classmethod
    def asked(cls, sample: Auxiliary, contributions: Floats) -> ContributionTable:
        """Return what the model itself says of the attacker's rows, float64 [rows, fields]."""
        mean, spread = _moments(sample, [contributions])
        return cls(mean, spread, [np.zeros_like(values) for values in mean])

    @classmethod
    def estimated(
        cls, sample: Auxiliary, own: Sequence[Floats], own_halves: tuple[Floats, Floats]
    ) -> ContributionTable:
        """Return what the attacker's own models say of its rows, and how far that may be wrong.

        The variance of a level's mean is taken to fall with the level's rows, at a rate that two
        models trained on separate halves of the sample tell.

        Args:
            sample: The attacker's rows.
            own: Contributions by models trained on all of them, each float64 [rows, fields].
            own_halves: Those by the models of the halves.
        """
        mean, spread = _moments(sample, own)
        first, second = (_moments(sample, [values])[0] for values in own_halves)
        counts = [count / 2 + DOUBT_ROWS for count in sample.counts]
        rate = np.mean([
            (0.5 * (one - other) ** 2 * count)[seen > 0].mean()
            for one, other, count, seen in zip(first, second, counts, sample.counts, strict=True)
        ])  # fmt: skip
        # Both this table's mean and the attacked model's are off.
        doubt = [np.sqrt(2 * rate / (count + DOUBT_ROWS)) for count in sample.counts]
        return cls(mean, spread, doubt)

    def log_likelihoods(self, reasons: Reasons) -> LogShares:
        """Return per field how likely each level makes the reasons told, float64 [rows, levels].

        A field that is not among them contributes less than the least of those told.
        """
        return [self._field(field, reasons) for field in range(len(self.mean))]

    def _field(self, field: int, reasons: Reasons) -> Floats:
        mean = self.mean[field]
        reach = np.sqrt(self.spread[field] ** 2 + self.doubt[field] ** 2 + reasons.reach**2)
        found = np.zeros((len(reasons.contribution), len(mean)))
        told = reasons.told[:, field]
        values = reasons.contribution[told, field][:, None]
        found[told] = norm.logpdf(values, mean, reach)
        some = reasons.told.any(axis=1) & ~told
        bound = reasons.least[some][:, None]
        found[some] = np.log(np.maximum(norm.cdf(bound, mean, reach), _LEAST))
        return found


def evidence(told: Told, table: ContributionTable, answers: AnswerTable) -> LogShares:
    """Return per field how likely each level makes what was told, float64 [rows, levels].

    The score counts for fields that are not among the reasons.

    Args:
        told: What the attacker sees.
        table: What levels contribute.
        answers: Which levels go with which scores, in the form in which they are told.
    """
    found = table.log_likelihoods(told.reasons)
    if told.score is not None:
        silent = ~told.reasons.told
        for field, ratio in enumerate(answers.log_ratios(told.score)):
            found[field] += ratio * silent[:, field][:, None]
    return found


def reconstruct(told: Told, seen: LogShares, sample: Auxiliary, imputer: Imputer) -> Indices:
    """Name all fields by the likeliest level, int32 [rows, fields].

    Each field's prior is first its share in the sample, then, where there are reasons, that given
    the guess of the other fields, `ROUNDS` times.  A score alone says too little for one guess to
    lean on another.

    Args:
        told: What the attacker sees.
        seen: What `evidence` makes of it.
        sample: The attacker's rows.
        imputer: Each field from the others.
    """
    shares: LogShares = [share[None] for share in marginals(sample)]
    guess = likeliest([share + found for share, found in zip(shares, seen, strict=True)])
    for _ in range(ROUNDS if told.reasons.told.any() else 0):
        prior = imputer.log_shares(guess)
        guess = likeliest([share + found for share, found in zip(prior, seen, strict=True)])
    return guess


def refine(
    told: Told, guess: Indices, seen: LogShares, model: ScoringModel, imputer: Imputer
) -> Indices:
    """Improve a guess by computing, with the model itself, what each other level would give.

    One field after the other takes the level by which the contributions come nearest to those told,
    with the imputation as prior; what counts as near shrinks from round to round.  Fields that were
    not told keep their evidence.  It needs the model and what its columns mean.

    Args:
        told: What the attacker sees.
        guess: int32 [rows, fields], where it starts.
        seen: What `evidence` makes of it.
        model: The owner's.
        imputer: Each field from the others.
    """
    found = guess.copy()
    whole = bool(told.reasons.told.all())
    for spread in NEARNESS if whole else NEARNESS[:FEW_ROUNDS]:
        for field, size in enumerate(imputer.sizes):
            prior = imputer.field_log_shares(field, found)
            silent = ~told.reasons.told[:, field]
            prior[silent] += seen[field][silent]
            rows = with_each_level(found, field, size)
            fits = _fit(told.reasons, model.contributions(rows), size, spread)
            found[:, field] = (prior + fits).argmax(axis=1)
    return found


def _fit(reasons: Reasons, contributions: Floats, size: int, spread: float) -> Floats:
    """Return how near contributions are to those told, as a logarithm, float64 [rows, size]."""
    each = contributions.reshape(len(reasons.contribution), size, -1)
    gap = np.where(reasons.told[:, None], each - reasons.contribution[:, None], 0.0)
    fit: Floats = -0.5 * ((gap / np.hypot(spread, reasons.reach)) ** 2).sum(axis=2)
    return fit


def _moments(sample: Auxiliary, models: Sequence[Floats]) -> tuple[list[Floats], list[Floats]]:
    """Return per field each level's mean and spread over rows, both averaged over models."""
    means, spreads = [], []
    for field, size in enumerate(sample.sizes):
        both = [_by_level(sample.levels[:, field], values[:, field], size) for values in models]
        means.append(np.mean([mean for mean, _ in both], axis=0))
        spreads.append(np.mean([spread for _, spread in both], axis=0))
    return means, spreads


def _by_level(levels: Indices, values: Floats, size: int) -> tuple[Floats, Floats]:
    """Return mean and spread of a field's contributions per level, float64 [size]."""
    count = np.bincount(levels, minlength=size)
    mean = np.bincount(levels, values, minlength=size) / np.maximum(count, 1)
    squares = np.bincount(levels, (values - mean[levels]) ** 2, minlength=size)
    common = squares.sum() / max(1, len(values))
    spread = np.sqrt((squares + SPREAD_ROWS * common) / (count + SPREAD_ROWS))
    unseen = count == 0
    mean[unseen], spread[unseen] = values.mean(), values.std()
    return mean, np.maximum(spread, LEAST_SPREAD)
