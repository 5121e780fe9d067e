"""Tensors of tokens and indices: every way in gives the same indices or the right refusal."""

from __future__ import annotations

import gc
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import InvalidRequest, MalformedToken, RequestError, UnknownToken, WrongKey
from cipherscore.tokens import to_text
from cipherscore.vocabulary import Vocabulary
from serving.oip import layout as layouts
from serving.oip.layout import Layout, cells, layout_of
from serving.oip.tensors import BytesTable, CellTable, IndexTable
from tests.support.models import KEY_ID, OTHER_KEY_ID, SIZES, token, vocabulary
from tests.support.oip import FIELDS, cells_of, random_indices, raw_bytes

VOCABULARY = vocabulary()
NAMES = list(SIZES)

rows_of_indices = st.integers(1, 70).flatmap(
    lambda rows: st.builds(random_indices, st.just(rows), st.integers(0, 1 << 30))
)


def array(payload: bytes | np.ndarray) -> np.ndarray:
    found = payload if isinstance(payload, np.ndarray) else np.frombuffer(payload, "<i4")
    assert found.dtype == np.int32
    return found.reshape(-1, FIELDS)


def bytes_table(elements: list[bytes], rows: int) -> BytesTable:
    return BytesTable(raw_bytes(elements), rows, FIELDS)


@given(rows_of_indices)
def test_all_ways_in_give_the_same_indices(indices: np.ndarray) -> None:
    tokens = cells_of(indices)
    rows = len(indices)
    tables = [
        bytes_table(tokens, rows),
        CellTable(tokens, rows, FIELDS),
        CellTable([to_text(cell) for cell in tokens], rows, FIELDS),
        CellTable([to_text(cell) + "=" for cell in tokens], rows, FIELDS),
        IndexTable(indices.astype("<i4").tobytes(), "INT32", rows, FIELDS, VOCABULARY),
        IndexTable(indices.astype("<i8").tobytes(), "INT64", rows, FIELDS, VOCABULARY),
    ]
    for table in tables:
        assert table.rows == rows
        assert np.array_equal(array(table.indices(VOCABULARY)), indices)


def test_large_tables_cross_the_blocks_of_the_decoder() -> None:
    rows = 2 * layouts._BLOCK_ROWS + 1
    indices = random_indices(rows)
    content = layout_of(VOCABULARY).tensor(indices)
    assert content == raw_bytes(cells_of(indices))
    found = layout_of(VOCABULARY).indices(content, rows)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, indices)


@pytest.mark.parametrize("rows", [1, 2, 24, 25, 600])
@pytest.mark.parametrize("field", NAMES)
def test_one_wrong_token_is_found_where_it_is(rows: int, field: str) -> None:
    row = rows - 1
    position = row * FIELDS + NAMES.index(field)
    known = token(field, 0)
    wrong: list[tuple[bytes, type[RequestError]]] = [
        (token(field, 9999), UnknownToken),
        (token(NAMES[NAMES.index(field) - 1], 1), UnknownToken),
        (token(field, 0, OTHER_KEY_ID), WrongKey),
        (b"", MalformedToken),
        (known[:-1], MalformedToken),
        (b"\x02" + known[1:], MalformedToken),
        # What tells tokens apart is right, the rest is not.
        (known[:-1] + bytes([known[-1] ^ 1]), UnknownToken),
    ]
    for cell, error in wrong:
        tokens = cells_of(random_indices(rows))
        tokens[position] = cell
        for table in (bytes_table(tokens, rows), CellTable(tokens, rows, FIELDS)):
            with pytest.raises(error) as caught:
                table.indices(VOCABULARY)
            assert (caught.value.field, caught.value.row) == (field, row)
            if len(cell) > 8:
                assert cell.hex()[10:] not in caught.value.detail
                assert to_text(cell)[8:] not in caught.value.detail


@pytest.mark.parametrize("text", ["%%%", "ä", "AQ=Q", "A" * 3000, "QQ\n"])
def test_text_that_is_no_token(text: str) -> None:
    texts: list[bytes | str] = [to_text(cell) for cell in cells_of(random_indices(3))]
    texts[4] = text
    with pytest.raises(MalformedToken) as caught:
        CellTable(texts, 3, FIELDS).indices(VOCABULARY)
    assert (caught.value.field, caught.value.row) == (NAMES[1], 1)


@pytest.mark.parametrize("rows", [1, 30])
def test_raw_tensors_of_another_length(rows: int) -> None:
    content = raw_bytes(cells_of(random_indices(rows)))
    width = len(content) // rows
    for wrong in (content[:-1], content[:-width], content + b"\0", content + content[:width]):
        with pytest.raises(InvalidRequest) as caught:
            BytesTable(wrong, rows, FIELDS).indices(VOCABULARY)
        assert caught.value.field == "tokens"


def test_a_length_prefix_must_be_right_too() -> None:
    tokens = cells_of(random_indices(1))
    content = bytearray(raw_bytes(tokens))
    for length in (0, 36, 38, 1 << 31, (1 << 32) - 1):
        content[:4] = struct.pack("<I", length)
        with pytest.raises(RequestError):
            BytesTable(bytes(content), 1, FIELDS).indices(VOCABULARY)


def test_a_huge_token_is_refused_by_its_length() -> None:
    tokens = [*cells_of(random_indices(2))[:-1], b"\1" * 10_000_000]
    with pytest.raises(MalformedToken, match="10000000"):
        bytes_table(tokens, 2).indices(VOCABULARY)


