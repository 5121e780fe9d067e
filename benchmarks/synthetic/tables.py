"""One fold's rows as the sources learn them and as they are judged: raw values, levels, columns.

A table here is a mapping of column name to an array of equal length, the label among them as
`GOOD` or `BAD` under the target's name.  Raw tables hold numbers (float64, NaN = absent) and texts;
level tables hold the texts of levels, bins fitted on the fold's training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from cipherscore.client.tables import field_column, level_indices
from cipherscore.errors import DataError, RecordError
from cipherscore.field import MISSING_LEVEL, Field, number_of
from cipherscore.files import atomic_path
from evaluation.folds import Fold, RawData
from training.fidelity import Rows

GOOD, BAD = "good", "bad"
INVALID = "(invalid)"
"""Level of a value that the schema does not allow."""
UNSEEN = -1
"""Column index of a level that no training row has."""

Table = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Judged:
    """Rows of a source, ready to be measured.

    Args:
        rows: int32 [rows, fields] column indices and labels.
        valid: bool [rows], whether the schema allows every value of the row.
        levels: The same rows as a level table.
    """

    rows: Rows
    valid: np.ndarray
    levels: Table


class FoldTables:
    """The tables of one fold.

    Args:
        raw: All rows.
        fold: Which of them are for training and for the test.
    """

    def __init__(self, raw: RawData, fold: Fold) -> None:
        self.raw, self.fold = raw, fold
        self.fields = raw.fitted(fold.train).fields
        self.label = raw.schema.target.name

    @property
    def numeric(self) -> list[str]:
        """Names of the columns of a raw table that hold numbers."""
        return [field.name for field in self.fields if field.kind == "numeric"]

    @cached_property
    def all_levels(self) -> Table:
        """The level table of all rows."""
        table = {}
        for field in self.fields:
            positions = level_indices(field_column(self.raw.table, field), field)
            table[field.name] = np.asarray(field.levels, object)[positions]
        return {**table, self.label: self._label_texts}

    @cached_property
    def all_values(self) -> Table:
        """The raw table of all rows."""
        table = {
            field.name: self.raw.numbers(field.name)
            if field.kind == "numeric"
            else self.raw.texts(field.name)
            for field in self.fields
        }
        return {**table, self.label: self._label_texts}

    @cached_property
    def columns(self) -> dict[str, dict[str, int]]:
        """Field to {level: column index}: the levels of the training rows, sorted by their text."""
        return {
            field.name: {
                level: position
                for position, level in enumerate(
                    sorted(set(self.all_levels[field.name][self.fold.train]))
                )
            }
            for field in self.fields
        }

    @cached_property
    def digest(self) -> str:
        """Digest of the whole raw table and its schema."""
        return self.raw.digest

    @property
    def sizes(self) -> tuple[int, ...]:
        """Columns of each field."""
        return tuple(len(known) for known in self.columns.values())

    @property
    def learned(self) -> Rows:
        """The training rows."""
        return self.rows(take(self.all_levels, self.fold.train))

    @property
    def tests(self) -> Rows:
        """The test rows."""
        return self.rows(take(self.all_levels, self.fold.test))

    def rows(self, levels: Table) -> Rows:
        """Return a level table as column indices.

        Raises:
            DataError: A label is neither `GOOD` nor `BAD`.
        """
        label = levels[self.label]
        if not np.isin(label, (GOOD, BAD)).all():
            raise DataError(f"column {self.label!r} holds more than {GOOD!r} and {BAD!r}")
        indices = [
            [known.get(level, UNSEEN) for level in levels[name]]
            for name, known in self.columns.items()
        ]
        return Rows(
            np.ascontiguousarray(np.asarray(indices, np.int32).T), (label == BAD).astype(np.int8)
        )

    def judged(self, table: Table, *, raw: bool) -> Judged:
        """Bin the rows of a source.

        A number outside the schema's range counts as the nearest allowed one, but its row is not
        valid.

        Args:
            table: Texts of all columns, as `read` gives them.
            raw: Whether the source makes raw values; else they are levels.

        Raises:
            DataError: A column is missing, or a label is unknown.
        """
        if lacking := [name for name in (*self.columns, self.label) if name not in table]:
            raise DataError(f"the made rows lack column {lacking[0]!r}")
        levels, valid = {self.label: table[self.label]}, np.ones(len(table[self.label]), bool)
        for fitted in self.fields:
            field = replace(fitted, part="", date="", reference="")  # a number is the part already
            texts, place = np.unique(table[field.name].astype(str), return_inverse=True)
            found = [level_of_text(field, str(text), raw=raw) for text in texts]
            levels[field.name] = np.asarray([level for level, _ in found], object)[place]
            valid &= np.asarray([allowed for _, allowed in found])[place]
        return Judged(self.rows(levels), valid, levels)

    @cached_property
    def _label_texts(self) -> np.ndarray:
        return np.where(self.raw.label == 1, BAD, GOOD).astype(object)


def level_of_text(field: Field, text: str, *, raw: bool) -> tuple[str, bool]:
    """Return the level of a value that a source made, and whether the schema allows the value.

    ``raw`` says whether the text is a raw value (empty: absent) or a level.
    """
    if not raw:
        return (text, True) if text in field.levels else (INVALID, False)
    try:
        return field.level_of(None if text in ("", MISSING_LEVEL) else text), True
    except RecordError:
        number = number_of(text)
        if field.kind == "categorical" or not np.isfinite(number) or field.valid_range is None:
            return INVALID, False
        return field.level_of(float(np.clip(number, *field.valid_range))), False


def take(table: Table, rows: np.ndarray) -> Table:
    """Return some rows of a table."""
    return {name: column[rows] for name, column in table.items()}


def write(table: Table, path: Path) -> None:
    """Write a table as CSV with a header; NaN becomes an empty cell."""
    columns = {name: pa.array(column, from_pandas=True) for name, column in table.items()}
    with atomic_path(path) as temporary:
        csv.write_csv(pa.table(columns), temporary)


def read(path: Path) -> Table:
    """Read a CSV file with a header, all cells as texts."""
    with csv.open_csv(path) as reader:
        names = reader.schema.names
    options = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    table = csv.read_csv(path, convert_options=options)
    return {name: table[name].to_numpy() for name in names}
