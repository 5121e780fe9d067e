"""The joint attack: fields are named together, by which of their tokens occur together.

Given the names of all other fields, and the label, which can be read, a token's rows say by naive
Bayes how likely each name of it is:

    m(field) + sum over the other fields of [m(pair of fields) - m(field)]

``m`` is the log-likelihood of a table's counts given those of the sample, Dirichlet-multinomial,
so that a small sample convinces less than a large one.  The likeliest one-to-one names of a field
are an assignment problem; field after field is solved until nothing changes.  That ends, because
each step raises ``sum of m(field) + sum over pairs of [m(pair) - m(field) - m(other field)]``.  A
field's own frequencies count once, its dependence on others as often as there are others, so what
a shifted sample gets wrong about frequencies is outweighed.

All names together are a quadratic assignment problem with many local optima.  The attack starts
from both frequency attacks and keeps the end of the larger conditional likelihood of each field
given each other one, ``sum over pairs of [2 m(pair) - m(field) - m(other field)]``.

After Naveed, Kamara and Wright (CCS 2015) and Bindschaedler et al. (PVLDB 11, 2018), who match one
field at a time, and dependent ones by a multinomial likelihood.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from scipy.sparse import csr_array  # type: ignore[import-untyped]
from scipy.special import gammaln  # type: ignore[import-untyped]

from attacks.tokens.frequency import PSEUDO_ROWS, by_assignment, by_rank
from attacks.view import Auxiliary, Guess, Indices, KnownRows, TokenTable

PAIR_ROWS = 2.0
"""Rows that the sample's two-way tables are drawn towards independence by."""
CLASSES = 2
UNKNOWN = -1
LEAST_GAIN = 1e-6
"""Less of log-likelihood is rounding."""


def joint(table: TokenTable, auxiliary: Auxiliary) -> Guess:
    """Name all fields' tokens together."""
    fixed = [np.full(len(tokens), UNKNOWN, np.int32) for tokens in table.counts]
    return _best(table, auxiliary, fixed)


def known_plaintext(table: TokenTable, auxiliary: Auxiliary, known: KnownRows) -> Guess:
    """Name the tokens of known rows as they are, the others by the joint attack.

    The known rows also join the sample.
    """
    fixed = []
    for field, tokens in enumerate(table.counts):
        named = np.full(len(tokens), UNKNOWN, np.int32)
        named[table.tokens[known.rows, field]] = known.levels[:, field]
        fixed.append(named)
    sample = Auxiliary(
        np.concatenate([auxiliary.levels, known.levels]),
        np.concatenate([auxiliary.label, table.label[known.rows]]),
        auxiliary.sizes,
    )
    return _best(table, sample, fixed)


def _best(table: TokenTable, auxiliary: Auxiliary, fixed: list[Indices]) -> Guess:
    climb = _Climb(table, auxiliary, fixed)
    starts = (by_assignment(table, auxiliary), by_rank(table, auxiliary))
    return climb.split(max(map(climb.run, starts), key=climb.likelihood))


class _Climb:
    """Improves guesses of one table.  Tokens and levels of all fields are numbered through.

    ``named`` below is int64 [tokens of all fields], the level of each token.
    """

    def __init__(self, table: TokenTable, auxiliary: Auxiliary, fixed: list[Indices]) -> None:
        sizes = [len(tokens) for tokens in table.counts]
        seen, self.tokens = _pairs(table.tokens, table.label, sizes)
        known, self.levels = _pairs(auxiliary.levels, auxiliary.label, list(auxiliary.sizes))
        self.fixed = fixed
        self.fields = len(sizes)
        field = np.repeat(np.arange(self.fields + 1), [*sizes, CLASSES])
        self.together = np.where(field[:, None] == field, 0.0, seen)
        self.partners = [np.flatnonzero(row) for row in self.together]
        counts = np.diag(known) + PSEUDO_ROWS
        field = np.repeat(np.arange(self.fields + 1), [*auxiliary.sizes, CLASSES])
        share = counts / np.bincount(field, counts)[field]
        self.sample = known + PAIR_ROWS * np.outer(share, share)
        self.alone = _gain(counts, np.diag(seen)[:, None])

    def run(self, start: Guess) -> np.ndarray:
        """Return a guess that no change of one field improves."""
        levels = [
            self._assigned(field, np.eye(size)[start[field]]) + self.levels[field]
            for field, size in enumerate(np.diff(self.levels)[:-1])
        ]
        named = np.concatenate([*levels, self.levels[-2] + np.arange(CLASSES)])
        changed = True
        while changed:
            changed = False
            for field in range(self.fields):
                place = slice(self.tokens[field], self.tokens[field + 1])
                before = named[place] - self.levels[field]
                likelihood = self._by_name(field, named)
                found = self._assigned(field, likelihood)
                token = np.arange(len(found))
                gain = likelihood[token, found].sum() - likelihood[token, before].sum()
                if gain > LEAST_GAIN:
                    named[place] = found + self.levels[field]
                    changed = True
        return named

    def likelihood(self, named: np.ndarray) -> float:
        """Return the conditional log-likelihood of a guess, less a constant."""
        pairs = _gain(self.sample[np.ix_(named, named)], self.together).sum()
        alone = self.alone[np.arange(len(named)), named].sum()
        return float(pairs - self.fields * alone)

    def split(self, named: np.ndarray) -> Guess:
        """Return a guess per field."""
        both = zip(pairwise(self.tokens[:-1]), self.levels, strict=False)
        return [(named[low:high] - first).astype(np.int32) for (low, high), first in both]

    def _by_name(self, field: int, named: np.ndarray) -> np.ndarray:
        """Return float64 [tokens, levels]: log-likelihood of each name of each token."""
        levels = slice(self.levels[field], self.levels[field + 1])
        rows = []
        for token in range(self.tokens[field], self.tokens[field + 1]):
            partners = self.partners[token]
            sample = self.sample[levels, named[partners]]
            pairs = _gain(sample, self.together[token, partners]).sum(axis=1)
            rows.append(pairs - (self.fields - 1) * self.alone[token, levels])
        return np.array(rows)

    def _assigned(self, field: int, likelihood: np.ndarray) -> np.ndarray:
        """Return the likeliest one-to-one names of a field's tokens, the fixed ones kept."""
        fixed = self.fixed[field]
        tokens = np.flatnonzero(fixed != UNKNOWN)
        open_tokens = np.flatnonzero(fixed == UNKNOWN)
        levels = np.setdiff1d(np.arange(likelihood.shape[1]), fixed[tokens])
        row, column = linear_sum_assignment(likelihood[np.ix_(open_tokens, levels)], maximize=True)
        found: np.ndarray = fixed.astype(np.int64)
        found[open_tokens[row]] = levels[column]
        return found


def _gain(sample: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the log-likelihood of counts by a Dirichlet-multinomial cell, less a constant."""
    return np.asarray(gammaln(sample + seen) - gammaln(sample))


def _pairs(columns: Indices, label: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows in which two values occur together, and where each column's values begin.

    float64 [values, values], its diagonal the rows of each value, and int64 [columns + 1]; the
    label is the last column.
    """
    begin = np.cumsum([0, *sizes, CLASSES])
    values = np.column_stack([columns, label]) + begin[:-1]
    rows, width = values.shape
    at = np.arange(0, rows * width + 1, width)
    table = csr_array((np.ones(values.size), values.ravel(), at), shape=(rows, begin[-1]))
    return (table.T @ table).toarray(), begin
