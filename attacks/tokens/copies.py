"""Which rows of a table are copies of one row, drawn several times with other homophones?

Copies agree in all levels that have one token, by chance in the others, and in the label.  Rows
are linked to those with which they share most tokens, rare tokens counting more, as in the record
linkage of Fellegi and Sunter (1969): ``sum over shared tokens of -log(share of rows with it)``.
Many links are wrong; that hardly hurts who counts which tokens of a field stand in linked rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from attacks.view import Indices, TokenTable

MOST_ROWS = 10_000
"""Rows that are linked; a sample of the rows of a large table."""
BLOCK_CELLS = 20_000_000
WEIGHT = 4.0
"""Rows that a row's links to its copies count for together."""


@dataclass(frozen=True)
class LinkedPairs:
    """Pairs of rows, each ``weight`` rows' worth of evidence."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    weight: float

    def of(self, column: Indices, tokens: int) -> NDArray[np.float64]:
        """Return how often two of a field's tokens stand in linked rows, float64 [tokens, tokens].

        Args:
            column: The field's token of each row, [rows].
            tokens: How many it has.
        """
        both = column[self.first].astype(np.int64) * tokens + column[self.second]
        found = np.bincount(both, minlength=tokens * tokens).reshape(tokens, tokens)
        return np.asarray(found * self.weight)


def linked_pairs(table: TokenTable) -> LinkedPairs:
    """Link rows, each to as many others as it has copies."""
    rows, most = len(table.label), min(table.draws - 1, len(table.label) - 1)
    asked = np.random.default_rng(rows).permutation(rows)[:MOST_ROWS]
    shared, weighted = _multi_hot(table)
    found = []
    step = max(1, BLOCK_CELLS // rows)
    for start in range(0, len(asked), step):
        some = asked[start : start + step]
        alike = (weighted[some] @ shared.T).toarray()
        alike[table.label[some, None] != table.label] = -1
        alike[np.arange(len(some)), some] = -1
        found.append(np.argpartition(-alike, most - 1, axis=1)[:, :most])
    second = np.concatenate(found)
    weight = WEIGHT / table.draws / most * rows / len(asked)
    return LinkedPairs(np.repeat(asked, most), second.ravel(), weight)


def _multi_hot(table: TokenTable) -> tuple[csr_array, csr_array]:
    """Return multi-hot rows, float32 [rows, tokens], with ones and with each token's rarity."""
    rows, fields = table.tokens.shape
    counts = table.counts
    begin = np.cumsum([0, *map(len, counts)])
    where = (table.tokens + begin[:-1]).ravel()
    rarity = -np.log(np.concatenate(counts) / rows).astype(np.float32)
    at, shape = np.arange(0, rows * fields + 1, fields), (rows, begin[-1])
    ones = csr_array((np.ones(rows * fields, np.float32), where, at), shape=shape)
    return ones, csr_array((rarity[where], where, at), shape=shape)
