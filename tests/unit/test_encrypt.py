"""Raw tables to token tables and back: published shapes, streams, splits, and failures."""

import csv
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

from cipherscore.client import dialect, fitting, sources
from cipherscore.client.encrypt import decrypt_table, encrypt_table
from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table, from_arrow, read_csv
from cipherscore.dataset import TEST, TRAIN, VALIDATION, read_tokens
from cipherscore.errors import DataError, DecryptionError, RecordError, SchemaError, UnknownKeyId
from cipherscore.schema import Binning, Field
from cipherscore.schema_file import load_schema
from tests.support.real_data import german_credit

KEYS = Keyset("0badcafe", {"0badcafe": bytes(range(32)), "0000beef": bytes(32)})


@pytest.fixture(scope="module")
def sample(sample_path):
    return pacsv.read_csv(
        sample_path,
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(
                [*load_schema("german-credit").by_name, "classification"], pa.string()
            )
        ),
    )


def replaced(table, name, row, value):
    values = table.column(name).to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))


def test_capstone_shapes_on_the_real_table(tmp_path, capstone_schema):
    table = find_table(capstone_schema, german_credit())
    made = encrypt_table(table, capstone_schema, KEYS, tmp_path / "t")
    assert made.schema == capstone_schema
    assert made.rows == 1000
    found = read_tokens(tmp_path / "t")
    assert len(found.columns) == 20
    everything = found.build_vocabulary(np.ones(1000, bool))
    assert everything.width == 80
    assert np.bincount(found.label).tolist() == [700, 300]
    one_hot = np.zeros((1000, everything.width), np.int8)
    offsets = np.cumsum([0, *everything.sizes[:-1]])
    np.put_along_axis(one_hot, found.indices(everything) + offsets, 1, axis=1)
    assert np.column_stack([one_hot, found.label]).shape == (1000, 81)
    assert (one_hot.sum(axis=1) == 20).all()


def test_capstone_edges_are_the_uniform_ones_of_the_real_table(capstone_schema):
    columns = list(
        zip(*(line.split() for line in german_credit().read_text().splitlines()), strict=True)
    )
    for column, f in zip(columns[:-1], capstone_schema.fields, strict=True):
        if f.kind == "numeric":
            values = [float(text) for text in column]
            assert f.edges == tuple(np.linspace(min(values), max(values), len(f.edges)))
        else:
            # The code book has vacations (A47) and single women (A95), which no row has.
            assert set(f.categories) - set(column) <= {"A47", "A95"}
            assert set(column) <= set(f.categories)


def test_default_schema_is_fitted(tmp_path, sample):
    schema = load_schema("german-credit")
    made = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "t", seed=3)
    assert made.schema.fitted
    assert not schema.fitted
    found = read_tokens(tmp_path / "t")
    assert found.schema == made.schema.public()
    assert found.seed == 3
    assert found.key_id == made.key_id == "0badcafe"
    labels = np.array([value == "2" for value in sample.column("classification").to_pylist()])
    assert (found.label == labels).all()
    assert set(np.unique(found.split)) == {TRAIN, VALIDATION, TEST}


def test_equal_seeds_give_equal_files(tmp_path, sample):
    schema = load_schema("german-credit")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / name, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (read_tokens(tmp_path / "a").split != read_tokens(tmp_path / "c").split).any()


def test_dictionaries_do_not_follow_the_schema(tmp_path, capstone_schema, sample):
    encrypt_table(from_arrow(sample), capstone_schema, KEYS, tmp_path / "one")
    encrypt_table(
        from_arrow(sample), capstone_schema, Keyset("0000beef", KEYS._keys), tmp_path / "two"
    )
    one, two = read_tokens(tmp_path / "one"), read_tokens(tmp_path / "two")
    orders = 0
    for name, column in one.columns.items():
        assert list(column.dictionary) == sorted(column.dictionary)
        assert len({len(token) for token in column.dictionary}) == 1
        # Under two keys the same rows get other positions: order tells nothing about a level.
        orders += (column.indices != two.columns[name].indices).any()
        assert not set(column.dictionary) & set(two.columns[name].dictionary)
    assert orders >= 12


