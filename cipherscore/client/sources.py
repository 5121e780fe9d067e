"""Raw tables on the owner's side: where they come from and how they are read in batches."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cipherscore.errors import ConfigurationError, DataError
from cipherscore.files import atomic_path
from cipherscore.schema import Schema
from cipherscore.schema_file import BUILT_IN_FOLDER

DATA_VARIABLE = "CIPHERSCORE_DATA"
DOWNLOAD_TIMEOUT = 10.0
"""Seconds to wait for the server of a data set, per connection or read."""
MAX_DOWNLOAD = 1 << 30
BLOCK_BYTES = 4 << 20
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

    Blanks around the names in a header do not count.  A file without a header has the schema's
    fields in order, the target last.  ``.gz`` and ``.bz2`` are decompressed on the way.

    Raises:
        DataError: The file cannot be read, or a row has another number of columns.
    """
    names = [*schema.by_name, schema.target.name]
    parse = pacsv.ParseOptions(delimiter=delimiter)
    try:
        if header:
            names = pacsv.open_csv(path, parse_options=parse).schema.names
        reader = pacsv.open_csv(
            path,
            read_options=pacsv.ReadOptions(
                column_names=None if header else names, block_size=BLOCK_BYTES
            ),
            parse_options=parse,
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
        stripped = [name.strip() for name in names]
        for batch in reader:
            yield batch.rename_columns(stripped)
    except (pa.ArrowException, OSError) as error:
        # Arrow's own text may quote a line of raw data; the kind of failure is enough.
        raise DataError(
            f"{path}: cannot be read as text columns split by {delimiter!r} "
            f"({type(error).__name__}); check the delimiter, the header, that each row has the "
            "same number of columns, and that it is UTF-8"
        ) from None


def read_parquet(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a Parquet file.

    Raises:
        DataError: It is none, or is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(PARQUET_ROWS)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({type(error).__name__})") from None


def from_arrow(table: pa.Table, name: str = "table") -> RawTable:
    """Wrap an Arrow table."""
    return RawTable(name, "file", lambda: iter(table.to_batches(max_chunksize=1 << 20)))


def _file(path: Path, schema: Schema, origin: Origin) -> RawTable:
    """Read Parquet by its ending, the schema's own source in its dialect, others by line one.

    The first line of another text file must name the columns.
    """
    if path.suffix.lower() in PARQUET_ENDINGS:
        return RawTable(path.name, origin, lambda: read_parquet(path))
    source = schema.source
    if source.path and path.name == Path(source.path).name:
        if origin == "folder" and source.sha256:
            check_sha256(path, source.sha256)
        delimiter, header = source.delimiter, source.header
    else:
        delimiter, header = sniff_delimiter(path), True
    return RawTable(
        path.name, origin, lambda: read_csv(path, delimiter, header=header, schema=schema)
    )


def sniff_delimiter(path: Path) -> str:
    """Return the delimiter of a text table: the one of ``, ; TAB |`` most frequent in line one.

    Raises:
        DataError: The file cannot be read, or its first line has none of them.
    """
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            line = stream.read(1 << 16).split(b"\n", 1)[0]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__})") from None
    best = max(b",;\t|", key=line.count)
    if not line.count(best):
        raise DataError(f"{path}: the first line has no comma, semicolon, tab or bar")
    return chr(best)


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
    """Return some rows as raw records, numbers as numbers, in the order asked for.

    Raises:
        DataError: The table has fewer rows.
    """
    wanted, start = dict.fromkeys(rows), 0
    found: dict[int, dict[str, object]] = {}
    names = [*schema.by_name, schema.target.name]
    for batch in table.batches():
        for row in wanted:
            if start <= row < start + len(batch):
                raw = batch.slice(row - start, 1).to_pylist()[0]
                found[row] = {
                    name: _typed(raw[name], schema, name) for name in names if name in raw
                }
        start += len(batch)
    if len(found) < len(wanted):
        raise DataError(f"{table.name} has {start} rows, not {max(rows) + 1}")
    return [found[row] for row in rows]


def _typed(value: object, schema: Schema, name: str) -> object:
    """Return the text of a numeric field as a number where it is one."""
    if name not in schema.by_name or schema.by_name[name].kind == "categorical":
        return value
    try:
        number = float(str(value))
    except ValueError:
        return value
    return int(number) if number.is_integer() else number
