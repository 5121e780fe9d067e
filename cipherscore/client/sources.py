"""Raw tables on the owner's side: where they come from and how they are read in batches."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cipherscore.client.dialect import (
    column_names,
    first_row,
    plain_name,
    read_texts,
    sniff_delimiter,
)
from cipherscore.errors import ConfigurationError, DataError, shorten
from cipherscore.files import atomic_path
from cipherscore.schema import Schema
from cipherscore.schema_file import BUILT_IN_FOLDER

DATA_VARIABLE = "CIPHERSCORE_DATA"
DOWNLOAD_TIMEOUT = 10.0
"""Seconds to wait for the server of a data set, per connection or read."""
MAX_DOWNLOAD = 1 << 30
PARQUET_ROWS = 1 << 17
PARQUET_ENDINGS = (".parquet", ".pq")

Origin = Literal["file", "folder", "cache", "download", "sample"]


@dataclass(frozen=True)
class RawTable:
    """A table that can be read in batches, more than once.

    ``origin`` says where it was found; ``sample`` is synthetic data that only shows the machinery.
    """

    name: str
    origin: Origin
    batches: Callable[[], Iterator[pa.RecordBatch]]

    @property
    def synthetic(self) -> bool:
        """Whether the rows are made up."""
        return self.origin == "sample"


def find_table(
    schema: Schema, data: Path | None = None, report: Callable[[str], None] = lambda _: None
) -> RawTable:
    """Find the raw table of ``schema``.

    In this order: ``data`` (a file, or a folder laid out as ``source.path`` says), the folder in
    CIPHERSCORE_DATA, the user's cache, a download checked against ``source.sha256``, the embedded
    synthetic sample.  ``report`` is told why a step was passed over.

    Raises:
        ConfigurationError: A path was given and is not there, or nothing was found.
        DataError: A file does not match the checksum of the schema.
    """
    source = schema.source
    given = data or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if given is not None:
        path = given / source.path if given.is_dir() and source.path else given
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file; give the table's file or its folder")
        return _file(path, schema, "folder" if given.is_dir() else "file")
    if source.url:
        found = _cached_or_downloaded(schema, report)
        if found is not None:
            return found
    if source.sample:
        sample = Path(str(BUILT_IN_FOLDER / source.sample))
        return RawTable(
            sample.name, "sample", lambda: read_csv(sample, ",", header=True, schema=schema)
        )
    raise ConfigurationError(
        f"schema {schema.name!r} names no source; give its table with --data or {DATA_VARIABLE}"
    )


def read_csv(
    path: Path, delimiter: str, *, header: bool, schema: Schema
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a delimited text file, all columns as text, in constant memory.

    Names in a header are taken as `cipherscore.client.dialect.column_names` says.  A file without
    a header has the columns that the schema's source names, else the schema's fields in order, the
    target last.  ``.gz``, ``.bz2`` and ``.xz`` are decompressed on the way.  Numbers written with a
    comma get a point where the schema's source says so.

    Raises:
        DataError: The file cannot be read, or a row has another number of columns.
    """
    encoding = schema.source.encoding
    try:
        first = first_row(path, delimiter, encoding)
        names = _names(first, schema, path)
        if not header and not set(schema.raw_names) <= {*names, schema.target.name}:
            names, first = _without_header(schema, len(first)), []
        rows = read_texts(path, delimiter, names, first=first or None, encoding=encoding)
        for batch in rows:
            yield _with_points(batch, schema) if schema.source.decimal == "," else batch
    except (pa.ArrowException, OSError, UnicodeError) as error:
        # Arrow's own text may quote a line of raw data; the kind of failure is enough.
        raise DataError(
            f"{path}: cannot be read as text columns split by {delimiter!r} "
            f"({type(error).__name__}); check the delimiter, the header, that each row has the "
            f"same number of columns, and that it is {encoding.upper()}"
        ) from None


