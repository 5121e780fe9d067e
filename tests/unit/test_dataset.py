"""Encrypted tables on disk: round trip, and files damaged, foreign or of another version."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cipherscore.dataset import (
    METADATA_KEY,
    TEST,
    TRAIN,
    VALIDATION,
    arrow_schema,
    iterate_tokens,
    read_header,
    read_tokens,
)
from cipherscore.errors import DataError
from cipherscore.schema import PublicField, PublicSchema
from cipherscore.vocabulary import Vocabulary

KEY = "0badcafe"
PUBLIC = PublicSchema(
    "toy", "ab" * 32, (PublicField("a", "categorical"), PublicField("b", "numeric")), "y", 5.0, 1.0
)
A, B = [b"x1", b"x2", b"x1", b"x3"], [b"n9", b"n9", b"n8", b"n9"]
LABEL, SPLIT = [0, 1, 0, 1], [TRAIN, TRAIN, VALIDATION, TEST]


def token_array(values):
    return (
        pa.array(values, pa.binary())
        .dictionary_encode()
        .cast(pa.dictionary(pa.int16(), pa.binary()))
    )


def write(path, groups=None, *, labelled=True, schema=None, **options):
    """Write row groups of (a, b, label, split), each with a dictionary of its own."""
    schema = schema or arrow_schema(PUBLIC, KEY, 7, labelled=labelled)
    with pq.ParquetWriter(path, schema, **options) as writer:
        for a, b, label, split in groups or [(A, B, LABEL, SPLIT)]:
            arrays = [token_array(a), token_array(b)]
            if labelled:
                arrays += [pa.array(label, pa.int8()), pa.array(split, pa.int8())]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return path


def plain(column):
    return [column.dictionary[i] for i in column.indices]


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "t.parquet")


def test_round_trip(path):
    found = read_tokens(path)
    assert (found.schema, found.key_id, found.seed, found.rows) == (PUBLIC, KEY, 7, 4)
    assert {name: plain(column) for name, column in found.columns.items()} == {"a": A, "b": B}
    assert found.label.tolist() == LABEL
    assert found.split.tolist() == SPLIT
    assert found.label.dtype == found.split.dtype == np.int8
    assert found.columns["a"].indices.dtype == np.int32
    assert read_header(path) == (PUBLIC, KEY, 7)


def test_draws_are_read_back_and_left_out_where_there_are_none(tmp_path, path):
    assert read_tokens(path).draws == 0
    assert b"draws" not in arrow_schema(PUBLIC, KEY, 7, labelled=True).metadata[METADATA_KEY]
    for draws in (1, 20):
        schema = arrow_schema(PUBLIC, KEY, 7, labelled=True, draws=draws)
        found = write(tmp_path / "drawn.parquet", schema=schema)
        assert read_tokens(found).draws == draws
        assert read_header(found) == (PUBLIC, KEY, 7)


@pytest.mark.parametrize("draws", ["2", -1, 1.5, True, None, 1 << 17])
def test_wrong_draws_are_damage(tmp_path, draws):
    schema = arrow_schema(PUBLIC, KEY, 7, labelled=True, draws=draws or 1)
    content = json.loads(schema.metadata[METADATA_KEY]) | {"draws": draws}
    schema = schema.with_metadata({METADATA_KEY: json.dumps(content).encode()})
    with pytest.raises(DataError, match="damaged"):
        read_tokens(write(tmp_path / "t.parquet", schema=schema))


def test_row_groups_with_dictionaries_of_their_own(tmp_path):
    groups = [
        (A, B, LABEL, SPLIT),
        ([b"x9", b"x1"], [b"n7", b"n9"], [1, 0], [TRAIN, TEST]),
        ([b"x2"] * 3, [b"n1", b"n2", b"n3"], [0, 0, 1], [TRAIN, TRAIN, TRAIN]),
    ]
    found = read_tokens(write(tmp_path / "t.parquet", groups))
    assert found.rows == 9
    assert plain(found.columns["a"]) == [*A, b"x9", b"x1", *[b"x2"] * 3]
    assert plain(found.columns["b"]) == [*B, b"n7", b"n9", b"n1", b"n2", b"n3"]
    for column in found.columns.values():
        assert len(set(column.dictionary)) == len(column.dictionary)
    for rows in (1, 2, 4, 100):
        parts = list(iterate_tokens(tmp_path / "t.parquet", rows))
        assert [token for part in parts for token in plain(part["a"])] == plain(found.columns["a"])
        assert all(len(part["b"].indices) <= rows for part in parts)


def test_vocabulary_is_of_training_rows(path):
    found = read_tokens(path)
    vocabulary = found.build_vocabulary()
    assert vocabulary.tokens == {"a": (b"x1", b"x2"), "b": (b"n9",)}
    assert found.indices(vocabulary).tolist() == [[0, 0], [1, 0], [0, -1], [-1, 0]]
    assert found.indices(vocabulary).dtype == np.int32
    chosen = found.build_vocabulary(np.array([False, False, False, True]))
    assert chosen.tokens == {"a": (b"x3",), "b": (b"n9",)}
    with pytest.raises(DataError, match="at least one training row"):
        found.build_vocabulary(np.zeros(4, bool))


def test_vocabulary_of_another_key_or_field(path):
    found = read_tokens(path)
    with pytest.raises(DataError, match="0badcafe, the model's vocabulary under 0000beef"):
        found.indices(Vocabulary.build("0000beef", {"a": [b"x1"]}))
    with pytest.raises(DataError, match="lacks field 'c'"):
        found.indices(Vocabulary.build(KEY, {"c": [b"x1"]}))


def test_unlabelled_table(tmp_path):
    found = read_tokens(write(tmp_path / "t.parquet", labelled=False))
    assert len(found.label) == len(found.split) == 0
    assert found.rows == 4
    with pytest.raises(DataError, match="training row"):
        found.build_vocabulary()


def test_empty_table(tmp_path):
    found = read_tokens(write(tmp_path / "t.parquet", [([], [], [], [])]))
    assert found.rows == 0
    assert sum(len(part["a"].indices) for part in iterate_tokens(tmp_path / "t.parquet", 10)) == 0


def test_every_truncation_is_found(path):
    content = path.read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        for read in (read_tokens, read_header):
            with pytest.raises(DataError):
                read(path)


def test_flipped_bits_are_found_or_change_no_row(tmp_path):
    """Bits of the footer that hold no data (names of tools, padding) may flip unnoticed."""
    path = write(tmp_path / "t.parquet", write_page_checksum=True, compression="zstd")
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for position in generator.choice(len(content), 400, replace=False):
        changed = bytearray(content)
        changed[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(changed)
        try:
            found = read_tokens(path)
            list(iterate_tokens(path, 2))
        except DataError:
            refused += 1
            continue
        assert {name: plain(column) for name, column in found.columns.items()} == {"a": A, "b": B}
        assert (found.label.tolist(), found.split.tolist()) == (LABEL, SPLIT)
    assert refused > 50


@pytest.mark.parametrize(
    "junk", [b"", b"PAR1", b"PAR1" * 10, b"\x00" * 1000, b"a,b\n1,2\n"], ids=len
)
def test_junk_is_no_parquet(tmp_path, junk):
    (tmp_path / "t").write_bytes(junk)
    with pytest.raises(DataError, match="not a Parquet file"):
        read_tokens(tmp_path / "t")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file; make it with `cipherscore encrypt`"):
        read_tokens(tmp_path / "none")
    with pytest.raises(DataError):
        read_header(tmp_path)


def test_foreign_parquet(tmp_path):
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t")
    for read in (read_tokens, read_header, lambda p: list(iterate_tokens(p, 5))):
        with pytest.raises(DataError, match="not an encrypted table"):
            read(tmp_path / "t")


def header_with(**changes):
    schema = arrow_schema(PUBLIC, KEY, 7, labelled=True)
    content = {**json.loads(schema.metadata[METADATA_KEY]), **changes}
    return schema.with_metadata({METADATA_KEY: json.dumps(content).encode()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2, "schema": "of the future"}, "format version 2 is unknown; known: 1"),
        ({"version": "1" * 10**6}, "is unknown"),
        ({"format": "other"}, "not an encrypted table"),
        ({"schema": {}}, "not an encrypted table"),
        ({"schema": None}, "not an encrypted table"),
        ({"key_id": "KEY"}, "not an encrypted table"),
        ({"key_id": 5}, "not an encrypted table"),
        ({"seed": "x"}, "not an encrypted table"),
    ],
)
def test_changed_headers(tmp_path, changes, message):
    write(tmp_path / "t", schema=header_with(**changes))
    for read in (read_tokens, read_header):
        with pytest.raises(DataError, match=message) as caught:
            read(tmp_path / "t")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("metadata", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000], ids=len)
def test_junk_headers(tmp_path, metadata):
    schema = arrow_schema(PUBLIC, KEY, 7, labelled=True).with_metadata({METADATA_KEY: metadata})
    write(tmp_path / "t", schema=schema)
    with pytest.raises(DataError, match="not an encrypted table"):
        read_tokens(tmp_path / "t")


@pytest.mark.parametrize(
    "change",
    [
        {"a": None},
        {"a": pa.array(["x"] * 4)},
        {"a": pa.array(["x"] * 4).dictionary_encode()},
        {"a": pa.array([1] * 4)},
        {"a": pa.array([b"x", None, b"x", b"y"], pa.binary()).dictionary_encode()},
        {"label": pa.array([0, 1, 2, 0], pa.int8())},
        {"label": pa.array([0, 1, None, 0], pa.int8())},
        {"label": pa.array([0, 1, 256, 0], pa.int16())},
        {"label": pa.array(["0"] * 4)},
        {"label": pa.array([0.5] * 4)},
        {"split": pa.array([0, 1, 3, 0], pa.int8())},
        {"split": None},
    ],
)
def test_wrong_columns_behind_a_right_header(tmp_path, change):
    columns = {
        "a": token_array(A),
        "b": token_array(B),
        "label": pa.array(LABEL),
        "split": pa.array(SPLIT),
    }
    columns = {name: column for name, column in {**columns, **change}.items() if column is not None}
    metadata = arrow_schema(PUBLIC, KEY, 7, labelled=True).metadata
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "t")
    with pytest.raises(DataError, match="the encrypted table is damaged"):
        read_tokens(tmp_path / "t")
    if "a" in change:
        with pytest.raises(DataError, match="the encrypted table is damaged"):
            list(iterate_tokens(tmp_path / "t", 2))
