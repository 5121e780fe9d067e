"""Stratified train / validation / test split, made by the data owner and fixed by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from cipherscore.dataset import TEST, TRAIN, VALIDATION
from cipherscore.errors import DataError

FRACTIONS = {VALIDATION: 0.16, TEST: 0.20}
"""Share of the rows of each class; the rest is for training."""

MIN_ROWS_PER_CLASS = 10
MOST_HELD_OUT = 0.75
"""Most of the rows of not huge groups that validation and test get together."""


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


class GroupNumbers:
    """Numbers the groups of a table in the order in which they first occur, over its batches."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}
        self._next = 0

    def of(self, column: pa.Array) -> np.ndarray:
        """Return int64 [rows]: the number of each row's group; an absent value is one of its own.

        Texts are compared without blanks around them.
        """
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        numbers = np.array([self._number(value) for value in column.dictionary.to_pylist()] + [-1])
        rows = column.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)
        found = np.asarray(numbers[rows], np.int64)
        alone = np.flatnonzero(found < 0)
        found[alone] = self._next + np.arange(len(alone))
        self._next += len(alone)
        return found

    def _number(self, value: Any) -> int:
        key = value.strip() if isinstance(value, str) else value
        if key is None or key == "":
            return -1
        if key not in self._known:
            self._known[key] = self._next
            self._next += 1
        return self._known[key]


def grouped_split(label: np.ndarray, group: np.ndarray, seed: int) -> np.ndarray:
    """Return int8 [rows] of `TRAIN`, `VALIDATION`, `TEST` in which no group is divided.

    Groups with a bad row and groups without one are dealt out separately, in random order, so that
    each part gets about its share of the rows of both.  A group that is larger than the validation
    part should be is for training.

    Args:
        label: int8 [rows], 0 good and 1 bad.
        group: int64 [rows], the number of each row's group, as of `GroupNumbers`.
        seed: Same labels, groups and seed, same split (PCG64).

    Raises:
        DataError: A part is left without a row of a class.
    """
    _, group = np.unique(group, return_inverse=True)
    groups = int(group.max(initial=-1)) + 1
    sizes = np.bincount(group, minlength=groups)
    has_bad = np.bincount(group, weights=label, minlength=groups) > 0
    generator = np.random.Generator(np.random.PCG64(seed))
    parts = np.full(groups, TRAIN, np.int8)
    for stratum in (np.flatnonzero(~has_bad), np.flatnonzero(has_bad)):
        order = generator.permutation(stratum)
        parts[order] = _dealt_out(sizes[order])
    split = np.asarray(parts[group], np.int8)
    for part, name in ((TRAIN, "training"), (VALIDATION, "validation"), (TEST, "test")):
        for value, credit in ((0, "good"), (1, "bad")):
            if not np.any((split == part) & (label == value)):
                raise DataError(
                    f"with rows of one group kept together the {name} part has no row of {credit} "
                    f"credit ({groups} groups, {int(has_bad.sum())} with a bad row); more groups, "
                    "another seed, or a schema without group"
                )
    return split


def _dealt_out(sizes: np.ndarray) -> np.ndarray:
    """Return int8 [groups]: the part of each of the groups of ``sizes`` rows, in this order."""
    parts = np.full(len(sizes), TRAIN, np.int8)
    total = int(sizes.sum())
    usual = np.flatnonzero(sizes <= FRACTIONS[VALIDATION] * total)  # a huge group is for training
    held_out = MOST_HELD_OUT * int(sizes[usual].sum()) / sum(FRACTIONS.values())
    tests = FRACTIONS[TEST] * min(total, held_out)
    validations = FRACTIONS[VALIDATION] * min(total, held_out)
    # A group falls where its middle row falls, so that no large one moves a border.
    middle = np.cumsum(sizes[usual]) - sizes[usual] / 2
    parts[usual[middle < tests]] = TEST
    parts[usual[(middle >= tests) & (middle < tests + validations)]] = VALIDATION
    return parts
