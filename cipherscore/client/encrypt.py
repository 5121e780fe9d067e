"""Encrypt a raw table to a token table on disk, and decrypt one.  Constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cipherscore.client.encryption import FieldCipher
from cipherscore.client.fitting import fit, readings, unsmoothed, without_unused
from cipherscore.client.keys import Keyset
from cipherscore.client.nonces import Copies
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import RawTable
from cipherscore.client.splits import GroupNumbers, grouped_split, stratified_split
from cipherscore.client.tables import column_of, encode_batch, labels
from cipherscore.dataset import (
    MAX_DRAWS,
    TRAIN,
    TokenColumn,
    arrow_schema,
    iterate_tokens,
    read_header,
)
from cipherscore.errors import ConfigurationError, DataError, RecordError
from cipherscore.files import atomic_path
from cipherscore.schema import Schema

BLOCK_ROWS = 1 << 20
"""Copies of rows are shuffled among about this many; it bounds memory."""

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
    draws: int = 1,
    shuffle: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Encrypted:
    """Encrypt ``table`` to the Parquet file ``out`` (see `cipherscore.dataset`).

    With a target, rows are split by ``seed`` (those of one ``schema.group`` together), and fields
    without edges, categories or homophones get theirs fitted on the training rows.  The table is
    read up to four times then; memory stays at some batches, a few bytes a row, and the fitting
    sample.

    Homophones are drawn by ``seed``, those of a table without target at random.  In the schema that
    is returned homophones that no training row got have weight 0, because the host refuses them.

    Args:
        table: Raw rows.
        schema: What they hold.
        keyset: The owner's keys.
        out: Parquet file to write.
        seed: Of the split and of the homophones: same seed, same file.
        labelled: Whether the table has the target.
        draws: How often each training row is written, each time with homophones drawn anew.
        shuffle: Write rows in another order, which nobody without the key can undo: each row goes
            anywhere among the `BLOCK_ROWS` around it.  With two draws or more it is always done.
        progress: Told rows done and to do.

    Raises:
        ConfigurationError: More than one draw, but no target or nothing to draw; or a table
            without target is to be shuffled.
        DataError, RecordError: The table does not fit the schema; ``out`` is left as it was.
        SchemaError: ``labelled`` is false and the schema has unfitted fields, or there are too many
            homophones.
    """
    _check_draws(draws, schema, labelled=labelled)
    if shuffle and not labelled:
        raise ConfigurationError(
            "a table without target is for scoring, and its scores come in its order: shuffle the "
            "raw rows and keep their order, or leave shuffle out"
        )
    split, label = np.empty(0, np.int8), np.empty(0, np.int8)
    passed = total = 0
    if labelled:
        label, group = _read_labels(table, schema, lambda done: progress(done, 0))
        split = grouped_split(label, group, seed) if schema.group else stratified_split(label, seed)
        passed = len(label) * (1 + readings(schema))
        total = passed + len(label)
        schema = fit(
            table, schema, split, label, keyset, lambda done: progress(len(label) + done, total)
        )
        _check_draws(draws, schema, labelled=True)  # no level may be frequent enough
    cipher = FieldCipher(keyset, schema)
    codec = RecordCodec(cipher)
    copies = None
    if labelled and (schema.smoothed or shuffle):
        copies = Copies(cipher, split, seed, draws, shuffle=shuffle)
    said = draws if labelled and schema.smoothed else 0
    target = arrow_schema(schema.public(), codec.key_id, seed, labelled=labelled, draws=said)
    used: dict[str, set[bytes]] = {f.name: set() for f in schema.fields if copies and f.smoothed}
    written = 0
    with atomic_path(out) as temporary, _writer(temporary, target) as writer:
        for rows, columns in _encoded(table, codec, copies):
            arrays = [_arrow(columns[f.name]) for f in schema.fields]
            if labelled:
                arrays += [pa.array(label[rows]), pa.array(split[rows])]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=target))
            for name, tokens in used.items():
                taught = columns[name].indices[split[rows] == TRAIN]
                seen = np.flatnonzero(np.bincount(taught))
                tokens.update(columns[name].dictionary[at] for at in seen)
            written += len(rows)
            progress(passed + int(rows.max()) + 1, total)
        if not written:
            raise DataError(f"{table.name} has no row")
    return Encrypted(without_unused(schema, codec, used), codec.key_id, written)


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


def _check_draws(draws: int, schema: Schema, *, labelled: bool) -> None:
    if not 1 <= draws <= MAX_DRAWS:
        raise ConfigurationError(f"draws must be 1 to {MAX_DRAWS}, not {draws}")
    if draws > 1 and not labelled:
        raise ConfigurationError("draws are copies of training rows; a table without target has 1")
    if draws > 1 and not schema.smoothed and not unsmoothed(schema):
        raise ConfigurationError(
            f"schema {schema.name!r} has no field with smoothing that gives a level several "
            f"tokens, so that {draws} draws would be equal copies; add [smoothing] with a smaller "
            "most_share to the schema, or take one draw"
        )


def _writer(path: Path, target: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        target,
        compression="zstd",
        use_dictionary=True,
        write_statistics=False,
        write_page_checksum=True,
    )


def _encoded(
    table: RawTable, codec: RecordCodec, copies: Copies | None
) -> Iterator[tuple[np.ndarray, dict[str, TokenColumn]]]:
    """Yield blocks of encrypted rows: the number of each in the table, int64 [rows], its tokens.

    Errors name the row in the whole table.
    """
    start = 0
    for batch in _blocks(table, copies):
        numbers, rows, nonces = np.arange(start, start + batch.num_rows), None, None
        if copies is not None:
            numbers, nonces = copies.of(numbers)
            rows = numbers - start
        try:
            encoded = encode_batch(batch, codec, nonces, rows)
        except RecordError as error:
            raise error.shifted(start) from None
        if len(numbers):
            yield numbers, encoded
        start += batch.num_rows


def _blocks(table: RawTable, copies: Copies | None) -> Iterator[pa.RecordBatch | pa.Table]:
    """Yield the table's batches; to be shuffled, cut or joined to about `BLOCK_ROWS` rows."""
    if copies is None or not copies.shuffled:
        yield from table.batches()
        return
    most = max(1, BLOCK_ROWS // copies.draws)
    waiting: list[pa.RecordBatch] = []
    for whole in table.batches():
        for start in range(0, len(whole), most):
            batch = whole.slice(start, most)
            if sum(map(len, waiting)) + len(batch) > most:
                yield pa.Table.from_batches(waiting)
                waiting = []
            waiting.append(batch)
    if waiting:
        yield pa.Table.from_batches(waiting)


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


def _arrow(column: TokenColumn) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(column.indices.astype(np.int16, copy=False)),
        pa.array(column.dictionary, pa.binary()),
    )
