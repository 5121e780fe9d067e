"""Encrypt a raw table to a token table on disk, and decrypt one.  Constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cipherscore.client.binning import fit_edges
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.grouping import keep_categories
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import RawTable
from cipherscore.client.splits import GroupNumbers, grouped_split, stratified_split
from cipherscore.client.tables import (
    category_counts,
    column_of,
    encode_batch,
    field_column,
    labels,
    numbers,
)
from cipherscore.dataset import (
    TRAIN,
    TokenColumn,
    arrow_schema,
    iterate_tokens,
    read_header,
)
from cipherscore.errors import DataError, RecordError
from cipherscore.files import atomic_path
from cipherscore.schema import Schema

FIT_ROWS = 200_000
"""Levels are fitted on at most this many training rows, evenly spaced; it bounds memory."""

Progress = Callable[[int, int], None]
"""Told the number of rows done so far, over all readings, and of all to do; 0 while unknown."""


@dataclass(frozen=True)
class Encrypted:
    """What `encrypt_table` made: the fitted schema, the key id and the number of rows."""

    schema: Schema
    key_id: str
    rows: int


def encrypt_table(
    table: RawTable,
    schema: Schema,
    keyset: Keyset,
    out: Path,
    *,
    seed: int = 0,
    labelled: bool = True,
    progress: Progress = lambda _done, _total: None,
) -> Encrypted:
    """Encrypt ``table`` to the Parquet file ``out`` (see `cipherscore.dataset`).

    With a target, rows are split by ``seed`` (those of one ``schema.group`` together), and fields
    without edges or categories get theirs fitted on the training rows.  The table is read up to
    three times then; memory stays at some batches, a few bytes a row, and the fitting sample.

    Raises:
        DataError, RecordError: The table does not fit the schema; ``out`` is left as it was.
        SchemaError: ``labelled`` is false and the schema has unfitted fields.
    """
    split, label = np.empty(0, np.int8), np.empty(0, np.int8)
    passed = total = 0
    if labelled:
        label, group = _read_labels(table, schema, lambda done: progress(done, 0))
        split = grouped_split(label, group, seed) if schema.group else stratified_split(label, seed)
        passed = len(label) * (2 - schema.fitted)
        total = passed + len(label)
        schema = _fit(table, schema, split, label, lambda done: progress(len(label) + done, total))
    codec = RecordCodec(FieldCipher(keyset, schema))
    target = arrow_schema(schema.public(), codec.key_id, seed, labelled=labelled)
    rows = 0
    with (
        atomic_path(out) as temporary,
        pq.ParquetWriter(
            temporary,
            target,
            compression="zstd",
            use_dictionary=True,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer,
    ):
        for batch, columns in _encoded(table, codec):
            arrays = [_arrow(columns[f.name]) for f in schema.fields]
            if labelled:
                window = slice(rows, rows + len(batch))
                arrays += [pa.array(label[window]), pa.array(split[window])]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=target))
            rows += len(batch)
            progress(passed + rows, total)
        if not rows:
            raise DataError(f"{table.name} has no row")
    return Encrypted(schema, codec.key_id, rows)


def decrypt_table(
    source: Path,
    schema: Schema,
    keyset: Keyset,
    out: Path,
    progress: Progress = lambda _done, _total: None,
) -> int:
    """Decrypt a token table to CSV with the level of every field; return the number of rows.

    Raises:
        DataError: ``source`` is no token table, or belongs to another schema.
        DecryptionError: A token is not authentic.
        UnknownKeyId: The keyset lacks the table's key.
    """
    public, key_id, _ = read_header(source)
    if public.digest != schema.digest:
        raise DataError(
            f"{source} was encrypted with schema {public.name!r} {public.digest[:12]}, not with "
            f"{schema.name!r} {schema.digest[:12]}; use the fitted schema written beside it"
        )
    codec = RecordCodec(FieldCipher(keyset, schema, key_id))
    names = [f.name for f in schema.fields]
    rows, total = 0, int(pq.read_metadata(source).num_rows)
    with (
        atomic_path(out, 0o600) as temporary,
        pacsv.CSVWriter(temporary, pa.schema([(name, pa.string()) for name in names])) as writer,
    ):
        for columns in iterate_tokens(source, 1 << 16):
            arrays = []
            for name in names:
                column = columns[name]
                texts = [codec.decode({name: token})[name] for token in column.dictionary]
                arrays.append(pa.array(texts, pa.string()).take(pa.array(column.indices)))
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, names))
            rows += len(arrays[0])
            progress(rows, total)
    return rows


def _encoded(
    table: RawTable, codec: RecordCodec
) -> Iterator[tuple[pa.RecordBatch, dict[str, TokenColumn]]]:
    """Yield each batch with its tokens; errors name the row in the whole table."""
    start = 0
    for batch in table.batches():
        try:
            yield batch, encode_batch(batch, codec)
        except RecordError as error:
            raise error.shifted(start) from None
        start += len(batch)


def _read_labels(
    table: RawTable, schema: Schema, progress: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels, int8 [rows], and the number of each row's group, int64 [rows] or empty."""
    parts, start = [np.empty(0, np.int8)], 0
    groups, known = [np.empty(0, np.int64)], GroupNumbers()
    for batch in table.batches():
        try:
            parts.append(labels(batch, schema.target))
        except RecordError as error:
            raise error.shifted(start) from None
        if schema.group:
            groups.append(known.of(column_of(batch, schema.group)))
        start += len(batch)
        progress(start)
    return np.concatenate(parts), np.concatenate(groups)


def _fit(
    table: RawTable,
    schema: Schema,
    split: np.ndarray,
    label: np.ndarray,
    progress: Callable[[int], None],
) -> Schema:
    """Return ``schema`` with levels fitted on the training rows, every n-th of a large table."""
    unfitted = [f for f in schema.fields if not f.fitted]
    if not unfitted:
        return schema
    step = -(-int(np.count_nonzero(split == TRAIN)) // FIT_ROWS)
    numeric = [f for f in unfitted if f.kind == "numeric"]
    grouped = [f for f in unfitted if f.kind == "categorical"]
    values: dict[str, list[np.ndarray]] = {f.name: [] for f in numeric}
    counts: dict[str, Counter[str]] = {f.name: Counter() for f in grouped}
    classes = [np.empty(0, np.int8)]
    start = passed = 0
    for batch in table.batches():
        train = np.flatnonzero(split[start : start + len(batch)] == TRAIN)
        chosen = train[-passed % step :: step]
        rows = pa.array(chosen)
        for f in numeric:
            values[f.name].append(numbers(field_column(batch, f).take(rows), f))
        for f in grouped:
            counts[f.name].update(category_counts(field_column(batch, f).take(rows), f))
        classes.append(label[start + chosen])
        start += len(batch)
        passed += len(train)
        progress(start)
    known = np.concatenate(classes)
    edges = {f.name: fit_edges(f, np.concatenate(values[f.name]), known) for f in numeric}
    categories = {f.name: keep_categories(f, counts[f.name], len(known)) for f in grouped}
    return schema.with_edges(edges).with_categories(categories)


def _arrow(column: TokenColumn) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(column.indices.astype(np.int16, copy=False)),
        pa.array(column.dictionary, pa.binary()),
    )
