"""The rows that membership attacks are about: of a raw table, or of a token table the owner has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attacks.view import Auxiliary, Indices
from cipherscore.client.tables import field_column, level_indices
from evaluation.folds import RawData

Members = NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """Rows from which models are trained, and which are asked about.

    Args:
        rows: With plain levels, or with tokens by number.
        group: int [rows]; rows of one group are learned together or not at all.  None for none.
    """

    rows: Auxiliary
    group: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, raw: RawData, most: int, seed: int) -> Pool:
        """Return the rows of a table, at most ``most`` of them drawn at random.

        Bins and grouped categories are fitted on the whole table, for all models alike.
        """
        schema = raw.fitted(np.arange(raw.rows))
        columns = [level_indices(field_column(raw.table, field), field) for field in schema.fields]
        sizes = tuple(len(field.levels) for field in schema.fields)
        levels = np.stack(columns, axis=1).astype(np.int32)
        group = None
        if raw.group is not None:
            group = np.unique(raw.group, return_inverse=True)[1].astype(np.int64)
        whole = cls(Auxiliary(levels, raw.label.astype(np.int8), sizes), group)
        if raw.rows <= most:
            return whole
        return whole.part(np.random.default_rng([seed, most]).permutation(raw.rows)[:most])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Levels of each field."""
        return self.rows.sizes

    @property
    def with_label(self) -> Indices:
        """int32 [rows, fields + 1], the label as one more field."""
        return np.column_stack([self.rows.levels, self.rows.label]).astype(np.int32)

    def members(self, seed: int, number: int, share: float = 0.5) -> Members:
        """Return which rows a model learns from, bool [rows]: each model draws anew."""
        random = np.random.default_rng([seed, number])
        if self.group is None:
            return _chosen(random, len(self.rows.label), share)
        _, member = np.unique(self.group, return_inverse=True)
        return _chosen(random, int(member.max()) + 1, share)[member]

    def take(self, chosen: Members | NDArray[np.intp]) -> Auxiliary:
        """Return some of the rows."""
        return replace(self.rows, levels=self.rows.levels[chosen], label=self.rows.label[chosen])

    def part(self, chosen: Members | NDArray[np.intp]) -> Pool:
        """Return a pool of some of the rows."""
        return Pool(self.take(chosen), None if self.group is None else self.group[chosen])


def _chosen(random: np.random.Generator, count: int, share: float) -> Members:
    chosen = np.zeros(count, bool)
    chosen[random.permutation(count)[: round(share * count)]] = True
    return chosen
