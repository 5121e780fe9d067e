"""How text tables are written."""

import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.dialect import column_names, is_utf8, sniff_delimiter
from cipherscore.client.headers import MAX_FIELD_NAME, field_names, words
from cipherscore.client.sampling import read_sample
from cipherscore.errors import DataError
from cipherscore.schema import RESERVED_NAMES

HEADERS = st.lists(st.text(max_size=70) | st.sampled_from(["", "a", "A b", "a_b", "label", "#1"]))


@given(HEADERS)
def test_any_header_gives_different_names(header):
    names = column_names(header)
    assert len(set(names)) == len(names) == len(header)
    assert all(names)
    assert column_names(names) == names


@given(st.lists(st.text(max_size=70), unique=True), st.lists(st.sampled_from("aby"), max_size=2))
def test_any_columns_give_safe_different_field_names(columns, taken):
    names = field_names(columns, taken)
    assert list(names) == columns
    assert len(set(names.values())) == len(columns)
    for column, name in names.items():
        assert name.isascii()
        assert name.isidentifier()
        assert len(name) <= MAX_FIELD_NAME
        assert name not in (*taken, *RESERVED_NAMES)
        # Nothing is named like another column: a record's key has one meaning.
        assert name == column or name not in columns


def test_field_names_are_readable():
    assert field_names(["Größe (cm)", "1st try", "年齢", "a b", "a_b", "label", "cost %"]) == {
        "Größe (cm)": "Grosse_cm", "1st try": "c1st_try", "年齢": "c3", "a b": "a_b_2",
        "a_b": "a_b", "label": "label_2", "cost %": "cost_pct",
    }  # fmt: skip
    assert words("customerID_no2") == ["customer", "id", "no", "2"]
    assert words("paid") == ["paid"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"a;b\n1,5;2,5\n", ";"), (b"1,5;2\n2,5;3\n", ";"), (b'"a;b",c\n1,2\n', ","),
     (b"a\tb,c\n1,5\t2\n", "\t"), (b"a|b\n", "|"), (b"a,b;c\n1,2\n", ","), (b"a b,c", ",")],
)  # fmt: skip
def test_delimiters(tmp_path, content, expected):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert sniff_delimiter(path) == expected


def test_encodings_compression_and_line_ends_inside_quotes(tmp_path):
    path = tmp_path / "t.csv.xz"
    path.write_bytes(lzma.compress('a;"b\nc"\r\nä;"1\n2"\r\nö;x\r\n'.encode("latin-1")))
    assert not is_utf8(path)
    found = read_sample(path)
    assert {name: column.to_pylist() for name, column in found.columns.items()} == {
        "a": ["ä", "ö"], "b\nc": ["1\n2", "x"],
    }  # fmt: skip
    assert found.source.encoding == "latin-1"
    assert found.remarks == ["the file is not UTF-8; it is read as Latin-1"]
    assert found.complete
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read_sample(path)


@pytest.mark.parametrize(
    ("rows", "mark"),
    [(["1,5;x", "2;y"], ","), (["1.5;x", "2;y"], "."), (["1,5;2.5", "2,5;3.5"], "."), (["1;x"], "."),
     (["x, y;1", "z;2"], ".")],
)  # fmt: skip
def test_decimal_marks(tmp_path, rows, mark):
    path = tmp_path / "t.csv"
    path.write_text("a;b\n" + "\n".join(rows) + "\n")
    assert read_sample(path).source.decimal == mark


def test_no_header_and_a_first_row_that_looks_like_data(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("1,2,x\n3,4,y\n")
    found = read_sample(path, header=False)
    assert list(found.columns) == ["c1", "c2", "c3"]
    assert found.columns["c3"].to_pylist() == ["x", "y"]
    assert (found.source.header, found.source.columns) == (False, ("c1", "c2", "c3"))
    assert "line one looks like data" in read_sample(path).remarks[0]


def test_only_the_first_rows_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("cipherscore.client.sampling.SAMPLE_CELLS", 20)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 10)
    assert (read_sample(path).rows, read_sample(path).complete) == (10, True)
    path.write_text("a,b\n" + "1,2\n" * 11)
    assert (read_sample(path).rows, read_sample(path).complete) == (10, False)
