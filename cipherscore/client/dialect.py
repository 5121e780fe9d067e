"""How a text table is written: compression, encoding, delimiter, and the names of its columns."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from cipherscore.errors import DataError

BLOCK_BYTES = 4 << 20
SNIFFED_LINES = 20
"""Lines looked at to find the delimiter."""
DELIMITERS = ("\t", ";", "|", ",")
"""Tried in this order: commas also occur inside of numbers and texts, the others seldom do."""
_SNIFFED_BYTES = 1 << 18
_QUOTED = re.compile(rb'"[^"]*"')
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_bytes(path: Path) -> Iterator[Any]:
    """Yield a binary stream of the file's content; gz, bz2 and xz are decompressed on the way.

    Raises:
        OSError: The file cannot be opened.
    """
    if path.suffix.lower() == ".xz":
        import lzma  # noqa: PLC0415 - some Pythons are built without it

        with lzma.open(path) as stream:
            yield _Patient(stream)
    else:
        with pa.input_stream(str(path), compression="detect") as stream:
            yield stream


class _Patient(io.RawIOBase):
    """A stream that is not closed by its reader, and whose damage is an OSError."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        import lzma  # noqa: PLC0415

        try:
            return self._stream.read(-1 if size is None else size)
        except (lzma.LZMAError, EOFError) as error:
            raise OSError(f"damaged xz file ({type(error).__name__})") from None


def sniff_delimiter(path: Path) -> str:
    """Return the delimiter of a text table, one of comma, semicolon, TAB and bar.

    It is the first of `DELIMITERS` that occurs equally often in each of the first lines, else the
    most frequent one of line one; what stands in quotes does not count.

    Raises:
        DataError: The file cannot be read, or its first line has none of them.
    """
    head, whole = _head(path)
    if head.startswith(_UTF16):
        raise DataError(f"{path}: is UTF-16 text; save it as UTF-8")
    lines = [line for line in _QUOTED.sub(b"", head).split(b"\n") if line.strip()]
    lines = lines[
        : SNIFFED_LINES if whole or len(lines) < 2 else min(SNIFFED_LINES, len(lines) - 1)
    ]
    counts = {d: [line.count(d.encode()) for line in lines] for d in DELIMITERS}
    if not lines or not any(found[0] for found in counts.values()):
        raise DataError(f"{path}: the first line has no comma, semicolon, tab or bar")
    steady = [d for d, found in counts.items() if found[0] and len(set(found)) == 1]
    return steady[0] if steady else max(DELIMITERS, key=lambda d: counts[d][0])


def is_utf8(path: Path) -> bool:
    """Return whether the whole file is UTF-8.

    Raises:
        OSError: It cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_bytes(path) as stream:
            while block := stream.read(BLOCK_BYTES):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def column_names(header: Sequence[str]) -> list[str]:
    """Return the names by which columns are known: without blanks and quotes around, each once.

    The n-th column is ``#n`` if it has no name; a repeated name gets ``#n`` behind it.
    """
    names: list[str] = []
    stripped = [plain_name(raw) for raw in header]
    taken = set(stripped)
    for position, name in enumerate(stripped, 1):
        unique = name
        if not name or name in names:
            unique = f"{name}#{position}"
            while unique in taken or unique in names:
                unique += "#"
        names.append(unique)
    return names


def plain_name(raw: str) -> str:
    """Return a header's cell without blanks around it, nor the quotes that a blank kept there."""
    name = raw.strip()
    quoted = len(name) > 1 and name[0] == name[-1] == '"'
    return name[1:-1].strip() if quoted else name


def numbered(columns: int) -> list[str]:
    """Return the names of a file's columns without a header: c1, c2, ..."""
    return [f"c{position}" for position in range(1, columns + 1)]


def first_row(path: Path, delimiter: str, encoding: str) -> list[str]:
    """Return the cells of the first line, as a header or as data.

    Raises:
        OSError, pyarrow.ArrowException: It cannot be read.
    """
    with open_bytes(path) as stream:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(encoding=_arrow(encoding), block_size=BLOCK_BYTES),
            parse_options=parse_options(delimiter),
        )
        return list(reader.schema.names)


def read_texts(
    path: Path, delimiter: str, names: Sequence[str], *, first: Sequence[str] | None, encoding: str
) -> Iterator[pa.RecordBatch]:
    """Yield a text table's rows in batches, all columns as text under ``names``.

    ``first`` holds the cells of line one (`first_row`) if that is a header, which is passed over.

    Raises:
        OSError, pyarrow.ArrowException: It cannot be read, or rows differ in length.
    """
    with open_bytes(path) as stream:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(
                column_names=list(names) if first is None else None,
                block_size=BLOCK_BYTES,
                encoding=_arrow(encoding),
            ),
            parse_options=parse_options(delimiter),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names if first is None else first, pa.string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
        for batch in reader:
            yield batch.rename_columns(list(names))


def parse_options(delimiter: str) -> pacsv.ParseOptions:
    """Return Arrow's options; a quoted text may hold line ends."""
    return pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


def _head(path: Path) -> tuple[bytes, bool]:
    """Return the file's first bytes, and whether they are all of it.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with open_bytes(path) as stream:
            head = bytes(stream.read(_SNIFFED_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__})") from None
    return head, len(head) < _SNIFFED_BYTES


def _arrow(encoding: str) -> str:
    """Return Arrow's name of an encoding; only ``utf8`` is read without a detour."""
    return "utf8" if encoding == "utf-8" else encoding