def test_batches_of_few_levels_and_row_groups_are_alike(tmp_path, capstone_schema, sample):
    whole = tmp_path / "whole"
    encrypt_table(from_arrow(sample), capstone_schema, KEYS, whole)
    cut = sources.RawTable("cut", "file", lambda: iter(sample.to_batches(max_chunksize=7)))
    encrypt_table(cut, capstone_schema, KEYS, tmp_path / "cut")
    same(read_tokens(whole), read_tokens(tmp_path / "cut"))


def same(one, two):
    assert (one.schema, one.key_id, one.seed, one.rows) == (
        two.schema,
        two.key_id,
        two.seed,
        two.rows,
    )
    assert (one.label == two.label).all()
    assert (one.split == two.split).all()
    for name, column in one.columns.items():
        first = np.array(column.dictionary)[column.indices]
        other = two.columns[name]
        assert (first == np.array(other.dictionary)[other.indices]).all()


def test_token_file_holds_no_plaintext(tmp_path, sample):
    schema = load_schema("german-credit")
    made = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "t")
    content = (tmp_path / "t").read_bytes()
    for f in made.schema.fields:
        for level in f.levels:
            # Codes such as A11 are three bytes long and occur in random bytes by chance.
            assert len(level) < 5 or level.encode() not in content
        for meaning in f.categories.values():
            assert meaning.encode() not in content
        for edge in f.edges:
            assert len(str(edge)) < 5 or str(edge).encode() not in content
        assert len(f.unit) < 5 or f.unit.encode() not in content
    for key in KEYS._keys.values():
        assert key not in content
        assert key.hex().encode() not in content


def test_marked_values_never_reach_the_file(tmp_path, sample):
    schema = load_schema("german-credit-capstone")
    mark = "PLAINTEXTMARK"
    first = schema.fields[0]
    fields = (replace(first, categories={**first.categories, mark: mark}), *schema.fields[1:])
    table = replaced(sample, first.name, 5, mark)
    encrypt_table(from_arrow(table), replace(schema, fields=fields), KEYS, tmp_path / "t")
    assert mark.encode() not in (tmp_path / "t").read_bytes()


def test_csv_in_many_blocks_equals_the_table_in_memory(tmp_path, sample, sample_path, monkeypatch):
    schema = load_schema("german-credit")
    monkeypatch.setattr(dialect, "BLOCK_BYTES", 3000)
    blocks = list(read_csv(sample_path, ",", header=True, schema=schema))
    assert len(blocks) > 10
    done = []
    streamed = encrypt_table(
        find_table(schema, sample_path), schema, KEYS, tmp_path / "csv",
        progress=lambda rows, total: done.append((rows, total)),
    )  # fmt: skip
    direct = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "arrow")
    assert streamed.schema.digest == direct.schema.digest
    # Labels, bins, tokens: the total is known after the first reading.
    ends = np.cumsum([len(block) for block in blocks])
    rows = int(ends[-1])
    assert [total for _, total in done] == [0] * len(blocks) + [3 * rows] * 2 * len(blocks)
    assert [at for at, _ in done] == [int(e) + start for start in (0, rows, 2 * rows) for e in ends]
    same(read_tokens(tmp_path / "csv"), read_tokens(tmp_path / "arrow"))


@pytest.mark.parametrize("row", [0, 500, -1])
def test_wrong_row_leaves_nothing_behind_and_the_old_file_intact(
    tmp_path, sample, monkeypatch, row
):
    schema = load_schema("german-credit-capstone")
    position = row % len(sample)
    path = tmp_path / "bad.csv"
    pacsv.write_csv(replaced(sample, "housing", position, "A999"), path)
    monkeypatch.setattr(dialect, "BLOCK_BYTES", 4000)
    out = tmp_path / "out/t"
    for before in (None, b"old content"):
        if before:
            out.write_bytes(before)
        with pytest.raises(RecordError, match=f"record {position}, field 'housing': 'A999'"):
            encrypt_table(find_table(schema, path), schema, KEYS, out)
        left = list(out.parent.iterdir()) if out.parent.exists() else []
        assert left == ([out] if before else [])
        assert not before or out.read_bytes() == before


