"""Frequency matching, one field at a time."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from attacks.view import Attack, Auxiliary, Guess, TokenTable

PSEUDO_ROWS = 0.5
"""Rows added to each cell of the sample's tables, so that an unseen level is not impossible."""
ROUNDING = 1e-9


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
        seen = with_label(tokens, table.label, int(tokens.max()) + 1)
        known = with_label(auxiliary.levels[:, field], auxiliary.label, size) + PSEUDO_ROWS
        likelihood = seen @ np.log(known / known.sum()).T
        guess.append(linear_sum_assignment(likelihood, maximize=True)[1].astype(np.int32))
    return guess


def split(attack: Attack) -> Attack:
    """Return a one-to-one attack for tables in which a level has homophones.

    The attacker smooths the own sample as the table was: each level is split into as many as its
    share asks for, row by row at random, and the attack names tokens by these.
    """

    def found(table: TokenTable, auxiliary: Auxiliary) -> Guess:
        columns, sizes, whole = [], [], []
        generator = np.random.default_rng(len(table.label))
        for column, counts, tokens in zip(
            auxiliary.levels.T, auxiliary.counts, table.counts, strict=True
        ):
            parts = _parts(counts, table.most_share, len(tokens))
            begin = np.cumsum([0, *parts])
            drawn = generator.integers(0, 1 << 31, len(column)) % parts[column]
            columns.append(begin[column] + drawn)
            sizes.append(int(begin[-1]))
            whole.append(np.repeat(np.arange(len(parts), dtype=np.int32), parts))
        levels = np.stack(columns, axis=1).astype(np.int32)
        guess = attack(table, Auxiliary(levels, auxiliary.label, tuple(sizes)))
        return [level[named] for level, named in zip(whole, guess, strict=True)]

    return found


def _parts(counts: np.ndarray, most_share: float, tokens: int) -> np.ndarray:
    """Return how many homophones each level is taken to have, int64 [levels]; enough for all."""
    share = counts / counts.sum()
    parts: np.ndarray = np.maximum(1, np.ceil(share / most_share - ROUNDING)).astype(np.int64)
    while parts.sum() < tokens:
        parts[np.argmax(share / parts)] += 1
    return parts


def _matched(tokens: np.ndarray, levels: np.ndarray) -> np.ndarray:
    named = np.empty(len(tokens), np.int32)
    ranked = np.argsort(-levels, kind="stable")
    named[np.argsort(-tokens, kind="stable")] = ranked[: len(tokens)]
    return named


def with_label(column: np.ndarray, label: np.ndarray, size: int) -> np.ndarray:
    """Return float64 [size, 2]: rows of each token or level in each class."""
    return np.bincount(2 * column + label, minlength=2 * size).reshape(size, 2).astype(np.float64)