@pytest.mark.parametrize(("rows", "width"), [(1 << 62, 1 << 62), (2, FIELDS), (1, 4000)])
def test_shapes_that_the_content_cannot_fill(rows: int, width: int) -> None:
    with pytest.raises(InvalidRequest):
        BytesTable(b"\0" * 20, rows, width)
    with pytest.raises(InvalidRequest):
        CellTable([b""], rows, width)
    with pytest.raises(InvalidRequest):
        IndexTable(b"\0" * 20, "INT32", rows, width, VOCABULARY)


@pytest.mark.parametrize("width", [FIELDS - 1, FIELDS + 1])
def test_rows_of_another_width(width: int) -> None:
    tokens = (cells_of(random_indices(2)) * 2)[: 2 * width]
    integers = np.zeros(2 * width, "<i4").tobytes()
    for table in (
        BytesTable(raw_bytes(tokens), 2, width),
        CellTable(tokens, 2, width),
        IndexTable(integers, "INT32", 2, width, VOCABULARY),
    ):
        with pytest.raises(InvalidRequest, match="fields"):
            table.indices(VOCABULARY)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("kind", ["INT32", "INT64"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, UnknownToken),
        (-2, InvalidRequest),
        (SIZES["beta"], InvalidRequest),
        (2**31 - 1, InvalidRequest),
    ],
)
def test_indices_outside_the_vocabulary(
    rows: int, kind: str, value: int, error: type[RequestError]
) -> None:
    indices = random_indices(rows).astype({"INT32": "<i4", "INT64": "<i8"}[kind])
    indices[-1, 1] = value
    with pytest.raises(error) as caught:
        IndexTable(indices.tobytes(), kind, rows, FIELDS, VOCABULARY).indices(VOCABULARY)
    assert (caught.value.field, caught.value.row) == ("beta", rows - 1)


def test_an_index_of_64_bits_is_not_cut_to_32() -> None:
    indices = np.full((1, FIELDS), 1 << 32, "<i8")
    with pytest.raises(InvalidRequest):
        IndexTable(indices.tobytes(), "INT64", 1, FIELDS, VOCABULARY).indices(VOCABULARY)


def test_indices_are_those_of_one_vocabulary() -> None:
    same = vocabulary()
    other = Vocabulary(KEY_ID, {f: t[::-1] for f, t in VOCABULARY.tokens.items()})
    table = IndexTable(bytes(4 * FIELDS), "INT32", 1, FIELDS, VOCABULARY)
    assert table.indices(same) == bytes(4 * FIELDS)
    with pytest.raises(InvalidRequest, match="another version"):
        table.indices(other)


def test_a_vocabulary_of_uneven_tokens_goes_the_careful_way() -> None:
    longer = token("a", 1) + b"\0" * 16
    uneven = Vocabulary(KEY_ID, {"a": (token("a", 0), longer), "b": (token("b", 0),)})
    assert layout_of(uneven).row_bytes == 0
    tokens = [longer, token("b", 0), token("a", 0), token("b", 0)]
    table = BytesTable(raw_bytes(tokens), 2, 2)
    assert np.asarray(table.indices(uneven)).tolist() == [[1, 0], [0, 0]]
    assert layout_of(uneven).tensor(np.array([[1, 0], [0, 0]], np.int32)) == raw_bytes(tokens)


def test_tokens_alike_where_they_should_differ() -> None:
    first = token("a", 0)
    second = first[:-1] + bytes([first[-1] ^ 1])
    alike = Vocabulary(KEY_ID, {"a": (first, second)})
    indices = np.array([[0], [1]] * 40, np.int32)
    content = layout_of(alike).tensor(indices)
    assert content == raw_bytes([first, second] * 40)
    assert np.array_equal(array_of(layout_of(alike).indices(content, 80)), indices)


def array_of(payload: bytes | np.ndarray | None) -> np.ndarray:
    assert payload is not None
    found = payload if isinstance(payload, np.ndarray) else np.frombuffer(payload, "<i4")
    return found.reshape(-1, 1)


def test_a_layout_goes_with_its_vocabulary() -> None:
    gc.collect()  # other tests' layouts
    before = len(layouts._layouts)
    passing = vocabulary(OTHER_KEY_ID)
    assert layout_of(passing) is layout_of(passing)
    assert len(layouts._layouts) == before + 1
    del passing
    gc.collect()
    assert len(layouts._layouts) == before


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_elements_of_raw_tensors(elements: list[bytes]) -> None:
    assert list(cells(raw_bytes(elements))) == elements


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 4))
def test_any_bytes_are_refused_or_nothing(content: bytes, rows: int, width: int) -> None:
    """What is no known token is always a refusal; anything else would be a crash."""
    for make in (
        lambda: BytesTable(content, rows, width),
        lambda: IndexTable(content, "INT32", rows, width, VOCABULARY),
        lambda: IndexTable(content, "INT64", rows, width, VOCABULARY),
    ):
        with suppress(RequestError):
            found = array(make().indices(VOCABULARY))
            assert found.shape == (rows, FIELDS)
            assert ((found >= 0) & (found < list(SIZES.values()))).all()


def test_layout_is_not_fooled_by_a_short_vocabulary() -> None:
    short = Vocabulary(KEY_ID, {"a": (b"x", b"y")})
    assert Layout(short).indices(raw_bytes([b"y", b"x"]), 2) == struct.pack("<2i", 1, 0)
