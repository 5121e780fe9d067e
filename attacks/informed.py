"""The informed attacker: knows what every token stands for, and predicts what it was made from.

Where fields are dropped, coarsened or summed on the owner's side, even a host that has named every
token does not have the fields themselves.  This attack takes the names as given, which no attack on
tokens can improve on, and learns from plain rows of the same population what goes with what is
seen.  So it bounds what an attacker of its kind gets, whatever the cipher.

Three predictors are tried for each field, on a part of the plain rows that they did not learn from,
and the best one is used: the most frequent level; multinomial logistic regression on the seen
levels; a random forest (Breiman, Machine Learning 45, 2001), which also sees how they interact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array  # type: ignore[import-untyped]
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from attacks.view import Indices

HELD_OUT = 3
"""One in this many plain rows chooses between the predictors."""
SHRINKAGE = 1.0
STEPS = 100
TREES = 100
LEAST_LEAF = 10
"""Rows in a leaf of the forest at least."""

Predictor = Callable[[Indices, Indices, Indices, tuple[int, ...], int], Indices]
"""Learns from seen columns and levels, and names the levels of other rows; the number is a seed."""


def informed(
    seen: np.ndarray,
    aux_seen: np.ndarray,
    aux_levels: np.ndarray,
    sizes: tuple[int, ...],
    seed: int = 0,
) -> Indices:
    """Return int32 [rows, fields]: the level named for every cell.

    Args:
        seen: int [rows, columns], what is visible of the attacked rows, each column's levels
            numbered from 0; a label that can be read is one more column.
        aux_seen: int [sample, columns], the same of the attacker's plain rows.
        aux_levels: int [sample, fields], the fields of those rows.
        sizes: Levels each seen column has.
        seed: Of the forest and of what is held out.

    Raises:
        ValueError: Shapes do not fit, or the sample has fewer than `HELD_OUT` rows.
    """
    columns = len(sizes)
    if seen.shape[1:] != (columns,) or aux_seen.shape != (len(aux_levels), columns):
        raise ValueError(f"{columns} sizes, but seen {seen.shape}, {aux_seen.shape} in the sample")
    if len(aux_levels) < HELD_OUT:
        raise ValueError(f"{len(aux_levels)} plain rows are too few; give {HELD_OUT} or more")
    seen, aux_seen, levels = (np.asarray(part, np.int32) for part in (seen, aux_seen, aux_levels))
    order = np.random.default_rng(seed).permutation(len(levels))
    held, learned = order[::HELD_OUT], np.delete(order, np.s_[::HELD_OUT])
    tried = np.stack([
        np.mean(
            predict(aux_seen[held], aux_seen[learned], levels[learned], sizes, seed)
            == levels[held],
            axis=0,
        )
        for predict in PREDICTORS
    ])  # fmt: skip
    best = tried.argmax(axis=0)  # of equal ones the simplest
    guess = np.empty((len(seen), levels.shape[1]), np.int32)
    for number, predict in enumerate(PREDICTORS):
        fields = np.flatnonzero(best == number)
        if len(fields):
            guess[:, fields] = predict(seen, aux_seen, levels[:, fields], sizes, seed)
    return guess


def by_mode(
    seen: Indices, aux_seen: Indices, levels: Indices, sizes: tuple[int, ...], seed: int
) -> Indices:
    """Name each field's most frequent level."""
    del aux_seen, sizes, seed
    modes = [np.bincount(column).argmax() for column in levels.T]
    return np.tile(np.array(modes, np.int32), (len(seen), 1))


def by_regression(
    seen: Indices, aux_seen: Indices, levels: Indices, sizes: tuple[int, ...], seed: int
) -> Indices:
    """Name levels by multinomial logistic regression on indicators of the seen levels."""
    del seed
    learned, asked = _indicators(aux_seen, sizes), _indicators(seen, sizes)
    guess = by_mode(seen, aux_seen, levels, sizes, 0)
    for field, column in enumerate(levels.T):
        if column.min() < column.max():
            model = LogisticRegression(C=SHRINKAGE, max_iter=STEPS, tol=1e-3)
            guess[:, field] = model.fit(learned, column).predict(asked)
    return guess


def by_forest(
    seen: Indices, aux_seen: Indices, levels: Indices, sizes: tuple[int, ...], seed: int
) -> Indices:
    """Name the levels of all fields by one forest, whose trees part the seen levels in order."""
    del sizes
    forest = RandomForestClassifier(
        TREES, min_samples_leaf=LEAST_LEAF, max_features=None, max_samples=0.5, random_state=seed
    )
    found = forest.fit(aux_seen, levels if levels.shape[1] > 1 else levels[:, 0]).predict(seen)
    return np.asarray(found, np.int32).reshape(len(seen), levels.shape[1])


PREDICTORS: tuple[Predictor, ...] = (by_mode, by_regression, by_forest)


def _indicators(columns: Indices, sizes: tuple[int, ...]) -> csr_array:
    """Return float64 [rows, levels of all columns], 1 where a row has the level."""
    rows, count = columns.shape
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = (columns + starts[:-1]).ravel()
    ends = np.arange(0, rows * count + 1, count)
    return csr_array((np.ones(rows * count), places, ends), shape=(rows, int(starts[-1])))
