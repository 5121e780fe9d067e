"""Which attribute goes to which scorecard.

All scorecards should be about equally strong, so that none is a field of its own, and attributes
that depend on each other belong together: the sum then hides both behind what they share, and no
other scorecard tells about them again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cipherscore.client.points import Levels


def dealt(levels: Levels, points: list[NDArray[np.int64]], count: int) -> list[int]:
    """Return the scorecard of each attribute, from 1; each scorecard gets one at least.

    The strongest attribute is dealt first.  Each joins the scorecard for which this is largest: its
    mean dependence on the attributes there (`dependence`, 0 to 1), less the variance of their
    points as a share of what each scorecard would have if all had the same.

    Args:
        levels: Of training rows.
        points: Of each attribute's levels, int64 [levels].
        count: Number of scorecards, at most that of attributes.
    """
    both = zip(points, levels.columns.T, levels.starts[:-1], strict=True)
    strength = np.array([np.var(own[column - first]) for own, column, first in both])
    fair = strength.sum() / count or 1.0
    together = dependence(levels)
    members: list[list[int]] = [[] for _ in range(count)]
    waiting = np.argsort(-strength, kind="stable").tolist()
    for place, attribute in enumerate(waiting):
        empty = [number for number, own in enumerate(members) if not own]
        allowed = empty if len(empty) == len(waiting) - place else range(count)
        worth = {
            number: (together[attribute, own].mean() if (own := members[number]) else 0.0)
            - strength[own].sum() / fair
            for number in allowed
        }
        members[max(worth, key=worth.__getitem__)].append(attribute)
    dealt_to = {attribute: number for number, own in enumerate(members, 1) for attribute in own}
    return [dealt_to[attribute] for attribute in range(len(points))]


def dependence(levels: Levels) -> NDArray[np.float64]:
    """Return float64 [attributes, attributes]: Cramér's V of each pair, corrected for bias.

    The correction is Bergsma's (Journal of the Korean Statistical Society 42, 2013).  0 is
    independence, 1 that each level of one goes with one level of the other.
    """
    rows, starts = len(levels.columns), levels.starts[:-1]
    counts = levels.totals(np.ones(rows))
    seen = np.where(counts > 0, counts, 1.0)
    cells = levels.tables(np.ones(rows)) ** 2 / np.outer(seen, seen)
    phi = np.add.reduceat(np.add.reduceat(cells, starts, axis=0), starts, axis=1) - 1
    free = np.add.reduceat(counts > 0, starts, dtype=np.float64) - 1
    phi = np.maximum(0.0, phi - np.outer(free, free) / max(1, rows - 1))
    free = free - free**2 / max(1, rows - 1)
    least = np.minimum.outer(free, free)
    squared = np.divide(phi, least, out=np.zeros_like(phi), where=least > 0)
    return np.asarray(np.sqrt(np.minimum(1.0, squared)))
