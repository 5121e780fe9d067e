"""Folds of a raw table, as the data owner would encrypt them: bins fitted on training rows only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.model_selection import StratifiedKFold

from cipherscore.client.binning import fit_edges
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import find_table
from cipherscore.client.tables import column_of, encode_batch, labels, numbers
from cipherscore.dataset import TEST, TRAIN, TokenColumn, TokenDataset
from cipherscore.schema import Schema


@dataclass(frozen=True)
class Fold:
    """One division of the rows: positions to learn from and to test on."""

    repeat: int
    number: int
    train: np.ndarray
    test: np.ndarray

    @property
    def name(self) -> str:
        """Key of the fold in a results file."""
        return f"{self.repeat}/{self.number}"


@dataclass(frozen=True)
class RawData:
    """A whole raw table in memory with its labels (int8, 1 = bad credit)."""

    schema: Schema
    table: pa.Table
    label: np.ndarray
    synthetic: bool

    @classmethod
    def load(cls, schema: Schema, data: Path | None) -> RawData:
        """Read the table of ``schema``; see `cipherscore.client.sources.find_table`."""
        source = find_table(schema, data)
        table = pa.Table.from_batches(list(source.batches()))
        return cls(schema, table, labels(table, schema.target), source.synthetic)

    def numbers(self, name: str) -> np.ndarray:
        """Return a numeric field as float64 [rows]."""
        return numbers(column_of(self.table, name), self.schema.by_name[name])

    def texts(self, name: str) -> np.ndarray:
        """Return a categorical field as an array of texts."""
        return np.asarray(column_of(self.table, name).to_pylist(), dtype=str)


def folds(label: np.ndarray, repeats: int, count: int) -> Iterator[Fold]:
    """Yield stratified folds; repeat ``r`` is shuffled with seed ``r``."""
    for repeat in range(repeats):
        splitter = StratifiedKFold(count, shuffle=True, random_state=repeat)
        for number, (train, test) in enumerate(splitter.split(label, label)):
            yield Fold(repeat, number, train, test)


def token_datasets(raw: RawData, fold: Fold, keyset: Keyset) -> tuple[TokenDataset, TokenDataset]:
    """Return the encrypted table, bins fitted on the fold's training rows, and the same in plain.

    The plain one holds each level's own bytes where the other holds its token.
    """
    edges = {
        f.name: fit_edges(f, raw.numbers(f.name)[fold.train], raw.label[fold.train])
        for f in raw.schema.fields
        if not f.fitted
    }
    codec = RecordCodec(FieldCipher(keyset, raw.schema.with_edges(edges)))
    split = np.full(len(raw.label), TEST, np.int8)
    split[fold.train] = TRAIN
    tokens = TokenDataset(
        schema=codec.schema.public(),
        key_id=codec.key_id,
        seed=fold.repeat,
        digest=hashlib.sha256(split.tobytes()).hexdigest(),
        columns=encode_batch(raw.table, codec),
        label=raw.label,
        split=split,
    )
    columns = {
        name: TokenColumn(_levels(column.dictionary, codec.tokens[name]), column.indices)
        for name, column in tokens.columns.items()
    }
    return tokens, replace(tokens, columns=columns)


def _levels(dictionary: tuple[bytes, ...], tokens: Mapping[str, bytes]) -> tuple[bytes, ...]:
    level_of = {token: level for level, token in tokens.items()}
    return tuple(level_of[token].encode() for token in dictionary)
