"""Input tensors of a classifier as tables: tokens as BYTES, vocabulary indices as integers.

Both are [rows, fields], row-major, columns in the model's field order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cipherscore.errors import InvalidRequest, MalformedToken, TokenFormatError, UnknownToken
from cipherscore.tokens import from_text
from cipherscore.vocabulary import UNSEEN, Vocabulary
from serving.oip.layout import PREFIX, cells, layout_of
from serving.tables import Payload, refusal

TOKENS, INDICES = "tokens", "indices"
INTEGERS: dict[str, np.dtype[Any]] = {"INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}
"""Datatypes that indices may have."""


class BytesTable:
    """Tokens as a raw BYTES tensor; it is read in place.

    Args:
        content: The tensor: each token after its length in four little-endian bytes.
        rows: First part of its shape, not negative.
        width: Second part of its shape, not negative.

    Raises:
        InvalidRequest: The shape asks for more than ``content`` can hold.
    """

    __slots__ = ("_content", "_width", "rows")

    def __init__(self, content: bytes, rows: int, width: int) -> None:
        if rows * width * PREFIX.size > len(content):
            raise _wrong_size(TOKENS, rows, width)
        self.rows = rows
        self._width = width
        self._content = content

    def indices(self, vocabulary: Vocabulary) -> Payload:
        """See `serving.tables.Table`."""
        check_width(TOKENS, self._width, vocabulary)
        found = layout_of(vocabulary).indices(self._content, self.rows)
        return self._carefully(vocabulary) if found is None else found

    def _carefully(self, vocabulary: Vocabulary) -> Payload:
        """Return what `indices` does, cell by cell, so that a fault is found where it is."""
        translated = _translate(cells(self._content), vocabulary, self.rows * self._width)
        return translated.reshape(self.rows, self._width)


class CellTable:
    """Tokens as separate elements: bytes in protobuf's typed contents, texts in JSON.

    Args:
        elements: All of them, row-major.
        rows: First part of the tensor's shape, not negative.
        width: Second part of the tensor's shape, not negative.

    Raises:
        InvalidRequest: The shape asks for another number of elements.
    """

    __slots__ = ("_elements", "_width", "rows")

    def __init__(self, elements: Sequence[bytes | str], rows: int, width: int) -> None:
        if rows * width != len(elements):
            raise _wrong_size(TOKENS, rows, width)
        self.rows = rows
        self._width = width
        self._elements = elements

    def indices(self, vocabulary: Vocabulary) -> Payload:
        """See `serving.tables.Table`."""
        check_width(TOKENS, self._width, vocabulary)
        translated = _translate(self._elements, vocabulary, self.rows * self._width)
        return translated.reshape(self.rows, self._width)


class IndexTable:
    """Vocabulary indices; int32 ones are passed on as they are.

    Args:
        content: The raw tensor, little-endian.
        datatype: One of `INTEGERS`.
        rows: First part of its shape, not negative.
        width: Second part of its shape, not negative.
        meant: Vocabulary whose indices they are.

    Raises:
        InvalidRequest: Another datatype, or the shape does not fit ``content``.
    """

    __slots__ = ("_content", "_kind", "_meant", "_width", "rows")

    def __init__(
        self, content: bytes, datatype: str, rows: int, width: int, meant: Vocabulary
    ) -> None:
        kind = INTEGERS.get(datatype)
        if kind is None:
            raise InvalidRequest(f"{INDICES!r} is INT32 or INT64", field=INDICES)
        if rows * width * kind.itemsize != len(content):
            raise _wrong_size(INDICES, rows, width)
        self.rows = rows
        self._width = width
        self._kind = kind
        self._meant = meant
        self._content = content

    def indices(self, vocabulary: Vocabulary) -> Payload:
        """See `serving.tables.Table`."""
        check_width(INDICES, self._width, vocabulary)
        # A shadow version has a vocabulary of its own, to which the same indices mean other tokens.
        if vocabulary is not self._meant and vocabulary.digest != self._meant.digest:
            raise InvalidRequest("the indices are those of another version", field=INDICES)
        layout = layout_of(vocabulary)
        if self.rows == 1 and self._kind.itemsize == 4 and layout.within(self._content):
            return self._content
        found: np.ndarray = np.frombuffer(self._content, dtype=self._kind)
        found = found.reshape(self.rows, self._width)
        wrong = (found < 0) | (found >= layout.sizes)
        if wrong.any():
            row_number, position = map(int, np.argwhere(wrong)[0])
            raise _wrong_index(
                vocabulary, row_number, position, bool(found[row_number, position] == UNSEEN)
            )
        return found.astype(np.int32, copy=False)


def check_width(name: str, width: int, vocabulary: Vocabulary) -> None:
    """Refuse a tensor whose rows have another number of columns than the model has fields.

    Raises:
        InvalidRequest: That.
    """
    fields = len(vocabulary.tokens)
    if width != fields:
        raise InvalidRequest(
            f"{name!r} has rows of {width}; the model has {fields} fields", field=name
        )


def check_shape(name: str, shape: Sequence[int], dimensions: int) -> None:
    """Refuse a shape of another number of dimensions, or with a negative one.

    Raises:
        InvalidRequest: That.
    """
    if len(shape) != dimensions or min(shape, default=0) < 0:
        raise InvalidRequest(
            f"{name!r} needs a shape of {dimensions} dimensions, none negative", field=name
        )


def integers(name: str, elements: Sequence[object], kind: np.dtype[Any] | None) -> bytes:
    """Return elements that came one by one as a raw tensor.

    Raises:
        InvalidRequest: One is no integer or outside what ``kind`` holds, or there is no kind.
    """
    if kind is None or not all(type(element) is int for element in elements):
        raise InvalidRequest(f"{name!r} holds integers: INT32 or INT64", field=name)
    try:
        return np.array(elements, dtype=kind).tobytes()
    except OverflowError as error:
        raise InvalidRequest(f"{name!r} holds too large a number", field=name) from error


def _translate(
    elements: Iterable[bytes | str | None], vocabulary: Vocabulary, count: int
) -> np.ndarray:
    """Return the vocabulary indices, int32 [count], of ``count`` elements, row-major.

    Raises:
        RequestError: An element is refused, or their number is another one.
    """
    known = layout_of(vocabulary).known
    found = np.empty(count, dtype=np.int32)
    columns = itertools.cycle(known.items())
    position = 0
    for element, (field, column) in zip(elements, columns, strict=False):
        if position == count or element is None:
            break
        index = column.get(element)
        if index is None:
            index = _look_up(element, vocabulary, field, position // len(known))
        found[position] = index
        position += 1
    else:
        if position == count:
            return found
    raise InvalidRequest(
        f"{TOKENS!r} does not hold {count} elements, each after its length in four bytes",
        field=TOKENS,
        row=position // len(known),
    )


def _look_up(element: bytes | str, vocabulary: Vocabulary, field: str, row: int) -> int:
    """Return the index of a token that is not written as usual, which only padded text may be.

    Raises:
        RequestError: The token is refused.
    """
    token = element
    if isinstance(token, str):
        try:
            token = from_text(token)
        except TokenFormatError as error:
            raise MalformedToken(str(error), field=field, row=row) from error
    index = vocabulary.index[field].get(token)
    if index is None:
        raise refusal(vocabulary, field, token, row)
    return index


def _wrong_size(name: str, rows: int, width: int) -> InvalidRequest:
    return InvalidRequest(
        f"{name!r} does not hold what its shape [{rows}, {width}] says", field=name
    )


def _wrong_index(
    vocabulary: Vocabulary, row: int, position: int, unseen: bool
) -> UnknownToken | InvalidRequest:
    field = vocabulary.fields[position]
    if unseen:
        return UnknownToken(
            f"field {field!r} holds {UNSEEN}, a token the model never saw in training",
            field=field,
            row=row,
        )
    return InvalidRequest(
        f"field {field!r} holds an index outside 0 to {vocabulary.sizes[position] - 1}",
        field=field,
        row=row,
    )
