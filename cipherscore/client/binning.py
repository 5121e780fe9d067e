"""Fit bin edges of numeric fields on training rows.  Runs on the data owner's side."""

from __future__ import annotations

import numpy as np

from cipherscore.errors import DataError
from cipherscore.schema import Binning, Field

LEAST_SHARE = 0.04
"""Share of the training rows that a bin of method ``tree`` holds at least."""

_LEAST_GAIN = 1e-9
"""Bits that a cut must gain, above rounding."""


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

    Each bin holds at least `LEAST_SHARE` of the rows.  These are the cuts of a decision tree on one
    field, grown best first (Fayyad and Irani, IJCAI 1993).  None may be worth making.
    """
    distinct, positions = np.unique(values, return_inverse=True)
    rows = np.concatenate([[0], np.cumsum(np.bincount(positions))])
    bad = np.concatenate([[0.0], np.cumsum(np.bincount(positions, weights=labels))])
    least = max(1, round(LEAST_SHARE * len(values)))

    def entropy(first: np.ndarray | int, last: np.ndarray | int) -> np.ndarray:
        """Entropy in bits of all rows of ``distinct[first:last]`` together."""
        count = rows[last] - rows[first]
        share = (bad[last] - bad[first]) / count
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = share * np.log2(share) + (1 - share) * np.log2(1 - share)
        return np.asarray(-count * np.nan_to_num(bits))

    def best_cut(first: int, last: int) -> tuple[float, int]:
        """The gain of the best cut inside ``distinct[first:last]``, and where it is."""
        cuts = np.arange(first + 1, last)
        cuts = cuts[(rows[cuts] - rows[first] >= least) & (rows[last] - rows[cuts] >= least)]
        if not len(cuts):
            return 0.0, first
        gains = entropy(first, last) - entropy(first, cuts) - entropy(cuts, last)
        return float(gains.max()), int(cuts[np.argmax(gains)])

    parts = {(0, len(distinct)): best_cut(0, len(distinct))}
    while len(parts) < bins:
        (first, last), (gain, cut) = max(parts.items(), key=lambda part: part[1][0])
        if gain <= _LEAST_GAIN:
            break
        del parts[first, last]
        parts[first, cut], parts[cut, last] = best_cut(first, cut), best_cut(cut, last)
    starts = np.array(sorted(first for first, _ in parts if first), np.intp)
    return np.asarray((distinct[starts - 1] + distinct[starts]) / 2, np.float64)