def read_parquet(path: Path, schema: Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a Parquet file.

    Raises:
        DataError: It is none, or is damaged, or has a column of the schema twice.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = _names(file.schema_arrow.names, schema, path)
            for batch in file.iter_batches(PARQUET_ROWS):
                yield batch.rename_columns(names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({type(error).__name__})") from None


def _without_header(schema: Schema, cells: int) -> list[str]:
    """Return the names of a headerless file's columns; a file to be scored may lack the target."""
    names = list(schema.source.columns or schema.raw_names)
    if cells == len(names) - 1:
        names = [name for name in names if name != schema.target.name]
    return names


def _names(header: Sequence[str], schema: Schema, path: Path) -> list[str]:
    """Return the columns' names.

    Raises:
        DataError: A column that is read occurs twice, and the schema was made of a table where it
            does not.
    """
    names = column_names(header)
    stripped = [plain_name(raw) for raw in header]
    known = {*schema.raw_names, *schema.dropped}
    for name, raw in zip(names, stripped, strict=True):
        if name != raw and raw in known and name not in known:
            raise DataError(
                f"{path}: the table has column {shorten(raw)} twice; rename or drop one"
            )
    return names


def _with_points(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """Return a batch whose numeric columns spell 0,5 as 0.5; dates and categories stay."""
    numeric = {f.source for f in schema.inputs if f.kind == "numeric" and not f.part}
    numeric |= {schema.target.name} if schema.target.numeric else set()
    columns = [
        pc.replace_substring(column, ",", ".") if name in numeric else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def with_field_names(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """Return ``batch`` with a column more for each field that reads a column of another name."""
    names, columns = list(batch.schema.names), list(batch.columns)
    for f in schema.inputs:
        if f.name not in names and f.source in batch.schema.names:
            names.append(f.name)
            columns.append(batch.column(f.source))
    return pa.RecordBatch.from_arrays(columns, names)


def from_arrow(table: pa.Table, name: str = "table") -> RawTable:
    """Wrap an Arrow table."""
    return RawTable(name, "file", lambda: iter(table.to_batches(max_chunksize=1 << 20)))


def _file(path: Path, schema: Schema, origin: Origin) -> RawTable:
    """Read Parquet by its ending, the schema's own source in its dialect, others by their content.

    A schema that names no file says whether its tables have a header; for others a text file of
    another name must have one.
    """

    def named(batches: Callable[[], Iterator[pa.RecordBatch]]) -> RawTable:
        return RawTable(
            path.name, origin, lambda: (with_field_names(batch, schema) for batch in batches())
        )

    if path.suffix.lower() in PARQUET_ENDINGS:
        return named(lambda: read_parquet(path, schema))
    source = schema.source
    if source.path and path.name == Path(source.path).name:
        if origin == "folder" and source.sha256:
            check_sha256(path, source.sha256)
        delimiter, header = source.delimiter, source.header
    else:
        delimiter, header = sniff_delimiter(path), bool(source.path) or source.header
    return named(lambda: read_csv(path, delimiter, header=header, schema=schema))


def check_sha256(path: Path, expected: str) -> None:
    """Check a file against its published digest.

    Raises:
        DataError: It differs.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path.name}: sha256 is {digest.hexdigest()}, the schema asks for {expected}; it is "
            "not the published file. Give a table of your own directly with --data FILE"
        )


def _cached_or_downloaded(schema: Schema, report: Callable[[str], None]) -> RawTable | None:
    source = schema.source
    cached = Path(platformdirs.user_cache_dir("cipherscore")) / (source.path or schema.name)
    try:
        if cached.is_file():
            check_sha256(cached, source.sha256)
            return _file(cached, schema, "cache")
    except (OSError, DataError) as error:
        report(f"the cached table is not used: {error}")
    try:
        report(f"downloading {source.url}")
        with atomic_path(cached) as temporary:
            _download(source.url, temporary)
            check_sha256(temporary, source.sha256)
    except (OSError, ValueError, http.client.HTTPException, DataError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        report(f"no download: {reason}")
        return None
    return _file(cached, schema, "download")


def _download(url: str, target: Path) -> None:
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url}: only http and https addresses are downloaded")
    with (
        urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response,  # noqa: S310 - checked
        target.open("wb") as stream,
    ):
        received = 0
        while block := response.read(1 << 20):
            received += len(block)
            if received > MAX_DOWNLOAD:
                raise DataError(f"{url}: more than {MAX_DOWNLOAD} bytes")
            stream.write(block)


def read_records(table: RawTable, schema: Schema, rows: list[int]) -> list[dict[str, object]]:
    """Return some rows as raw records by raw column, numbers as numbers, in the order asked for.

    Raises:
        DataError: The table has fewer rows.
    """
    wanted, start = dict.fromkeys(rows), 0
    found: dict[int, dict[str, object]] = {}
    names = [name for name in schema.raw_names if name != schema.group]
    numeric = {f.source for f in schema.inputs if f.kind == "numeric" and not f.part}
    for batch in table.batches():
        for row in wanted:
            if start <= row < start + len(batch):
                raw = batch.slice(row - start, 1).to_pylist()[0]
                found[row] = {
                    name: _number_in(raw[name]) if name in numeric else raw[name]
                    for name in names
                    if name in raw
                }
        start += len(batch)
    if len(found) < len(wanted):
        raise DataError(f"{table.name} has {start} rows, not {max(rows) + 1}")
    return [found[row] for row in rows]


def _number_in(value: object) -> object:
    """Return a text as a number where it is one."""
    try:
        number = float(str(value))
    except ValueError:
        return value
    return int(number) if number.is_integer() else number
