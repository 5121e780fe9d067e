"""Encrypted table on disk: Parquet with dictionary columns, readable without any key.

One dictionary column of tokens per field; ``label`` (1 = bad credit, 0 = good) and ``split``
(`TRAIN`, `VALIDATION`, `TEST`) are plain, because the trainer learns from them.  The file's
metadata holds the `PublicSchema`, the key id and the split's seed under the key ``cipherscore``; of
a smoothed table with labels also ``draws``, how often each training row is written, each time with
other homophones.  Copies of a row are not marked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cipherscore.errors import DataError, SchemaError, TokenFormatError, shorten
from cipherscore.schema import PublicSchema
from cipherscore.tokens import check_key_id
from cipherscore.vocabulary import UNSEEN, Vocabulary

FORMAT = "cipherscore-tokens"
FORMAT_VERSION = 1
TRAIN, VALIDATION, TEST = 0, 1, 2
LABEL_COLUMN, SPLIT_COLUMN = "label", "split"
METADATA_KEY = b"cipherscore"
MAX_DRAWS = 1 << 16
"""Most copies of a training row."""
_DAMAGE = (pa.ArrowException, OSError, KeyError, ValueError, AttributeError)
"""What Arrow and the checks here raise over a damaged file."""


@dataclass(frozen=True)
class TokenColumn:
    """One encrypted field: distinct tokens and, per row, the position of its token (int32)."""

    dictionary: tuple[bytes, ...]
    indices: np.ndarray


@dataclass(frozen=True)
class TokenDataset:
    """An encrypted table in memory.

    ``label`` and ``split`` are int8 of shape [rows]; label is empty when the table has no target.
    ``digest`` is the SHA-256 of the file it was read from.  ``draws`` is how often each training
    row is there, with homophones drawn anew; 0 where no level has homophones.
    """

    schema: PublicSchema
    key_id: str
    seed: int
    digest: str
    columns: Mapping[str, TokenColumn]
    label: np.ndarray
    split: np.ndarray
    draws: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())).indices)

    def build_vocabulary(self, mask: np.ndarray | None = None) -> Vocabulary:
        """Build the vocabulary from the rows where ``mask`` is true (default: training rows).

        Raises:
            DataError: No row is selected.
        """
        chosen = self.split == TRAIN if mask is None else mask
        if not chosen.any():
            raise DataError("the vocabulary needs at least one training row")
        seen = {
            name: [column.dictionary[i] for i in np.unique(column.indices[chosen])]
            for name, column in self.columns.items()
        }
        return Vocabulary.build(self.key_id, seen)

    def indices(self, vocabulary: Vocabulary) -> np.ndarray:
        """Return int32 [rows, fields] column indices in vocabulary order, `UNSEEN` where unknown.

        Raises:
            DataError: The vocabulary belongs to another key, or names a field the table lacks.
        """
        if vocabulary.key_id != self.key_id:
            raise DataError(
                f"the table was encrypted under key {self.key_id}, the model's vocabulary under "
                f"{vocabulary.key_id}; re-encrypt the table or re-key the model"
            )
        matrix = np.full((self.rows, len(vocabulary.fields)), UNSEEN, np.int32)
        for position, name in enumerate(vocabulary.fields):
            if name not in self.columns:
                raise DataError(f"the encrypted table lacks field {name!r} of the vocabulary")
            column = self.columns[name]
            lookup = np.asarray(vocabulary.encode(name, column.dictionary), np.int32)
            matrix[:, position] = lookup[column.indices]
        return matrix


def file_metadata(
    schema: PublicSchema, key_id: str, seed: int, draws: int = 0
) -> dict[bytes, bytes]:
    """Return the Parquet metadata of an encrypted table; ``draws`` as of `TokenDataset`."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "schema": json.loads(schema.to_json()),
        "key_id": check_key_id(key_id),
        "seed": seed,
    }
    if draws:
        content["draws"] = draws
    return {METADATA_KEY: json.dumps(content, sort_keys=True).encode()}


def arrow_schema(
    schema: PublicSchema, key_id: str, seed: int, *, labelled: bool, draws: int = 0
) -> pa.Schema:
    """Return the Arrow schema of an encrypted table; ``draws`` as of `TokenDataset`."""
    token = pa.dictionary(pa.int16(), pa.binary())
    columns = [pa.field(f.name, token, nullable=False) for f in schema.fields]
    if labelled:
        columns.append(pa.field(LABEL_COLUMN, pa.int8(), nullable=False))
        columns.append(pa.field(SPLIT_COLUMN, pa.int8(), nullable=False))
    return pa.schema(columns, metadata=file_metadata(schema, key_id, seed, draws))