def test_wrong_label_names_its_row(tmp_path, sample, capstone_schema):
    table = from_arrow(replaced(sample, "classification", 700, "3"))
    cut = sources.RawTable("t", "file", lambda: (b for t in table.batches() for b in [t]))
    with pytest.raises(RecordError, match="record 700, field 'classification'"):
        encrypt_table(cut, capstone_schema, KEYS, tmp_path / "t")


def test_interrupted_encryption_leaves_nothing(tmp_path, sample, capstone_schema):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encrypt_table(from_arrow(sample), capstone_schema, KEYS, tmp_path / "t", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_bins_know_nothing_of_validation_and_test_rows(tmp_path, sample):
    schema = load_schema("german-credit")
    made = encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / "t")
    split = read_tokens(tmp_path / "t").split
    changed = sample
    for part in (VALIDATION, TEST):
        for row in np.flatnonzero(split == part)[:3]:
            changed = replaced(changed, "creditamount", int(row), "99999")
            changed = replaced(changed, "age", int(row), "18")
    other = encrypt_table(from_arrow(changed), schema, KEYS, tmp_path / "u")
    assert other.schema == made.schema
    assert (read_tokens(tmp_path / "u").split == split).all()
    train = int(np.flatnonzero(split == TRAIN)[0])
    moved = replaced(sample, "creditamount", train, "99999")
    assert encrypt_table(from_arrow(moved), schema, KEYS, tmp_path / "v").schema != made.schema


def test_bins_of_large_tables_are_fitted_on_a_sample(tmp_path, sample, monkeypatch):
    monkeypatch.setattr(fitting, "FIT_ROWS", 100)
    schema = load_schema("german-credit")
    made = [
        encrypt_table(from_arrow(sample), schema, KEYS, tmp_path / str(i), seed=4).schema
        for i in (0, 1)
    ]
    assert made[0] == made[1]
    assert made[0].fitted


