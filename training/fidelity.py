"""Figures of synthetic rows: are they like the real ones, useful, and nobody's copy?

All take int [rows, fields] column indices; a negative index (a token the vocabulary lacks) counts
as a column that no synthetic row has.  Large tables are measured on an even draw of their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import auc

Indices = NDArray[np.int32]

MAX_TABLE_ROWS = 20_000
MAX_NEIGHBOUR_ROWS = 2_000
CLOSENESS_DRAWS = 20
TSTR_ROWS, MOST_TSTR_ROWS = 1_000, 50_000
"""Fewest and most synthetic rows of one training, see `tstr_rows`."""
BOOSTED_SLICES = 2


@dataclass(frozen=True)
class Rows:
    """Rows of one origin.

    Args:
        indices: int32 [rows, fields].
        label: int8 [rows], 1 = bad credit.
    """

    indices: Indices
    label: NDArray[np.int8]

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Rows:
        """Return some of the rows."""
        return Rows(self.indices[chosen], self.label[chosen])

    def at_most(self, count: int, seed: int = 0) -> Rows:
        """Return all rows, or ``count`` drawn without replacement."""
        if len(self.label) <= count:
            return self
        return self.take(np.random.default_rng(seed).choice(len(self.label), count, replace=False))


def fidelity(real: Rows, synthetic: Rows, sizes: Sequence[int]) -> tuple[float, float]:
    """Return column and pair fidelity, the means of `fidelity_table`: 1 is best."""
    distance = _table_distances(real, synthetic, sizes)
    pairs = distance[np.triu_indices(len(distance), 1)]
    return float(1 - distance.diagonal().mean()), float(1 - pairs.mean())


def fidelity_table(real: Rows, synthetic: Rows, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return 1 less the total variation distance of every two-way table.

    float64 [fields + 1, fields + 1], symmetric; the last column is the label, and on the diagonal
    stand the columns by themselves.
    """
    return 1 - _table_distances(real, synthetic, sizes)


def closeness_share(
    synthetic: Rows, learned: Rows, holdout: Rows, sizes: Sequence[int], seed: int = 0
) -> float:
    """Return the share of synthetic rows nearer to a learned row than to a holdout row.

    The distance is the number of differing fields; a tie counts half.  Both sides have equally many
    rows: learned rows are drawn to the holdout's number, `CLOSENESS_DRAWS` times.  0.50 is what
    rows give that favour nobody; a verbatim copy gives ``0.5 + 0.5 * holdout / learned``.
    """
    random = np.random.default_rng(seed)
    synthetic = synthetic.at_most(MAX_NEIGHBOUR_ROWS)
    holdout = holdout.at_most(MAX_NEIGHBOUR_ROWS)
    learned = learned.at_most(4 * MAX_NEIGHBOUR_ROWS)
    count = min(len(holdout.label), len(learned.label))
    to_learned = distances(synthetic, learned, sizes)
    to_holdout = distances(synthetic, holdout.at_most(count), sizes).min(axis=1)
    shares = []
    for _ in range(CLOSENESS_DRAWS):
        drawn = random.choice(len(learned.label), count, replace=False)
        nearest = to_learned[:, drawn].min(axis=1)
        shares.append(((nearest < to_holdout) + 0.5 * (nearest == to_holdout)).mean())
    return float(np.mean(shares))


def copy_rate(synthetic: Rows, learned: Rows) -> float:
    """Return the share of synthetic rows that equal a learned row in every field."""
    known = {row.tobytes() for row in np.ascontiguousarray(learned.indices, np.int32)}
    rows = np.ascontiguousarray(synthetic.indices, np.int32)
    return float(np.mean([row.tobytes() in known for row in rows]))


def tstr_rows(learned: int) -> int:
    """Return how many synthetic rows a model is trained on: as many as were learned, in limits."""
    return min(max(learned, TSTR_ROWS), MOST_TSTR_ROWS)


def tstr_auc(
    synthetic: Rows, real: Rows, sizes: Sequence[int], rows: int | None = TSTR_ROWS,
    *, boosted: bool = False,
) -> float:  # fmt: skip
    """Return the AUC on real rows of a model trained on synthetic rows.

    Args:
        synthetic: Training rows; real ones give the figure to compare with.
        real: Test rows.
        sizes: Columns of each field.
        rows: Rows of one training; the mean over all full slices of them is returned.  Nothing
            means one training on all rows.  A slice with one class only counts 0.5.
        boosted: Whether the model is gradient-boosted trees, on at most `BOOSTED_SLICES` slices,
            instead of a logistic regression.
    """
    total = len(synthetic.label)
    step = min(rows or total, total)
    tested = multi_hot(real.indices, sizes)
    figures = []
    starts = range(0, total - step + 1, step)
    for start in starts[:BOOSTED_SLICES] if boosted else starts:
        part = synthetic.take(slice(start, start + step))
        if np.min(part.label) == np.max(part.label):
            figures.append(0.5)
            continue
        model = _learner(boosted=boosted).fit(multi_hot(part.indices, sizes), part.label)
        figures.append(auc(real.label, model.decision_function(tested)))
    return float(np.mean(figures))


def _learner(*, boosted: bool) -> Any:
    if boosted:
        from sklearn.ensemble import (  # noqa: PLC0415 - loads slowly
            HistGradientBoostingClassifier,
        )

        return HistGradientBoostingClassifier(
            max_iter=60, max_depth=3, learning_rate=0.08, random_state=0
        )
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - loads slowly

    return LogisticRegression(max_iter=500)


def multi_hot(indices: Indices, sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return float32 [rows, width]; a negative index sets no column."""
    starts = np.cumsum((0, *sizes[:-1]))
    result = np.zeros((len(indices), sum(sizes)), np.float32)
    row, field = np.nonzero(indices >= 0)
    result[row, indices[row, field] + starts[field]] = 1
    return result


def _table_distances(real: Rows, synthetic: Rows, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return the total variation distance of every two-way table, as `fidelity_table`."""
    bounds = np.cumsum((0, *sizes))
    tables = [_pair_tables(rows.at_most(MAX_TABLE_ROWS), sizes) for rows in (real, synthetic)]
    distance = np.abs(tables[0] - tables[1])
    blocks = np.add.reduceat(np.add.reduceat(distance, bounds, 0), bounds, 1)
    return np.asarray(blocks / 2, np.float64)


def _pair_tables(rows: Rows, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return the two-way tables of all columns and the label, as shares of the rows."""
    labelled = np.concatenate([rows.indices, rows.label[:, None].astype(np.int32)], axis=1)
    hot = multi_hot(labelled, (*sizes, 2))
    counts: NDArray[np.float64] = (hot.T @ hot).astype(np.float64)
    return counts / len(rows.label)


def distances(left: Rows, right: Rows, sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return the number of fields in which rows differ, float32 [left, right]."""
    same: NDArray[np.float32] = multi_hot(left.indices, sizes) @ multi_hot(right.indices, sizes).T
    return len(sizes) - same
