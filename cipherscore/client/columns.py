"""The texts of one column of a table nobody has described yet, and what they may be read as."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cipherscore import dates
from cipherscore.client.targets import ABSENT_TEXTS
from cipherscore.field import number_of

LEAST_ROWS = 5
"""A column in which fewer rows than this differ from all others says nothing."""
MAX_STRAYS = 3
STRAY_SHARE = 0.05
"""This many different texts among numbers or dates, in this share of the rows, mean "absent"."""


class Column:
    """A column's texts and what is different among them.

    ``present`` holds the distinct texts that are values, ``counts`` (int64) the rows of each.
    """

    def __init__(self, name: str, texts: pa.Array) -> None:
        self.name = name
        self.texts = texts.dictionary_encode()
        self._rows = self.texts.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        distinct = self.texts.dictionary
        counts = np.bincount(self._rows[self._rows >= 0], minlength=len(distinct))
        absent = pc.is_in(distinct, value_set=pa.array(ABSENT_TEXTS)).to_numpy(zero_copy_only=False)
        self._known = np.flatnonzero(~absent)
        self.present = distinct.take(pa.array(self._known))
        self.counts = counts[self._known]
        self.absent_texts = tuple(
            sorted(t for t in distinct.filter(pa.array(absent)).to_pylist() if t)
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.texts)

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return self.rows - int(self.counts.sum())

    def spread(self, values: np.ndarray, *, absent: float = np.nan) -> np.ndarray:
        """Return float64 [rows]: of each row, the entry of ``values`` for its distinct text."""
        whole = np.full(len(self.texts.dictionary) + 1, absent)
        whole[self._known] = values
        return np.asarray(whole[self._rows], np.float64)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest text."""
        return int(pc.max(pc.binary_length(self.present)).as_py() or 0)


def as_numbers(column: Column, decimal: str) -> np.ndarray | None:
    """Return float64 [distinct] of the present texts, NaN where no finite number; None if all."""
    texts = column.present
    if decimal != ".":
        texts = pc.replace_substring(texts, decimal, ".")
    try:
        values = np.asarray(pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        if not _some(texts, lambda text: np.isfinite(number_of(text))):
            return None
        values = np.array([number_of(text) for text in texts.to_pylist()])
    values = np.where(np.isfinite(values), values, np.nan)
    return values if np.isfinite(values).any() else None


def _some(texts: pa.Array, test: Callable[[str], bool | np.bool_]) -> bool:
    """Return whether one of the first texts passes; it spares looking at all of most columns."""
    return any(test(text) for text in texts[:200].to_pylist())


def common_forms(texts: list[str]) -> list[str]:
    """Return the forms of dates in which all texts are one, else the form of nearly all."""
    head = texts[:200]
    scores = {
        form: sum(dates.parse(form, text) is not None for text in head) for form in dates.FORMS
    }
    best = max(scores.values())
    if best < len(head) - MAX_STRAYS or not best:
        return []
    forms = [form for form, score in scores.items() if score == best]
    return dates.detect(texts) or forms[:1]


def tells(values: np.ndarray) -> bool:
    """Return whether enough rows have another number than the most common one."""
    present = values[np.isfinite(values)]
    _, counts = np.unique(present, return_counts=True)
    return bool(len(counts) > 1 and len(present) - counts.max() >= LEAST_ROWS)
