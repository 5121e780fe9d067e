"""Frequency matching, one field at a time."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from attacks.view import Auxiliary, Guess, TokenTable

PSEUDO_ROWS = 0.5
"""Rows added to each cell of the sample's tables, so that an unseen level is not impossible."""


def by_rank(table: TokenTable, auxiliary: Auxiliary) -> Guess:
    """Name the most frequent token by the sample's most frequent level, and so on.

    Naveed, Kamara and Wright (CCS 2015), section 4.1.  It is also the assignment of the largest
    likelihood to a field's counts (Lacharité and Paterson 2018), and the best in every l_p norm.
    """
    both = zip(table.counts, auxiliary.counts, strict=True)
    return [_matched(tokens, levels) for tokens, levels in both]


def by_assignment(table: TokenTable, auxiliary: Auxiliary) -> Guess:
    """Name a field's tokens by the assignment of the largest multinomial likelihood.

    The likelihood is that of the field's two-way table with the label, which is not encrypted;
    without the label no assignment is likelier than that of `by_rank`.
    """
    guess = []
    for field, size in enumerate(auxiliary.sizes):
        tokens = table.tokens[:, field]
        seen = _with_label(tokens, table.label, int(tokens.max()) + 1)
        known = _with_label(auxiliary.levels[:, field], auxiliary.label, size) + PSEUDO_ROWS
        likelihood = seen @ np.log(known / known.sum()).T
        guess.append(linear_sum_assignment(likelihood, maximize=True)[1].astype(np.int32))
    return guess


def _matched(tokens: np.ndarray, levels: np.ndarray) -> np.ndarray:
    named = np.empty(len(tokens), np.int32)
    ranked = np.argsort(-levels, kind="stable")
    named[np.argsort(-tokens, kind="stable")] = ranked[: len(tokens)]
    return named


def _with_label(column: np.ndarray, label: np.ndarray, size: int) -> np.ndarray:
    """Return float64 [size, 2]: rows of each token or level in each class."""
    return np.bincount(2 * column + label, minlength=2 * size).reshape(size, 2).astype(np.float64)
