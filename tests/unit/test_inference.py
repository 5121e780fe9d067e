"""First schemas for tables nobody has described."""

import csv
import gzip
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cipherscore.client.checking import check_table
from cipherscore.client.encrypt import encrypt_table
from cipherscore.client.inference import infer_schema
from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table
from cipherscore.errors import DataError, SchemaError
from cipherscore.schema import MAX_NAME_LENGTH
from cipherscore.schema_file import load_schema, save_schema
from tests.support.real_data import real_table

ROWS = 60


def write(tmp_path, delimiter=",", name="My table (2).csv", **columns):
    base = {
        "city": ["Oslo", "Rome", "Bern"] * (ROWS // 3),
        "income": [str(1000 + 37 * i % 911) for i in range(ROWS)],
        "good": ["yes", "yes", "no"] * (ROWS // 3),
    }
    columns = {**base, **columns}
    path = tmp_path / name
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def fits(tmp_path, path, schema):
    """Whether the written schema reads back, fits its own table, and encrypts it."""
    save_schema(schema, tmp_path / "s.toml")
    again = load_schema(tmp_path / "s.toml")
    assert again == schema
    table = find_table(again, path)
    rows = check_table(table, again)
    made = encrypt_table(table, again, Keyset.create(), tmp_path / "t")
    assert made.rows == rows
    return made.schema


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_kinds_target_and_name(tmp_path, delimiter):
    path = write(tmp_path, delimiter)
    schema, remarks = infer_schema(path, "good")
    assert schema.name == "my-table-2"
    assert [(f.name, f.kind) for f in schema.fields] == [
        ("city", "categorical"),
        ("income", "numeric"),
    ]
    assert set(schema.by_name["city"].categories) == {"Oslo", "Rome", "Bern"}
    assert (schema.target.good, schema.target.bad) == ("yes", "no")
    assert any("rarer value" in remark for remark in remarks)
    assert any("costs" in remark for remark in remarks)
    fits(tmp_path, path, schema)


def test_bad_name_and_bins_may_be_given(tmp_path):
    schema, remarks = infer_schema(write(tmp_path), "good", bad="yes", name="mine", bins=7)
    assert (schema.name, schema.target.bad, schema.target.good) == ("mine", "yes", "no")
    assert schema.by_name["income"].binning.bins == 7
    assert not any("rarer" in remark for remark in remarks)
    with pytest.raises(SchemaError, match="'maybe'"):
        infer_schema(write(tmp_path), "good", bad="maybe")
    with pytest.raises(SchemaError, match="small letters"):
        infer_schema(write(tmp_path), "good", name="Mine!")


def test_absent_values(tmp_path):
    texts = ["?", "", "NA"] + ["5", "6.5", "7", "9"] * 20
    path = write(tmp_path, age=texts[:ROWS], kind=(["a", "?", "b"] * ROWS)[:ROWS])
    schema, _ = infer_schema(path, "good")
    age, kind = schema.by_name["age"], schema.by_name["kind"]
    assert (age.kind, age.missing, age.missing_values) == ("numeric", "level", ("?", "NA"))
    assert (list(kind.categories), kind.missing, kind.missing_values) == (
        ["a", "b"],
        "level",
        ("?",),
    )
    assert schema.by_name["city"].missing == "error"
    fits(tmp_path, path, schema)


def test_ids_constants_and_long_texts_are_dropped(tmp_path):
    path = write(
        tmp_path,
        customer=[str(1000 + 3 * i) for i in range(ROWS)],
        client_ID=[str(7919 * i % 10007) for i in range(ROWS)],
        same=["x"] * ROWS,
        empty=[""] * ROWS,
        story=["word " * 100, "other", "third"] * (ROWS // 3),
    )
    schema, remarks = infer_schema(path, "good")
    assert set(schema.by_name) == {"city", "income", "story"}
    assert schema.dropped == ("customer", "client_ID", "same", "empty")
    for name, reason in [("customer", "an id"), ("client_ID", "an id"), ("same", "1 distinct"),
                         ("empty", "0 distinct")]:  # fmt: skip
        assert any(f"'{name}' dropped" in remark and reason in remark for remark in remarks), name
    story = fits(tmp_path, path, schema).by_name["story"]
    assert story.levels == ("other", "third", "(other)")  # the long text cannot be a level


def test_texts_that_hardly_repeat_are_dropped(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "a,note,name,y\n" + "".join(f"{i % 9},n{i},p{i // 2},{i % 2}\n" for i in range(600))
    )
    schema, remarks = infer_schema(path, "y")
    assert list(schema.by_name) == ["a"]
    assert "column 'note' dropped: a different text in each row, an id" in remarks
    assert "column 'name' dropped: 300 different texts, of which few occur 5 times" in remarks


def test_odd_headers(tmp_path):
    path = tmp_path / "t.csv"
    body = "".join(f"{i}, x{i % 3} ,{i % 5}.5, {'+-'[i % 2]}\n" for i in range(40))
    path.write_text('\ufeff, "Größe (cm)", a.b , y\n' + body)
    schema, remarks = infer_schema(path, "y")
    assert "column '#1' dropped: a different whole number in (nearly) each row, an id" in remarks
    assert (
        "2 column(s) gave a field of another name: 'Größe (cm)': Grosse_cm, 'a.b': a_b" in remarks
    )
    assert {f.name: f.column for f in schema.fields} == {"Grosse_cm": "Größe (cm)", "a_b": "a.b"}
    assert set(schema.by_name["Grosse_cm"].categories) == {"x0", "x1", "x2"}
    fits(tmp_path, path, schema)


@pytest.mark.parametrize("name", ["x" * 200 + ".csv", "---.csv", "ÄÖ.csv", "a" * 51 + "-bcd.csv"])
def test_any_file_name_gives_a_schema_name(tmp_path, name):
    schema, _ = infer_schema(write(tmp_path, name=name), "good")
    assert 0 < len(schema.name) <= MAX_NAME_LENGTH


def test_compressed_text(tmp_path):
    plain = write(tmp_path, ";")
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    assert (
        infer_schema(path, "good", name="s")[0].fields
        == infer_schema(plain, "good", name="s")[0].fields
    )


@pytest.mark.parametrize(
    "spelling", [[0, 1, 1], [0.0, 1.0, 1.0], [False, True, True], ["n", "y", "y"]]
)
def test_parquet_types(tmp_path, spelling):
    path = tmp_path / "t.parquet"
    times = ROWS // 3
    pq.write_table(
        pa.table({
            "flag": spelling * times,
            "code": pa.array([2.0, None, 4.0] * times),
            "truth": [True, False, None] * times,
            "whole": [*range(2 * ROWS, 2, -2), 4],
            "real": [i / 7 for i in range(ROWS)],
            "kind": pa.array(["a", "b", "b"] * times).dictionary_encode(),
            "y": (spelling * times)[::-1],
        }),
        path,
    )  # fmt: skip
    schema, _ = infer_schema(path, "y")
    assert {f.name: f.kind for f in schema.fields} == {
        "flag": "categorical", "code": "categorical", "truth": "categorical", "whole": "numeric",
        "real": "numeric", "kind": "categorical",
    }  # fmt: skip
    assert list(schema.by_name["code"].categories) == ["2", "4"]
    fits(tmp_path, path, schema)


@pytest.mark.parametrize(
    ("values", "count"),
    [(["a", "b", "c"], 3), (["a", "a", "a"], 1), (["a", "b", ""], 3), (["a", "a", "?"], 2)],
)
def test_targets_of_other_than_two_values_are_refused(tmp_path, values, count):
    path = write(tmp_path, risk=values * (ROWS // 3))
    with pytest.raises(SchemaError, match=f"'risk' has {count} values; exactly two, never absent"):
        infer_schema(path, "risk")


def test_null_target(tmp_path):
    pq.write_table(
        pa.table({"a": [1, 2, 3, 1], "y": ["a", None, "a", None]}), tmp_path / "t.parquet"
    )
    with pytest.raises(SchemaError, match="never absent"):
        infer_schema(tmp_path / "t.parquet", "y")


def test_unknown_target_and_no_field(tmp_path):
    with pytest.raises(SchemaError, match="no column 'risk'; columns: city, income, good"):
        infer_schema(write(tmp_path), "risk")
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "1,0\n1,1\n" * 20)
    with pytest.raises(SchemaError, match="no usable field"):
        infer_schema(path, "y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no comma"),
        (b"y\n0\n1\n", "no comma"),
        (b"a,y\n", "have a row"),
        (b"a,y\n1\n", "rows of equal length"),
        ("a,y\n1,0\n".encode("utf-16"), "UTF-16"),
        (b"\x00" * 100, "no comma"),
    ],
)
@pytest.mark.parametrize("ending", ["csv"])
def test_unusable_files(tmp_path, content, message, ending):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        infer_schema(path, "y")
    assert "\n" not in str(caught.value)


def test_missing_file_and_junk_parquet(tmp_path):
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            infer_schema(tmp_path / name, "y")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as a table"):
        infer_schema(tmp_path / "t.parquet", "y")
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="have a row"):
        infer_schema(tmp_path / "empty.parquet", "y")


def test_reserved_column_name(tmp_path):
    path = write(tmp_path, split=["a", "b", "c"] * (ROWS // 3))
    schema, _ = infer_schema(path, "good")
    assert schema.by_name["split_2"].column == "split"
    assert "split_2" in fits(tmp_path, path, schema).by_name


def with_header(source, tmp_path, columns, *, limit=None):
    """Write a real table, which has no header, with one."""
    raw = source.read_bytes()
    text = (gzip.decompress(raw) if source.suffix == ".gz" else raw).decode()
    lines = [line for line in text.splitlines() if line.strip()][:limit]
    path = tmp_path / f"{source.name.split('.')[0]}.csv"
    path.write_text(",".join(columns) + "\n" + "\n".join(lines) + "\n")
    return path


def test_credit_approval(tmp_path):
    source = real_table("credit_approval/crx.data")
    path = with_header(source, tmp_path, [f"A{i}" for i in range(1, 17)])
    schema, _ = infer_schema(path, "A16", bad="-")
    kinds = {f.name for f in schema.fields if f.kind == "numeric"}
    assert kinds == {"A2", "A3", "A8", "A11", "A14", "A15"}
    assert len(schema.fields) == 15
    assert {f.name for f in schema.fields if f.missing == "level"} == {
        "A1", "A2", "A4", "A5", "A6", "A7", "A14",
    }  # fmt: skip
    assert fits(tmp_path, path, schema).fitted


def test_adult(tmp_path):
    names = (  # noqa: SIM905 - easier to read
        "age workclass fnlwgt education education-num marital-status occupation relationship race "
        "sex capital-gain capital-loss hours-per-week native-country income"
    ).split()
    path = with_header(real_table("adult/adult.data.gz"), tmp_path, names)
    assert re.search(r", \?,", path.read_text())
    schema, _ = infer_schema(path, "income", bad="<=50K")
    assert (schema.target.good, schema.target.bad) == (">50K", "<=50K")
    assert {f.name for f in schema.fields if f.missing == "level"} == {
        "workclass", "occupation", "native_country",
    }  # fmt: skip
    assert schema.by_name["native_country"].column == "native-country"
    country = fits(tmp_path, path, schema).by_name["native_country"]
    assert "(other)" in country.levels
    assert "Holand-Netherlands" not in country.levels  # one row
    assert 35 < len(country.levels) < 43