def read_header(path: Path) -> tuple[PublicSchema, str, int]:
    """Return schema, key id and split seed of an encrypted table without reading its rows.

    Raises:
        DataError: The file is no encrypted table of a known version.
    """
    return _parse_metadata(path, _open(path).schema_arrow.metadata)


def read_tokens(path: Path) -> TokenDataset:
    """Read a whole encrypted table.

    Raises:
        DataError: The file is no encrypted table, is damaged, or lacks a column.
    """
    file = _open(path)
    schema, key_id, seed = _parse_metadata(path, file.schema_arrow.metadata)
    try:
        draws = _draws(file.schema_arrow.metadata)
        table = file.read()
        columns = {f.name: _token_column(table.column(f.name)) for f in schema.fields}
        labelled = LABEL_COLUMN in table.column_names
        label = _int8(table, LABEL_COLUMN, (0, 1)) if labelled else np.empty(0, np.int8)
        known = (TRAIN, VALIDATION, TEST)
        split = _int8(table, SPLIT_COLUMN, known) if labelled else np.empty(0, np.int8)
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return TokenDataset(schema, key_id, seed, digest, columns, label, split, draws)


def iterate_tokens(
    path: Path, batch_rows: int, row_groups: Iterable[int] | None = None
) -> Iterator[dict[str, TokenColumn]]:
    """Yield the encrypted table's columns in batches of at most ``batch_rows`` rows.

    ``row_groups`` are the Parquet row groups to read, by number; without it all of them.

    Raises:
        DataError: The file is no encrypted table, is damaged, or lacks a column.
    """
    file = _open(path)
    schema, _, _ = _parse_metadata(path, file.schema_arrow.metadata)
    names = [f.name for f in schema.fields]
    groups = None if row_groups is None else list(row_groups)
    batches = file.iter_batches(batch_size=batch_rows, row_groups=groups, columns=names)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            table = pa.Table.from_batches([batch])
            columns = {name: _token_column(table.column(name)) for name in names}
        except _DAMAGE as error:
            raise _damaged(path, error) from None
        yield columns


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; make it with `cipherscore encrypt`") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({type(error).__name__})") from None


def _parse_metadata(
    path: Path, metadata: dict[bytes, bytes] | None
) -> tuple[PublicSchema, str, int]:
    try:
        content: dict[str, Any] = json.loads((metadata or {})[METADATA_KEY])
        known, version = content["format"] == FORMAT, content["version"]
        if known and version == FORMAT_VERSION:
            schema = PublicSchema.from_json(json.dumps(content["schema"]))
            return schema, check_key_id(content["key_id"]), int(content["seed"])
    except (KeyError, ValueError, TypeError, RecursionError, SchemaError, TokenFormatError):
        known = False
    if known:
        raise DataError(
            f"{path}: format version {shorten(version)} is unknown; known: {FORMAT_VERSION}"
        )
    raise DataError(f"{path}: not an encrypted table; make it with `cipherscore encrypt`")


def _draws(metadata: dict[bytes, bytes]) -> int:
    """Return the copies of training rows, 0 where the file says nothing of them.

    Raises:
        ValueError: It is no whole number, or outside its range.
    """
    draws = json.loads(metadata[METADATA_KEY]).get("draws", 0)
    if type(draws) is not int or not 0 <= draws <= MAX_DRAWS:
        raise ValueError("draws")
    return draws


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: the encrypted table is damaged ({type(error).__name__}); make it again with "
        "`cipherscore encrypt`"
    )


def _token_column(chunked: pa.ChunkedArray) -> TokenColumn:
    """Return one column whose dictionary holds each token once.

    Raises:
        ValueError: It is no dictionary column of bytes, has an absent token, or an index leads
            outside its dictionary.
    """
    kind = chunked.type
    if not pa.types.is_dictionary(kind) or not pa.types.is_binary(kind.value_type):
        raise ValueError("no dictionary of tokens")
    chunked.validate(full=True)
    array = chunked.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # zero chunks
        return TokenColumn((), np.empty(0, np.int32))
    if array.null_count or array.dictionary.null_count:
        raise ValueError("absent token")
    indices = array.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return TokenColumn(tuple(array.dictionary.to_pylist()), indices)


def _int8(table: pa.Table, name: str, allowed: tuple[int, ...]) -> np.ndarray:
    """Return a column of small whole numbers.

    Raises:
        ValueError: A value is absent or not ``allowed``.
    """
    column = table.column(name)
    if column.null_count or not pa.types.is_integer(column.type):
        raise ValueError("absent or no whole number")
    values = np.asarray(column.to_numpy())
    if not np.isin(values, allowed).all():
        raise ValueError("unknown value")
    return values.astype(np.int8)
