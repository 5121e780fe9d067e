"""Name a field of a person from the model's answer: attribute inference.

The attacker has plain rows of other people, and either asks the model itself or has trained models
of its own on those rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from attacks.classifier.answers import AnswerForm, Floats, ScoringModel, logit
from attacks.view import Auxiliary, Indices

LogShares = list[Floats]
"""Per field the logarithm of each level's share or likelihood, float64 [rows, levels]."""

BINS = 20
"""Parts of about equally many rows into which answers are divided, fewer for fewer rows."""
ROWS_PER_BIN = 50
BIN_PSEUDO_ROWS = 20.0
LEVEL_PSEUDO_ROWS = 0.5
ITERATIONS = 300


class Imputer:
    """Each field from the others, without the model: what is known before it answers.

    One logistic regression a field on the others' levels, and on the label if asked for.

    Args:
        sample: The attacker's rows.
        with_label: Whether the label of the rows to be named is known, too.
    """

    def __init__(self, sample: Auxiliary, *, with_label: bool) -> None:
        self.sizes = sample.sizes
        self.with_label = with_label
        hot = self._inputs(sample.levels, sample.label)
        self._models = [
            _regression(np.delete(hot, self._own(field), axis=1), sample.levels[:, field])
            for field in range(len(self.sizes))
        ]
        self._marginal = marginals(sample)

    def log_shares(self, levels: Indices, label: NDArray[np.int8] | None = None) -> LogShares:
        """Return per field the share of each level given a row's other fields.

        Args:
            levels: int32 [rows, fields]; a field's own level does not enter its shares.
            label: int8 [rows], where the imputer was made with it.
        """
        hot = self._inputs(levels, label)
        return [self._field(field, hot) for field in range(len(self.sizes))]

    def field_log_shares(
        self, field: int, levels: Indices, label: NDArray[np.int8] | None = None
    ) -> Floats:
        """Return the shares of one field, float64 [rows, levels]."""
        return self._field(field, self._inputs(levels, label))

    def _field(self, field: int, hot: Floats) -> Floats:
        found = np.repeat(self._marginal[field][None], len(hot), axis=0)
        model = self._models[field]
        if model is not None:
            # A millionth of the overall shares, so that no level is impossible.
            shares = 1e-6 * np.exp(found)
            shares[:, model.classes_] += model.predict_proba(
                np.delete(hot, self._own(field), axis=1)
            )
            found = np.log(shares)
        return found

    def _inputs(self, levels: Indices, label: NDArray[np.int8] | None) -> Floats:
        hot = one_hot(levels, self.sizes)
        if not self.with_label:
            return hot
        if label is None:
            raise ValueError("this imputer was made with the label; give the rows' labels")
        return np.column_stack([hot, label])

    def _own(self, field: int) -> range:
        start = sum(self.sizes[:field])
        return range(start, start + self.sizes[field])


@dataclass(frozen=True)
class Expectation:
    """What an attacker expects a model to answer.

    Args:
        models: The model itself, or its own ones, whose logits are averaged.
        spread: Standard deviation of the model's logit around that; 0 where it is the model.
    """

    models: Sequence[ScoringModel]
    spread: float

    def logits(self, levels: Indices) -> Floats:
        """Return the expected logits, float64 [rows]."""
        found: Floats = np.mean([logit(model.probability(levels)) for model in self.models], axis=0)
        return found


def spread_between(one: ScoringModel, other: ScoringModel, levels: Indices) -> float:
    """Return how far a model's logit lies from another's that learned from other rows.

    It is what an attacker can know of the distance between its own models and the owner's: the
    standard deviation between two that it trained on separate halves of its rows.
    """
    gap = logit(one.probability(levels)) - logit(other.probability(levels))
    return float(np.sqrt((gap**2).mean()))


def with_each_level(levels: Indices, field: int, size: int) -> Indices:
    """Return every row with each level of a field: int32 [rows * size, fields], row by row."""
    found = np.repeat(levels, size, axis=0)
    found[:, field] = np.tile(np.arange(size, dtype=levels.dtype), len(levels))
    return found


