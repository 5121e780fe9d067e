"""Folds of a raw table, as the data owner would encrypt them: bins fitted on training rows only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from cipherscore.client.binning import fit_edges
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.fitting import fit_homophones, weights_prf
from cipherscore.client.grouping import keep_categories
from cipherscore.client.keys import Keyset
from cipherscore.client.nonces import table_nonces
from cipherscore.client.records import RecordCodec
from cipherscore.client.scorecards import attribute_levels, fitted_scorecards, summed
from cipherscore.client.sources import RawTable, from_arrow
from cipherscore.client.splits import GroupNumbers
from cipherscore.client.tables import (
    category_counts,
    column_of,
    encode_batch,
    field_column,
    labels,
    numbers,
)
from cipherscore.dataset import TEST, TRAIN, TokenColumn, TokenDataset
from cipherscore.errors import DataError
from cipherscore.schema import MISSING_LEVEL, Field, Schema

Rows = NDArray[np.intp]
"""Positions of rows."""


@dataclass(frozen=True)
class Fold:
    """One division of the rows: positions to learn from and to test on."""

    repeat: int
    number: int
    train: Rows
    test: Rows

    @property
    def name(self) -> str:
        """Key of the fold in a results file."""
        return f"{self.repeat}/{self.number}"

    def training_seed(self, seed: int, number: int = 0) -> int:
        """Return the seed of the fold's training; ``number`` counts further seeds."""
        return 1_000_000 * number + 10_000 * seed + 100 * self.repeat + self.number

    def learning_from(self, most: int, label: np.ndarray, seed: int) -> Fold:
        """Return the fold with at most ``most`` training rows, classes in their proportion."""
        if len(self.train) <= most:
            return self
        generator = np.random.default_rng([seed, self.repeat, self.number])
        kept = []
        for value in (0, 1):
            rows = self.train[label[self.train] == value]
            count = max(1, round(most * len(rows) / len(self.train)))
            kept.append(generator.choice(rows, min(count, len(rows)), replace=False))
        return replace(self, train=np.sort(np.concatenate(kept)))


