"""Fit bin edges of numeric fields on training rows.  Runs on the data owner's side."""

from __future__ import annotations

import math

import numpy as np

from cipherscore.errors import DataError
from cipherscore.schema import Binning, Field

BASE_BINS = 4
"""Bins of method ``tree`` that any gain is enough for; each further one must prove itself."""

LEAST_SHARE = 0.04
"""Share of the training rows that each of the first `BASE_BINS` bins holds at least."""

LEAST_ROWS = 10
"""Training rows that a further bin holds at least, or `LEAST_SHARE` of them where that is less."""

LEAST_BITS = 4.0
"""Bits of entropy, over all rows, that the cut of a further bin gains at least."""

LEAST_RARE = 2.0
"""Rows of the rarer class whose information (``log2(1 / share)`` bits each) such a cut gains.

Where one row in 500 is bad, a bin around a single bad one would gain `LEAST_BITS` by chance.
"""

MANY_ROWS = 2000
"""Rows from which a table gets up to `MOST_BINS` bins by default."""

MOST_BINS = 64

_LEAST_GAIN = 1e-9
"""Bits that a cut must gain, above rounding."""


def default_binning(rows: int) -> Binning:
    """Return how a numeric field of a table of ``rows`` rows is best cut.

    A finer bin is a rarer token, which says more to a host that knows the population; see
    docs/threat-model.md.
    """
    return Binning("tree", MOST_BINS if rows >= MANY_ROWS else BASE_BINS)


def fit_edges(field: Field, values: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Return bin edges of ``field`` for the training ``values`` (float64, [rows]; NaN = absent).

    ``labels`` (int8, [rows], 1 = bad credit) decide the cuts of method ``tree`` alone.

    Raises:
        DataError: No value is present, or all are equal.
    """
    finite = np.isfinite(values)
    values, labels = values[finite], labels[finite]
    present = np.unique(values)
    if len(present) < 2:
        raise DataError(
            f"field {field.name!r} has {len(present)} distinct value(s) in the training rows; a "
            "constant field says nothing, remove it from the schema"
        )
    if field.binning is None:
        raise DataError(f"field {field.name!r} has neither edges nor a binning")
    return tuple(float(edge) for edge in _edges(field.binning, values, labels, present))


def _edges(
    binning: Binning, values: np.ndarray, labels: np.ndarray, distinct: np.ndarray
) -> np.ndarray:
    """Return rising edges; ``distinct`` is sorted."""
    low, high = distinct[0], distinct[-1]
    if binning.method == "uniform":
        return np.linspace(low, high, binning.bins + 1)
    if len(distinct) <= binning.bins:
        inner = (distinct[:-1] + distinct[1:]) / 2
    elif binning.method == "tree":
        inner = tree_cuts(values, labels, binning.bins)
    else:
        shares = np.linspace(0, 1, binning.bins + 1)[1:-1]
        inner = np.unique(np.quantile(values, shares))
    return np.concatenate([[low], inner[(inner > low) & (inner < high)], [high]])


def tree_cuts(values: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    """Return the inner edges of at most ``bins`` bins, cut one by one where entropy falls most.

    These are the cuts of a decision tree on one field, grown best first (Fayyad and Irani, IJCAI
    1993).  The first `BASE_BINS` bins hold `LEAST_SHARE` of the rows each and need any gain; the
    others may be small, down to `LEAST_ROWS`, but each cut gains `LEAST_BITS` or what `LEAST_RARE`
    asks for.  None may be worth making.
    """
    counts = _Counts(values, labels)
    share = LEAST_SHARE * len(values)
    parts = counts.grow([(0, len(counts.distinct))], min(bins, BASE_BINS), share, _LEAST_GAIN)
    if bins > BASE_BINS:
        parts = counts.grow(parts, bins, min(LEAST_ROWS, share), _least_bits(labels))
    starts = np.array(sorted(first for first, _ in parts if first), np.intp)
    distinct = counts.distinct
    return np.asarray((distinct[starts - 1] + distinct[starts]) / 2, np.float64)


def _least_bits(labels: np.ndarray) -> float:
    share = float(np.mean(labels))
    rare = max(min(share, 1 - share), 1 / len(labels))
    return max(LEAST_BITS, LEAST_RARE * -math.log2(rare))


class _Counts:
    """Rows and bad credits of each distinct value; a part is a range of positions in them."""

    def __init__(self, values: np.ndarray, labels: np.ndarray) -> None:
        self.distinct, positions = np.unique(values, return_inverse=True)
        self.rows = np.concatenate([[0], np.cumsum(np.bincount(positions))])
        self.bad = np.concatenate([[0.0], np.cumsum(np.bincount(positions, weights=labels))])

    def grow(
        self, parts: list[tuple[int, int]], bins: int, least_rows: float, least_gain: float
    ) -> list[tuple[int, int]]:
        """Cut ``parts``, the best cut first, until there are ``bins`` or none gains enough."""
        least = max(1, round(least_rows))
        found = {part: self.best_cut(*part, least) for part in parts}
        while len(found) < bins:
            (first, last), (gain, cut) = max(found.items(), key=lambda part: part[1][0])
            if gain <= least_gain:
                break
            del found[first, last]
            found[first, cut] = self.best_cut(first, cut, least)
            found[cut, last] = self.best_cut(cut, last, least)
        return list(found)

    def best_cut(self, first: int, last: int, least: int) -> tuple[float, int]:
        """Return the gain in bits of the best cut inside a part, and where it is."""
        rows = self.rows
        cuts = np.arange(first + 1, last)
        cuts = cuts[(rows[cuts] - rows[first] >= least) & (rows[last] - rows[cuts] >= least)]
        if not len(cuts):
            return 0.0, first
        gains = self.entropy(first, last) - self.entropy(first, cuts) - self.entropy(cuts, last)
        return float(gains.max()), int(cuts[np.argmax(gains)])

    def entropy(self, first: np.ndarray | int, last: np.ndarray | int) -> np.ndarray:
        """Return the entropy in bits of all rows of a part together."""
        count = self.rows[last] - self.rows[first]
        share = (self.bad[last] - self.bad[first]) / count
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = share * np.log2(share) + (1 - share) * np.log2(1 - share)
        return np.asarray(-count * np.nan_to_num(bits))
