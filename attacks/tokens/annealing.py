"""The annealed attack: names for all tokens of all fields at once, several tokens a level.

It is the joint attack for tables in which a level has homophones.  Which level a token stands for
is hidden; what is known is how often each two levels occur together.  Given how surely the other
fields' tokens are named, the rows of token ``t`` say of each level ``l`` of its field

    S(t, l) = sum over tokens u of other fields of
              n(t, u) log sum over levels m of q(u, m) P(m | l) / P(m)

``n`` counts rows, ``q`` is how surely ``u`` is named ``m``, and ``P`` comes from the attacker's
sample.  The label, which is not encrypted, is one more field, named from the start.  ``q`` of a
field is then ``exp(S / T)`` scaled so that each level has as many rows as in the sample (Sinkhorn).
The temperature ``T`` starts so high that only what is certain counts, and falls to 1, with a sample
smaller than the table to as many rows as it has for each of its own: names that many rows agree on
are settled first, and there is next to no local optimum to be caught in.

Homophones of a level have equal rows in expectation, so nothing here depends on their number but
one hint: how frequent a token is says whether its level is split at all, where homophones are used
evenly.

Sources: K. Rose, "Deterministic annealing", Proc. IEEE 86, 1998; M. Cuturi, "Sinkhorn distances",
2013; V. Bindschaedler et al., PVLDB 11, 2018, for the multinomial likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]
from scipy.special import logsumexp  # type: ignore[import-untyped]

from attacks.tokens.copies import linked_pairs
from attacks.tokens.frequency import PSEUDO_ROWS
from attacks.view import Auxiliary, Guess, Indices, KnownRows, TokenTable

PAIR_ROWS = 10.0
"""Rows that the sample's two-way tables are drawn towards independence by."""
TEMPERATURES = (100.0, 70, 50, 35, 25, 18, 12, 8, 6, 4, 3, 2, 1.5)
PASSES = 4
"""Times that all fields are named anew at one temperature, at most."""
SCALINGS = 12
SETTLED = 0.01
"""Less change of any ``q`` in a pass than this ends the temperature."""
LEAST_LIFT = 1e-3
"""However rarely the sample has two levels together, a row is evidence of this much at most."""
SIZE_STRENGTH = 10.0
"""How many times sooner than that of other fields the evidence of token sizes counts fully."""
LINK_TRUST = 0.3
"""Share of the linked pairs of rows that are taken for copies of one row."""
CERTAIN = -1e4
CLASSES = 2

Floats = NDArray[np.float64]


def annealed(table: TokenTable, auxiliary: Auxiliary, known: KnownRows | None = None) -> Guess:
    """Name all fields' tokens; any number of tokens of a field may get the same name.

    Args:
        table: Tokens, labels, and what is known of its homophones.
        auxiliary: The attacker's sample.
        known: Rows of the table that the attacker knows; their tokens are named as they are.
    """
    return _Annealing(table, auxiliary, known).run()


@dataclass(frozen=True)
class _Field:
    """Places of one field among the tokens and levels of all fields, and what is fixed of it."""

    tokens: slice
    levels: slice
    token_shares: Floats
    """log, float64 [tokens, 1]."""
    level_shares: Floats
    """log, float64 [1, levels]."""
    alone: Floats
    """float64 [tokens, levels], log-likelihood from the field by itself."""
    same: Floats | None
    """float64 [tokens, tokens], how often two of its tokens stand in linked rows."""


