"""One key for all fields: equal codes of different fields give equal tokens, as AES-ECB does.

The capstone numbers each field's levels from 0 and encrypts the numbers under one key.  A token
then has one number in all fields, and each field in which it occurs is further evidence of it.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from attacks.tokens.frequency import PSEUDO_ROWS, with_label
from attacks.view import Auxiliary, Indices

IMPOSSIBLE = -1e9


def by_shared_code(tokens: Indices, label: np.ndarray, auxiliary: Auxiliary) -> Indices:
    """Name tokens by the assignment to codes of the largest likelihood over all fields.

    Args:
        tokens: int32 [rows, fields], numbered from 0 over all fields together.
        label: int8 [rows], 1 = bad credit.
        auxiliary: The attacker's sample; the levels' numbers are their codes.

    Returns:
        int32 [tokens], the code of each; no code twice.
    """
    count, codes = int(tokens.max()) + 1, max(auxiliary.sizes)
    likelihood = np.zeros((count, max(codes, count)))
    likelihood[:, codes:] = IMPOSSIBLE
    for field, size in enumerate(auxiliary.sizes):
        seen = with_label(tokens[:, field], label, count)
        known = with_label(auxiliary.levels[:, field], auxiliary.label, size) + PSEUDO_ROWS
        likelihood[:, :size] += seen @ np.log(known / known.sum()).T
        likelihood[seen.sum(axis=1) > 0, size:] += IMPOSSIBLE
    return np.asarray(linear_sum_assignment(likelihood, maximize=True)[1], np.int32)
