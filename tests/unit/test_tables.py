"""Whole columns decide as single records do: same level or same refusal, at the same row."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.tables import column_of, encode_batch, labels, level_indices, numbers
from cipherscore.errors import DataError, RecordError
from cipherscore.schema import MISSING_LEVEL, Binning, Field, Schema, Target

CODES = ("A11", "1", "2", "true", "True", "0.5", " pad", "ä", "1e3")
FIELDS = [
    Field(
        kind, kind, categories=dict.fromkeys(CODES, "") if kind == "categorical" else {},
        edges=() if kind == "categorical" else (0.0, 6.0, 1000.0, 2000.0),
        valid_range=None if kind == "categorical" else (-5.0, 1e6),
        missing=missing, missing_values=texts,
    )
    for kind in ("categorical", "numeric")
    for missing in ("error", "level")
    for texts in ((), ("?", " NA ", "999"))
]  # fmt: skip
TEXTS = [
    *CODES, " A11", "A11 ", "\tA11\n", "a11", "pad", "  pad", "", " ", "?", " ?", "NA", "nan", "NaN",
    "inf", "-inf", "Infinity", "1e3", "1E3", " 6 ", "6", "6.0", "+6", "-6", ".5", "5.", "1_0", "0x6",
    "6,5", "٦", "999", " 999", "999.0", "1e400", "1e-400", "-0", "5.999999999999999999", "None",
    "\u00a06", "\u200b6", "6\x00", "\x1c6", "x" * 300, "6 6",
]  # fmt: skip
FLOATS = [
    0.0,
    -0.0,
    6.0,
    0.5,
    1.0,
    2.0,
    999.0,
    -5.0,
    -5.1,
    1e6,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
]
INTEGERS = [0, 1, 2, 5, 6, 999, -5, -6, 10**6, 10**6 + 1, 2**53 + 1, -(2**63), 2**63 - 1]

FEW = settings(max_examples=25)
"""Each example is tried in eight layouts on eight fields."""


def by_record(values, field):
    """Return the position of every value's level, or the first refused row, as records decide."""
    found = []
    for row, value in enumerate(values):
        try:
            found.append(field.levels.index(field.level_of(value, row)))
        except RecordError as error:
            return str(error), error.row
    return found


def by_column(column, field):
    try:
        return level_indices(column, field).tolist()
    except RecordError as error:
        return str(error), error.row


def layouts(array):
    """Yield the same values in every Arrow layout they may arrive in."""
    yield array
    table = pa.table({"c": pa.chunked_array([array[:1], array[1:1], array[1:]])})
    yield column_of(table, "c")
    yield pa.concat_arrays([array[:2], array])[len(array[:2]) :]
    if pa.types.is_string(array.type):
        yield array.cast(pa.large_string())
        yield array.cast(pa.string_view())
        yield array.cast(pa.large_string()).dictionary_encode()
    if not pa.types.is_null(array.type):
        yield array.dictionary_encode()
        yield pa.concat_arrays([array.dictionary_encode(), array[:0].dictionary_encode()])


def check(array):
    values = array.to_pylist()
    for field in FIELDS:
        expected = by_record(values, field)
        for layout in layouts(array):
            assert by_column(layout, field) == expected, (field, layout.type)


@FEW
@given(st.lists(st.none() | st.sampled_from(TEXTS) | st.text(max_size=4), max_size=6))
@example(TEXTS)
@example([" pad", " 1", "A11"])
def test_texts(values):
    check(pa.array(values, pa.string()))


@pytest.mark.parametrize("text", [None, *TEXTS])
def test_each_text_alone_and_behind_a_good_one(text):
    for values in ([text], ["1", "1", text]):
        for field in FIELDS:
            assert by_column(pa.array(values, pa.string()), field) == by_record(values, field)


@FEW
@given(st.lists(st.none() | st.sampled_from(FLOATS) | st.floats(), max_size=6))
@example([1.0, None, math.nan])
@example([999.0, 5.0])
def test_floats(values):
    check(pa.array(values, pa.float64()))


@FEW
@given(st.lists(st.none() | st.floats(width=32), max_size=5))
def test_single_precision_floats(values):
    check(pa.array(values, pa.float32()))


@FEW
@given(
    st.lists(st.none() | st.sampled_from(INTEGERS) | st.integers(-(2**63), 2**63 - 1), max_size=6)
)
def test_integers(values):
    check(pa.array(values, pa.int64()))


@FEW
@given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=4))
def test_unsigned_integers(values):
    check(pa.array(values, pa.uint64()))


@FEW
@given(st.lists(st.none() | st.booleans(), max_size=4))
def test_booleans(values):
    check(pa.array(values, pa.bool_()))


@FEW
@given(st.lists(st.none() | st.decimals(-9999, 9999, places=2, allow_nan=False), max_size=4))
def test_decimals(values):
    check(pa.array(values, pa.decimal128(8, 2)))