@dataclass(frozen=True)
class RawData:
    """A whole raw table in memory with its labels (int8, 1 = bad credit).

    ``group`` holds, where the schema names a group column, the group of each row: rows of one group
    are never divided over training and test.
    """

    schema: Schema
    table: pa.Table
    label: np.ndarray
    group: np.ndarray | None = None

    @classmethod
    def read(cls, schema: Schema, source: RawTable) -> RawData:
        """Read all rows of ``source``.

        Raises:
            DataError: The table has no row, lacks a column, or has one class only.
            RecordError: A target value is not allowed.
        """
        batches = list(source.batches())
        if not batches:
            raise DataError(f"{source.name} has no row")
        table = pa.Table.from_batches(batches)
        label = labels(table, schema.target)
        group = GroupNumbers().of(column_of(table, schema.group)) if schema.group else None
        return cls(schema, table, label, group)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.label)

    @property
    def digest(self) -> str:
        """SHA-256 over schema and cells; results of other data are not taken up again."""
        digest = hashlib.sha256(repr(self.schema).encode())
        for column in self.table.columns:
            for text in column.to_pylist():
                digest.update(repr(text).encode() + b"\0")
        return digest.hexdigest()

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a numeric field or attribute as float64 [rows], NaN where absent."""
        field = self._input(name)
        return numbers(field_column(self.table, field), field)

    def texts(self, name: str) -> np.ndarray:
        """Return a categorical field or attribute as trimmed texts [rows].

        Absent is `MISSING_LEVEL`.
        """
        field = self._input(name)
        cells = field_column(self.table, field).to_pylist()
        found = {cell: "" if cell is None else str(cell).strip() for cell in set(cells)}
        texts = np.asarray([found[cell] for cell in cells], dtype=object)
        texts[np.isin(texts, list(field.absent_texts))] = MISSING_LEVEL
        return texts

    def fitted(self, rows: Rows) -> Schema:
        """Return the schema with its bins, grouped categories and scorecards fitted on ``rows``."""
        edges, categories = {}, {}
        for field in self.schema.inputs:
            if field.fitted:
                continue
            if field.kind == "numeric":
                edges[field.name] = fit_edges(
                    field, self.numbers(field.name)[rows], self.label[rows]
                )
            else:
                column = field_column(self.table, field).take(pa.array(rows))
                counts = category_counts(column, field)
                categories[field.name] = keep_categories(field, counts, len(rows))
        schema = self.schema.with_edges(edges).with_categories(categories)
        if schema.scorecards is None:
            return schema
        levels = attribute_levels(self.table.take(pa.array(rows)), schema)
        return fitted_scorecards(schema, levels, self.label[rows])

    def as_fields(self, schema: Schema) -> RawData:
        """Return a table of the fields: the sums of points where there are scorecards, else this.

        Args:
            schema: The table's, fitted.
        """
        if schema.scorecards is None:
            return replace(self, schema=schema)
        plain = replace(schema, scorecards=None)
        return replace(self, schema=plain, table=summed(self.table, schema))

    def _input(self, name: str) -> Field:
        """Return what is read from the table under a name."""
        return {field.name: field for field in self.schema.inputs}[name]


def folds(raw: RawData, repeats: int, count: int, seed: int) -> Iterator[Fold]:
    """Yield stratified folds, by group where the table has groups; each repeat is shuffled anew.

    Raises:
        DataError: A class has fewer rows than there are folds.
    """
    least = int(np.bincount(raw.label, minlength=2).min())
    if least < count:
        raise DataError(
            f"the rarer class has {least} rows, too few for {count} folds; give --folds "
            f"{max(2, least)} or more data"
        )
    for repeat in range(repeats):
        state = 1000 * seed + repeat
        splitter = StratifiedKFold if raw.group is None else StratifiedGroupKFold
        parts = splitter(count, shuffle=True, random_state=state)
        for number, (train, test) in enumerate(parts.split(raw.label, raw.label, raw.group)):
            yield Fold(repeat, number, train, test)


def token_dataset(raw: RawData, fold: Fold, keyset: Keyset) -> tuple[TokenDataset, RecordCodec]:
    """Return the encrypted table with bins fitted on the fold's training rows, and its codec.

    Rows outside the fold's training rows are marked as test rows.  Where the schema asks for
    smoothing, homophones are fitted on the training rows too and drawn once for each row.
    """
    split = np.full(raw.rows, TEST, np.int8)
    split[fold.train] = TRAIN
    source = from_arrow(raw.table)
    schema = fit_homophones(source, raw.fitted(fold.train), split, weights_prf(keyset, raw.schema))
    codec = RecordCodec(FieldCipher(keyset, schema))
    nonces = table_nonces(fold.repeat, np.arange(raw.rows), np.zeros(raw.rows, np.int64))
    dataset = TokenDataset(
        schema=codec.schema.public(),
        key_id=codec.key_id,
        seed=fold.repeat,
        digest=hashlib.sha256(split.tobytes()).hexdigest(),
        columns=encode_batch(raw.table, codec, nonces),
        label=raw.label,
        split=split,
        draws=int(schema.smoothed),
    )
    return dataset, codec


def in_plain(tokens: TokenDataset, codec: RecordCodec) -> TokenDataset:
    """Return the same table with each level's own bytes in the place of its tokens."""
    columns = {}
    for name, column in tokens.columns.items():
        levels = [codec.levels[name][token].encode() for token in column.dictionary]
        distinct = tuple(dict.fromkeys(levels))  # homophones of a level become one
        position = np.array([distinct.index(level) for level in levels], np.int32)
        columns[name] = TokenColumn(distinct, position[column.indices])
    return replace(tokens, columns=columns, draws=0)