def decrypted(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_decryption_gives_levels_back(tmp_path, sample):
    made = encrypt_table(from_arrow(sample), load_schema("german-credit"), KEYS, tmp_path / "t")
    done = []
    assert decrypt_table(
        tmp_path / "t", made.schema, KEYS, tmp_path / "out.csv",
        lambda rows, total: done.append((rows, total)),
    ) == len(sample)  # fmt: skip
    assert done[-1] == (len(sample), len(sample))
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600
    expected = [
        {f.name: f.level_of(record[f.name]) for f in made.schema.fields}
        for record in sample.to_pylist()
    ]
    assert decrypted(tmp_path / "out.csv") == expected


def test_absent_values_come_back_empty(tmp_path, sample, capstone_schema):
    fields = tuple(replace(f, missing="level") for f in capstone_schema.fields)
    schema = replace(capstone_schema, fields=fields)
    table = replaced(replaced(sample, "age", 3, ""), "housing", 4, None)
    encrypt_table(from_arrow(table), schema, KEYS, tmp_path / "t")
    decrypt_table(tmp_path / "t", schema, KEYS, tmp_path / "out.csv")
    rows = decrypted(tmp_path / "out.csv")
    assert (rows[3]["age"], rows[4]["housing"]) == ("", "")
    assert rows[3]["housing"]
    assert rows[4]["age"]


def test_decryption_is_refused_with_another_schema_or_key(tmp_path, sample, capstone_schema):
    encrypt_table(from_arrow(sample), capstone_schema, KEYS, tmp_path / "t")
    out = tmp_path / "out.csv"
    with pytest.raises(DataError, match="use the fitted schema written beside it"):
        decrypt_table(tmp_path / "t", replace(capstone_schema, version=2), KEYS, out)
    with pytest.raises(UnknownKeyId, match="0badcafe"):
        decrypt_table(tmp_path / "t", capstone_schema, Keyset.create(), out)
    wrong = Keyset("0badcafe", {"0badcafe": bytes(32)})
    with pytest.raises(DecryptionError):
        decrypt_table(tmp_path / "t", capstone_schema, wrong, out)
    rotated = KEYS.rotate()
    assert decrypt_table(tmp_path / "t", capstone_schema, rotated, out) == len(sample)


def test_unlabelled_tables_need_a_fitted_schema(tmp_path, sample, capstone_schema):
    table = from_arrow(sample.drop_columns(["classification"]))
    with pytest.raises(SchemaError, match="bin edges"):
        encrypt_table(table, load_schema("german-credit"), KEYS, tmp_path / "t", labelled=False)
    encrypt_table(table, capstone_schema, KEYS, tmp_path / "t", labelled=False)
    found = read_tokens(tmp_path / "t")
    assert found.rows == len(sample)
    assert len(found.label) == len(found.split) == 0
    with pytest.raises(DataError, match="lacks column 'classification'"):
        encrypt_table(table, capstone_schema, KEYS, tmp_path / "u")


def test_tables_without_rows_or_columns(tmp_path, sample, capstone_schema):
    with pytest.raises(DataError, match="0 rows of good credit"):
        encrypt_table(from_arrow(sample[:0]), capstone_schema, KEYS, tmp_path / "t")
    with pytest.raises(DataError, match="has no row"):
        encrypt_table(from_arrow(sample[:0]), capstone_schema, KEYS, tmp_path / "t", labelled=False)
    for schema in (capstone_schema, load_schema("german-credit")):
        with pytest.raises(DataError, match="lacks column 'duration'"):
            encrypt_table(
                from_arrow(sample.drop_columns(["duration"])), schema, KEYS, tmp_path / "t"
            )
    assert list(tmp_path.iterdir()) == []


def test_sentinels_are_not_fitted(tmp_path, small_schema):
    size = Field(
        "size", "numeric", binning=Binning("uniform", 2), missing="level", missing_values=("-1",)
    )
    schema = replace(small_schema, fields=(small_schema.fields[0], size))
    rows = 40
    table = pa.table({
        "color": ["r"] * rows,
        "size": [float(i) if i % 4 else -1.0 for i in range(rows)],
        "y": ["ok", "bad"] * (rows // 2),
    })  # fmt: skip
    made = encrypt_table(from_arrow(table), schema, KEYS, tmp_path / "t")
    assert min(made.schema.by_name["size"].edges) >= 1
    decrypt_table(tmp_path / "t", made.schema, KEYS, tmp_path / "out.csv")
    assert [row["size"] == "" for row in decrypted(tmp_path / "out.csv")] == [
        i % 4 == 0 for i in range(rows)
    ]


def test_full_disk_keeps_the_old_file(tmp_path, sample, capstone_schema, monkeypatch):
    (tmp_path / "t").write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        encrypt_table(from_arrow(sample), capstone_schema, KEYS, tmp_path / "t")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("t", b"old")]


def test_wide_text_of_many_rows_streams(tmp_path, small_schema, monkeypatch):
    monkeypatch.setattr(dialect, "BLOCK_BYTES", 1 << 12)
    schema = small_schema.with_edges({"size": (0.0, 50.0, 100.0)})
    text = io.StringIO()
    text.write("color;size;y\n")
    for row in range(5000):
        text.write(f"{'rgb'[row % 3]};{row % 100};{('ok', 'bad')[row % 2]}\n")
    (tmp_path / "big.csv").write_text(text.getvalue())
    made = encrypt_table(find_table(schema, tmp_path / "big.csv"), schema, KEYS, tmp_path / "t")
    assert made.rows == 5000
    assert read_tokens(tmp_path / "t").build_vocabulary().sizes == (3, 2)
