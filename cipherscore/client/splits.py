"""Stratified train / validation / test split, made by the data owner and fixed by a seed."""

from __future__ import annotations

import numpy as np

from cipherscore.dataset import TEST, TRAIN, VALIDATION
from cipherscore.errors import DataError

FRACTIONS = {VALIDATION: 0.16, TEST: 0.20}
"""Share of the rows of each class; the rest is for training."""

MIN_ROWS_PER_CLASS = 10


def stratified_split(label: np.ndarray, seed: int) -> np.ndarray:
    """Return int8 [rows] of `TRAIN`, `VALIDATION`, `TEST`; each class is divided alike.

    Args:
        label: int8 [rows], 0 good and 1 bad.
        seed: Same labels and seed, same split (PCG64).

    Raises:
        DataError: A class has fewer than `MIN_ROWS_PER_CLASS` rows.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    split = np.full(len(label), TRAIN, np.int8)
    for value, name in ((0, "good"), (1, "bad")):
        rows = int(np.count_nonzero(label == value))
        if rows < MIN_ROWS_PER_CLASS:
            raise DataError(
                f"the table has {rows} rows of {name} credit; at least {MIN_ROWS_PER_CLASS} "
                "of each class are needed to train, validate and test"
            )
        # Parts are shuffled, not row numbers: one byte a row, which counts with 100 million rows.
        parts = np.full(rows, TRAIN, np.int8)
        tests = round(FRACTIONS[TEST] * rows)
        parts[:tests] = TEST
        parts[tests : tests + round(FRACTIONS[VALIDATION] * rows)] = VALIDATION
        generator.shuffle(parts)
        split[label == value] = parts
    return split