@pytest.mark.parametrize(
    "array",
    [
        pa.nulls(3),
        pa.array([b"A11", b"1"]),
        pa.array([[1], None]),
        pa.array([{"a": 1}]),
        pa.array([1, 2], pa.int32()).cast(pa.date32()),
        pa.array([1, 2]).cast(pa.timestamp("us")),
        pa.array(np.array([1, 6], np.float16)),
        pa.array([], pa.string()),
    ],
    ids=lambda array: str(array.type),
)
def test_other_types(array):
    values = array.to_pylist()
    for field in FIELDS:
        assert by_column(array, field) == by_record(values, field)


def test_unused_values_of_a_dictionary_do_not_count():
    numeric = FIELDS[4]
    for field, good in ((FIELDS[0], "A11"), (numeric, "6")):
        column = pa.DictionaryArray.from_arrays(pa.array([1, 1, 0, 1]), pa.array(["no", good]))
        with pytest.raises(RecordError, match="record 2"):
            level_indices(column, field)
        assert level_indices(column.take(pa.array([0, 1, 3])), field).tolist() == by_record(
            [good] * 3, field
        )
        sparse = pa.DictionaryArray.from_arrays(pa.array([1]), pa.array(["no", good, "3", "4"]))
        assert level_indices(sparse, field).tolist() == by_record([good], field)


def test_dictionary_with_nulls_inside_and_outside():
    field = FIELDS[3]
    inside = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["A11", None]))
    outside = pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array(["A11", "1"]))
    for column in (inside, outside):
        assert level_indices(column, field).tolist() == [0, field.levels.index(MISSING_LEVEL)]
        with pytest.raises(RecordError, match="record 1"):
            level_indices(column, FIELDS[0])


def test_first_of_many_wrong_rows_is_named():
    column = pa.array(["1"] * 1000 + ["x", "1", "y"])
    with pytest.raises(RecordError, match="record 1000, field 'categorical': 'x'"):
        level_indices(column, FIELDS[0])


def test_numbers_are_nan_where_absent_or_none():
    field = replace(FIELDS[7], name="n")
    texts = pa.array(["6", " 7 ", "?", "999", "999.0", "x", None, "1_0"])
    assert np.array_equal(numbers(texts, field), [6, 7, *[math.nan] * 6], equal_nan=True)
    assert np.array_equal(numbers(pa.array([6, 999]), field), [6, math.nan], equal_nan=True)
    assert np.isnan(numbers(pa.array([True, False]), field)).all()


SCHEMA = Schema(
    "both",
    (replace(FIELDS[3], name="c"), replace(FIELDS[7], name="n")),
    Target("y", good="1", bad="2"),
)
CODEC = RecordCodec(FieldCipher(Keyset.create(), SCHEMA))


@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(TEXTS)), min_size=1, max_size=5))
def test_batches_give_the_tokens_of_records(rows):
    batch = pa.table(
        {"c": [c for c, _ in rows], "n": [n for _, n in rows], "other": range(len(rows))}
    )
    try:
        expected = CODEC.encode_columns([{"c": c, "n": n} for c, n in rows])
    except RecordError:
        with pytest.raises(RecordError):
            encode_batch(batch, CODEC)
        return
    for name, column in encode_batch(batch, CODEC).items():
        assert [column.dictionary[i] for i in column.indices] == expected[name]
        assert list(column.dictionary) == sorted(set(expected[name]))


def test_missing_and_repeated_columns():
    with pytest.raises(DataError, match="lacks column 'n'; it has 'c'"):
        encode_batch(pa.table({"c": ["1"]}), CODEC)
    twice = pa.RecordBatch.from_arrays([pa.array(["1"])] * 3, ["c", "n", "n"])
    with pytest.raises(DataError, match="column 'n' twice"):
        encode_batch(twice, CODEC)
    with pytest.raises(DataError, match="lacks column 'y'"):
        labels(twice, SCHEMA.target)


@pytest.mark.parametrize(
    "column",
    [["1", " 2", "1"], [1, 2, 1], [1.0, 2.0, 1.0], pa.array(["1", "2", "1"]).dictionary_encode(),
     pa.array(["1", "2", "1"], pa.large_string()), pa.chunked_array([["1", "2"], ["1"]])],
    ids=range(6),
)  # fmt: skip
def test_labels(column):
    assert labels(pa.table({"y": column}), SCHEMA.target).tolist() == [0, 1, 0]


@pytest.mark.parametrize("value", ["3", "", "x", None])
def test_wrong_labels(value):
    with pytest.raises(RecordError, match=r"record 1, field 'y'.*1 \(good\) or 2 \(bad\)"):
        labels(pa.table({"y": ["1", value]}), SCHEMA.target)


def test_boolean_target():
    target = Target("y", good="False", bad="True")
    assert labels(pa.table({"y": [True, False]}), target).tolist() == [1, 0]


def test_many_levels_fit():
    field = Field("n", "numeric", edges=tuple(map(float, range(4096))), missing="level")
    values = pa.array([*range(4095), None])
    assert level_indices(values, field).tolist() == list(range(4096))
    assert Binning("tree", 4096).bins == 4096