class _Annealing:
    """State: ``q``, float64 [tokens of all fields, levels of all fields], 0 across fields."""

    def __init__(self, table: TokenTable, auxiliary: Auxiliary, known: KnownRows | None) -> None:
        counted = tuple(map(len, table.counts))
        tokens, token_at = _indicators(table.tokens, table.label, counted)
        levels, level_at = _indicators(auxiliary.levels, auxiliary.label, auxiliary.sizes)
        seen = (tokens.T @ tokens).toarray() / table.draws
        sample = (levels.T @ levels).toarray()
        counts = np.diag(sample) + PSEUDO_ROWS
        self.lift, share = _lift(sample, counts, level_at)
        field = np.repeat(np.arange(len(token_at) - 1), np.diff(token_at))
        self.together = np.where(field[:, None] == field, 0.0, seen)
        copies = linked_pairs(table) if table.draws > 1 else None
        # A sample of n rows is not worth more rows of evidence than it has.
        coolest = len(table.label) / table.draws / len(auxiliary.label)
        self.temperatures = [t for t in TEMPERATURES if t > coolest] + [max(1.0, coolest)]
        self.fields = []
        for place, ((low, high), (first, last)) in enumerate(
            zip(pairwise(token_at[:-1]), pairwise(level_at[:-1]), strict=True)
        ):
            size = np.diag(seen)[low:high]
            alone = _by_size(table, size, share[first:last], len(auxiliary.label))
            if known is not None:
                alone = _fixed(alone, table.tokens[known.rows, place], known.levels[:, place])
            same = None if copies is None else copies.of(table.tokens[:, place], high - low)
            self.fields.append(
                _Field(
                    slice(low, high), slice(first, last),
                    np.log(size / size.sum())[:, None], np.log(share[first:last])[None],
                    alone, same,
                )
            )  # fmt: skip
        self.q = np.zeros((len(self.together), len(self.lift)))
        self.q[token_at[-2] :, level_at[-2] :] = np.eye(CLASSES)
        for one in self.fields:
            self.q[one.tokens, one.levels] = share[one.levels]

    def run(self) -> Guess:
        """Return the names after the last temperature."""
        scaling = [np.zeros_like(one.level_shares) for one in self.fields]
        for temperature in self.temperatures:
            for _ in range(PASSES):
                change = 0.0
                for place, one in enumerate(self.fields):
                    evidence = self._evidence(one, temperature)
                    named, scaling[place] = _scaled(evidence, one, scaling[place])
                    change = max(change, np.abs(named - self.q[one.tokens, one.levels]).max())
                    self.q[one.tokens, one.levels] = named
                if change < SETTLED:
                    break
        return [
            self.q[one.tokens, one.levels].argmax(axis=1).astype(np.int32) for one in self.fields
        ]

    def _evidence(self, one: _Field, temperature: float) -> Floats:
        """Return float64 [tokens, levels] of a field: tempered log-likelihoods."""
        likely = np.maximum(self.q @ self.lift[one.levels].T, LEAST_LIFT)
        found = self.together[one.tokens] @ np.log(likely)
        if one.same is not None:
            # A linked row holds the same level in this field, or any if the link is wrong.
            held = self.q[one.tokens, one.levels] / np.exp(one.level_shares)
            found += one.same @ np.log(LINK_TRUST * held + 1 - LINK_TRUST)
        scaled: Floats = found / temperature
        return scaled + one.alone / max(1.0, temperature / SIZE_STRENGTH)


def _lift(sample: Floats, counts: Floats, begin: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return ``P(column | row) / P(column)`` of all levels, and each level's share of its field."""
    field = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
    share = counts / np.bincount(field, counts)[field]
    drawn = sample + PAIR_ROWS * np.outer(share, share)
    lift = np.empty_like(drawn)
    for first, last in pairwise(begin):
        block = drawn[:, first:last]
        lift[:, first:last] = block / block.sum(axis=1, keepdims=True) / share[first:last]
    return lift, share


def _by_size(table: TokenTable, size: Floats, share: Floats, sample_rows: int) -> Floats:
    """Return float64 [tokens, levels]: log-likelihood of a token's rows if it were the level's.

    Nothing can be said where homophones are not used evenly.
    """
    if not table.even:
        return np.zeros((len(size), len(share)))
    rows = len(table.label) / table.draws
    split = np.maximum(1, np.ceil(share / table.most_share - 1e-9))
    mean = rows * share / split
    variance = mean + (rows / split) ** 2 * share * (1 - share) / sample_rows + 1
    found: Floats = -0.5 * ((size[:, None] - mean) ** 2 / variance + np.log(variance))
    return found


def _fixed(alone: Floats, tokens: Indices, levels: Indices) -> Floats:
    """Return the likelihoods with the known tokens' other names made impossible."""
    found = alone.copy()
    found[tokens] = CERTAIN
    found[tokens, levels] = 0
    return found


def _scaled(evidence: Floats, one: _Field, scaling: Floats) -> tuple[Floats, Floats]:
    """Return ``q`` of a field, and the levels' scaling to start from next time."""
    for _ in range(SCALINGS):
        rows = one.token_shares - logsumexp(evidence + scaling, axis=1, keepdims=True)
        scaling = one.level_shares - logsumexp(evidence + rows, axis=0, keepdims=True)
    rows = -logsumexp(evidence + scaling, axis=1, keepdims=True)
    return np.exp(evidence + rows + scaling), scaling


def _indicators(
    columns: Indices, label: NDArray[np.int8], sizes: tuple[int, ...]
) -> tuple[csr_array, NDArray[np.int64]]:
    """Return multi-hot rows, float64 [rows, values], and where each column's values begin.

    The label is the last column.
    """
    begin = np.cumsum([0, *sizes, CLASSES])
    where = (np.column_stack([columns, label]) + begin[:-1]).ravel()
    at = np.arange(0, len(where) + 1, len(begin) - 1)
    shape = (len(label), int(begin[-1]))
    return csr_array((np.ones(len(where)), where, at), shape=shape), begin