def infer_field(
    field: int,
    known: Indices,
    prior: Floats,
    expectation: Expectation,
    told: Floats,
    form: AnswerForm,
    threshold: float,
) -> Indices:
    """Name one field of people of whom all other fields are known, int32 [rows].

    The likeliest level given the other fields and the answer: the attack of Fredrikson et al.
    (USENIX Security 2014; CCS 2015) with an imputation for the prior.

    Args:
        field: Position of the field.
        known: int32 [rows, fields]; the field's own column is not used.
        prior: float64 [rows, levels], logarithms of the shares given the other fields.
        expectation: What the model would answer.
        told: What it did answer.
        form: Of the answers.
        threshold: Of decisions.
    """
    size = prior.shape[1]
    expected = expectation.logits(with_each_level(known, field, size)).reshape(-1, size)
    likelihood = form.log_likelihood(told[:, None], expected, expectation.spread, threshold)
    return np.asarray((prior + likelihood).argmax(axis=1), np.int32)


class AnswerTable:
    """How often each level goes with answers of about that size, and with a label if known.

    Args:
        sample: The attacker's rows.
        told: float64 [rows], what the model, or an own one, answers for them.
        with_label: Whether labels are told apart.
    """

    def __init__(self, sample: Auxiliary, told: Floats, *, with_label: bool = False) -> None:
        count = max(1, min(BINS, len(told) // ROWS_PER_BIN))
        self._ends = np.unique(np.quantile(told, np.linspace(0, 1, count + 1)[1:-1]))
        self._with_label = with_label
        self.marginal = marginals(sample)
        place = self._places(told, sample.label)
        places = 2 * (len(self._ends) + 1)
        self._tables = []
        for column, share in zip(sample.levels.T, self.marginal, strict=True):
            table = np.zeros((places, len(share)))
            np.add.at(table, (place, column), 1)
            table += BIN_PSEUDO_ROWS * np.exp(share)
            self._tables.append(np.log(table / table.sum(axis=1, keepdims=True)))

    def log_shares(self, told: Floats, label: NDArray[np.int8] | None = None) -> LogShares:
        """Return per field the share of each level given the answer, and the label if known."""
        place = self._places(told, label)
        return [table[place] for table in self._tables]

    def log_ratios(self, told: Floats) -> LogShares:
        """Return per field how much likelier than overall each level is given the answer."""
        both = zip(self.log_shares(told), self.marginal, strict=True)
        return [shares - marginal for shares, marginal in both]

    def _places(self, told: Floats, label: NDArray[np.int8] | None) -> NDArray[np.intp]:
        part = np.searchsorted(self._ends, told, side="left")
        if not self._with_label:
            return part
        if label is None:
            raise ValueError("this table tells labels apart; give the rows' labels")
        return 2 * part + label


def marginals(sample: Auxiliary) -> list[Floats]:
    """Return per field the logarithm of each level's share; unseen levels get a little."""
    shares = [counts + LEVEL_PSEUDO_ROWS for counts in sample.counts]
    return [np.log(counts / counts.sum()) for counts in shares]


def likeliest(log_shares: LogShares) -> Indices:
    """Return the likeliest level of each field, int32 [rows, fields]."""
    return np.stack([shares.argmax(axis=1) for shares in log_shares], axis=1).astype(np.int32)


def one_hot(levels: Indices, sizes: Sequence[int]) -> Floats:
    """Return float64 [rows, sum of sizes]."""
    found = np.zeros((len(levels), sum(sizes)))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    found[np.arange(len(levels))[:, None], levels + starts] = 1
    return found


def halves(sample: Auxiliary) -> tuple[Auxiliary, Auxiliary]:
    """Return every other row of a sample, and the rest."""
    first, second = (
        replace(sample, levels=sample.levels[start::2], label=sample.label[start::2])
        for start in (0, 1)
    )
    return first, second


def _regression(inputs: Floats, column: Indices) -> Any:
    if len(np.unique(column)) < 2:
        return None
    return LogisticRegression(C=0.3, max_iter=ITERATIONS).fit(inputs, column)
