"""Tables nobody has seen before: from a CSV to tokens and to scored records, without code."""

import csv
import datetime as dt
import lzma
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cipherscore.client.checking import check_table, write_csv
from cipherscore.client.encrypt import encrypt_table
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.inference import Goal, Options, infer
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import find_table, read_records
from cipherscore.client.tables import encode_batch
from cipherscore.dataset import TEST, TRAIN, VALIDATION, read_tokens
from cipherscore.errors import CipherScoreError, DataError, RecordError, SchemaError
from cipherscore.schema import OTHER_LEVEL
from cipherscore.schema_file import format_schema, load_schema, parse_schema, save_schema
from tests.support.real_data import real_table

KEYS = Keyset.create()
CUSTOMERS, ROWS = 120, 600


def messy_rows(seed=0):
    """A table as people have it: ids, dates, blanks, many towns, decimal commas, an outcome."""
    r = random.Random(seed)
    rows = []
    for i in range(ROWS):
        bad = r.random() < 0.3
        day = dt.date(2020, 1, 1) + dt.timedelta(days=r.randrange(900))
        rows.append({
            "": str(i),
            "Kunden-Nr": f"K{i % CUSTOMERS:04}",
            "Größe (cm)": f"{r.gauss(170 + 5 * bad, 8):.1f}".replace(".", ","),
            "1. Einkommen €": r.choice(["", "NA", "?", str(r.randint(900, 9000))]),
            "opened on": r.choice([day.strftime("%d.%m.%Y")] * 9 + [""]),
            "Town": f"town {int(r.paretovariate(0.6)) % 400}",
            "split": r.choice("xy"),
            "remark; long": f"called, said: {i} {r.random()}",
            "default_reason": "late" if bad else "",
            "constant": "1",
            "paid": "no" if bad else r.choice(["yes", "early"]),
        })  # fmt: skip
    return rows


def write(path, rows, delimiter=";", encoding="utf-8-sig"):
    with path.open("w", newline="", encoding=encoding, errors="replace") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def messy(tmp_path):
    return write(tmp_path / "Messy Table.csv", messy_rows())


def messy_schema(path, **options):
    return infer(path, "paid", Options(goal=Goal(bad=("no",)), group="Kunden-Nr", **options))


def encrypted(tmp_path, path, schema, seed=0):
    """The fitted schema, read back from its file, and the token table."""
    made = encrypt_table(find_table(schema, path), schema, KEYS, tmp_path / "t", seed=seed)
    save_schema(made.schema, tmp_path / "fitted.toml")
    assert load_schema(tmp_path / "fitted.toml") == made.schema
    return made.schema, read_tokens(tmp_path / "t")


def test_a_messy_table_goes_through(tmp_path, messy):
    found = messy_schema(messy, drop_suspicious=True)
    schema = found.schema
    assert [f.name for f in schema.fields] == [
        "Grosse_cm", "c1_Einkommen", "opened_on_days", "opened_on_month", "opened_on_weekday",
        "Town", "split_2",
    ]  # fmt: skip
    assert set(schema.dropped) == {"#1", "remark; long", "default_reason", "constant"}
    assert schema.group == "Kunden-Nr"
    assert (schema.target.good, schema.target.also_good) == ("early", ("yes",))
    text = "\n".join(found.remarks)
    suspicion = (
        "'default_reason' is SUSPICIOUS: alone it tells good from bad with an AUC of 1.000 and it is "
        "named like an outcome; dropped"
    )
    for part in ("'#1' dropped: a different whole number", "'remark; long' dropped: a different text",
                 "'constant' dropped", suspicion, "dates like DD.MM.YYYY", "decimal comma",
                 "'1. Einkommen €': c1_Einkommen"):  # fmt: skip
        assert part in text
    assert check_table(find_table(schema, messy), schema) == ROWS
    fitted, tokens = encrypted(tmp_path, messy, schema)
    assert tokens.rows == ROWS
    assert "Kunden-Nr" not in tokens.columns
    assert fitted.by_name["c1_Einkommen"].levels[-1] == "<missing>"
    towns = fitted.by_name["Town"].levels
    assert towns[-1] == OTHER_LEVEL
    assert 5 < len(towns) < 40
    # The host never hears of raw names, groups or what was dropped.
    assert "Kunden" not in fitted.public().to_json()
    assert "Größe" not in fitted.public().to_json()


def test_records_files_and_written_tables_get_the_same_tokens(tmp_path, messy):
    schema, tokens = encrypted(tmp_path, messy, messy_schema(messy).schema)
    codec = RecordCodec(FieldCipher(KEYS, schema))
    expected = [
        {name: c.dictionary[c.indices[row]] for name, c in tokens.columns.items()}
        for row in range(ROWS)
    ]
    table = find_table(schema, messy)
    records = read_records(table, schema, list(range(ROWS)))
    assert set(records[0]) == {"Größe (cm)", "1. Einkommen €", "opened on", "Town", "split",
                               "default_reason", "paid"}  # fmt: skip
    assert [codec.encode(record) for record in records] == expected
    # Columns that are no fields may stay in; fields may also be given by their own names.
    whole = {**records[0], "#1": 0, "Kunden-Nr": "K0000", "remark; long": "", "constant": 1}
    assert codec.encode(whole) == expected[0]
    own = {f.name: records[0][f.source] for f in schema.fields}
    assert codec.encode(own) == expected[0]
    with pytest.raises(
        DataError, match=r"lacks field 'opened on'; allowed: a date like DD\.MM\.YYYY"
    ):
        codec.encode({k: v for k, v in records[0].items() if k != "opened on"})
    with pytest.raises(DataError, match="does not know: 'income'"):
        codec.encode({**records[0], "income": 1})
    raw = pa.table({name: [str(r[name]) for r in records] for name in records[0]})
    encoded = encode_batch(raw, codec)
    for name, column in encoded.items():
        assert [column.dictionary[i] for i in column.indices] == [row[name] for row in expected]
    write_csv(table, schema, tmp_path / "out.csv")
    again = encrypt_table(find_table(schema, tmp_path / "out.csv"), schema, KEYS, tmp_path / "u")
    assert again.schema == schema
    assert (read_tokens(tmp_path / "u").split == tokens.split).all()


def test_new_categories_at_scoring_time(tmp_path, messy):
    schema, _ = encrypted(tmp_path, messy, messy_schema(messy).schema)
    codec = RecordCodec(FieldCipher(KEYS, schema))
    record = read_records(find_table(schema, messy), schema, [0])[0]
    (other,) = codec.tokens["Town"][OTHER_LEVEL]
    for town in ("Atlantis", "x" * 1000, 17, "(other)", "<missing>"):
        assert codec.encode({**record, "Town": town})["Town"] == other
    assert codec.explain({"Town": OTHER_LEVEL})["Town"].meaning == "any other value"
    for town in ("", None, float("nan")):
        with pytest.raises(RecordError, match=r"'Town'.*or any other text"):
            codec.encode({**record, "Town": town})
    with pytest.raises(RecordError, match=r"'split': 'z' is not allowed; allowed: x, y$"):
        codec.encode({**record, "split": "z"})


def test_categories_are_counted_on_training_rows(tmp_path, messy):
    schema = messy_schema(messy).schema
    fitted, tokens = encrypted(tmp_path, messy, schema)
    towns = np.array([row["Town"] for row in messy_rows()])
    names, counts = np.unique(towns[tokens.split == TRAIN], return_counts=True)
    least = schema.by_name["Town"].grouping.least
    assert set(fitted.by_name["Town"].categories) == set(names[counts >= least])
    others = {name for name in towns if name not in fitted.by_name["Town"].categories}
    assert others
    column = tokens.columns["Town"]
    (other,) = RecordCodec(FieldCipher(KEYS, fitted)).tokens["Town"][OTHER_LEVEL]
    assert [column.dictionary[i] == other for i in column.indices] == [t in others for t in towns]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_are_never_divided(tmp_path, messy, seed):
    schema = messy_schema(messy).schema
    split = encrypted(tmp_path, messy, schema, seed)[1].split
    assert (split.reshape(-1, CUSTOMERS) == split[:CUSTOMERS]).all()
    for part, share in ((TRAIN, 0.64), (VALIDATION, 0.16), (TEST, 0.2)):
        assert abs((split == part).mean() - share) < 0.05
    assert (encrypted(tmp_path, messy, schema, seed)[1].split == split).all()
    assert (encrypted(tmp_path, messy, schema, seed + 7)[1].split != split).any()


def test_comments_in_the_file_do_not_change_the_schema(messy):
    found = messy_schema(messy)
    comments = {**found.comments, "Town": ["two\nlines\x00", "[[field]]"]}
    text = format_schema(found.schema, comments)
    assert parse_schema(text) == found.schema
    assert "# column 'default_reason' is SUSPICIOUS" in text
    assert '# two\\nlines\\x00\n# [[field]]\n[[field]]\nname = "Town"' in text
    assert text.startswith("# Made by")


def test_what_names_are_for_people_is_not_in_the_digest(tmp_path, messy):
    schema, _ = encrypted(tmp_path, messy, messy_schema(messy).schema)
    text = format_schema(schema)

    def changed(old, new):
        assert old in text
        return parse_schema(text.replace(old, new)).digest

    same = [("opened on", "Opened"), ('group = "Kunden-Nr"\n', ""), ('"constant",\n', ""),
            ('name = "Town"', 'name = "Town"\nprotected = true')]  # fmt: skip
    assert {changed(*pair) for pair in same} == {schema.digest}
    reference = schema.by_name["opened_on_days"].reference
    other = [(reference, "2001-01-01"), ('part = "month"', 'part = "hour"'),
             ("DD.MM.YYYY", "DD/MM/YYYY"), ('    "yes",\n', ""), ('"no"', '"nay"')]  # fmt: skip
    assert len({changed(*pair) for pair in other} | {schema.digest}) == len(other) + 1


def test_targets(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,grade,dpd\n" + "".join(f"{i % 7},{'ABCD'[i % 4]},{i % 100}\n" for i in range(400)))  # fmt: skip

    def target(name, **goal):
        return infer(path, name, Options(goal=Goal(**goal))).schema.target

    with pytest.raises(
        SchemaError, match=r"4 values; exactly two.*'A' \(100\), 'B' \(100\).*--bad A,B"
    ):
        target("grade")
    found = target("grade", bad=("C, D",))
    assert ((found.good, *found.also_good), (found.bad, *found.also_bad)) == (
        ("A", "B"),
        ("C", "D"),
    )
    with pytest.raises(SchemaError, match="'D' are neither good nor bad"):
        target("grade", good=("A", "B"), bad=("C",))
    with pytest.raises(SchemaError, match="not 'E'"):
        target("grade", bad=("E",))
    with pytest.raises(SchemaError, match="every value is in one class"):
        target("grade", bad=("A,B,C,D",))
    with pytest.raises(SchemaError, match="in --good and in --bad"):
        target("grade", good=("A",), bad=("A",))
    assert target("dpd", above=90).bad_above == 90
    with pytest.raises(SchemaError, match="from 0 to 99; the bound leaves one class empty"):
        target("dpd", below=-1)
    with pytest.raises(SchemaError, match="'A' is no number"):
        target("grade", below=1)
    with pytest.raises(SchemaError, match="give one of"):
        target("dpd", below=1, above=2)
    schema = infer(path, "dpd", Options(goal=Goal(below=9.0))).schema
    fitted, tokens = encrypted(tmp_path, path, schema)
    assert tokens.label.sum() == 40
    assert parse_schema(format_schema(fitted)).target.bad_below == 9.0
    path.write_text(path.read_text() + "1,A,x\n")
    with pytest.raises(RecordError, match=r"record 400, field 'dpd': 'x'.*allowed: a number"):
        check_table(find_table(schema, path), schema)


def test_a_table_without_a_header(tmp_path):
    path, body = tmp_path / "raw.data", "".join(f"{i}\t{i % 3}.5\tx{i % 2}\t{i % 2}\n" for i in range(90))  # fmt: skip
    path.write_text(body)
    schema = infer(path, "c4", Options(header=False)).schema
    assert [f.name for f in schema.fields] == ["c2", "c3"]
    fitted, tokens = encrypted(tmp_path, path, schema)
    assert tokens.rows == 90
    # The same rows with a header, such as `cipherscore data --out` writes, are read as well.
    (tmp_path / "head.csv").write_text("c1\tc2\tc3\tc4\n" + body)
    assert check_table(find_table(fitted, tmp_path / "head.csv"), fitted) == 90
    # A file to be scored may lack the target.
    (tmp_path / "new").write_text("\n".join(line[:-2] for line in body.splitlines()) + "\n")
    again = encrypt_table(
        find_table(fitted, tmp_path / "new"), fitted, KEYS, tmp_path / "u", labelled=False
    )
    assert again.rows == 90
    unlabelled = read_tokens(tmp_path / "u").columns
    for name, column in tokens.columns.items():
        assert unlabelled[name].dictionary == column.dictionary
        assert (unlabelled[name].indices == column.indices).all()


def test_an_old_compressed_file_gives_the_same_tokens(tmp_path, messy):
    rows = [{k.replace("€", "EUR"): v for k, v in row.items()} for row in messy_rows()]
    path = write(tmp_path / "Messy Table.csv", rows)
    old = write(tmp_path / "latin.csv", rows, "\t", "latin-1")
    packed = tmp_path / "Messy Table.csv.xz"
    packed.write_bytes(lzma.compress(old.read_bytes()))
    schema, found = messy_schema(path).schema, messy_schema(packed).schema
    assert (found.source.encoding, found.source.decimal) == ("latin-1", ",")
    assert found.fields == schema.fields
    one = encrypted(tmp_path, path, schema)[1]
    other = encrypted(tmp_path, packed, found)[1]
    for name, column in one.columns.items():
        assert other.columns[name].dictionary == column.dictionary
        assert (other.columns[name].indices == column.indices).all()


def test_few_stray_texts_among_numbers_mean_absent(tmp_path):
    values = [f"{i * 7 % 101}.5" for i in range(200)]
    values[7], values[9] = "unknown", "-"
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{v},{i % 2}\n" for i, v in enumerate(values)))
    found = infer(path, "y", Options())
    a = found.schema.by_name["a"]
    assert (a.kind, a.missing, a.missing_values) == ("numeric", "level", ("-", "unknown"))
    assert any("among numbers mean(s) no value" in remark for remark in found.remarks)
    encrypted(tmp_path, path, found.schema)


def test_options_name_columns_that_are_there(messy):
    for options in ({"group": "x"}, {"categorical": ("x",)}, {"protected": ("x",)}, {"drop": ("x",)}):  # fmt: skip
        with pytest.raises(SchemaError, match="no column 'x'; columns: #1, Kunden-Nr"):
            infer(messy, "paid", Options(**options))
    with pytest.raises(SchemaError, match="cannot be the target"):
        infer(messy, "paid", Options(group="paid"))
    goal = Goal(bad=("no",))
    found = infer(messy, "paid", Options(goal=goal, protected=("Town",), drop=("split",)))
    assert found.schema.by_name["Town"].protected
    assert "split" in found.schema.dropped
    assert any("'Kunden-Nr'" in r and "--group" in r for r in found.remarks) is False  # not sorted


CELLS = {
    "numbers": st.integers(-9, 99).map(str) | st.floats(-1e6, 1e6).map(str),
    "commas": st.floats(-99, 99).map(lambda x: f"{x:.2f}".replace(".", ",")),
    "dates": st.dates(dt.date(1970, 1, 1)).map(lambda day: day.strftime("%m/%d/%Y")),
    "codes": st.sampled_from(["a", "b ", " b", "1", "1.0", "TRUE", "(other)", "<missing>", "é"]),
    "any": st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=9
    ),
    "absent": st.sampled_from(["", "?", "NA", "null", "NaN", " "]),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(25, 60))
    names = draw(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=9),
                          min_size=1, max_size=4))  # fmt: skip
    columns = []
    for _ in names:
        kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=2))
        cells = draw(st.lists(st.one_of([CELLS[kind] for kind in kinds]), min_size=1, max_size=40))
        r = random.Random(draw(st.integers(0, 99)))
        columns.append([r.choice(cells) for _ in range(rows)])
    target = [str(i % 2) for i in range(rows)]
    return [[*names, "the target"], *map(list, zip(*columns, target, strict=True))]


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(tables(), st.sampled_from(",;\t|"))
def test_any_table_gives_a_schema_that_encrypts_or_a_clear_error(
    tmp_path_factory, table, delimiter
):
    folder = tmp_path_factory.mktemp("any")
    path = folder / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(table)
    try:
        schema = infer(path, "the target", Options()).schema
        assert parse_schema(format_schema(schema)) == schema
        raw = find_table(schema, path)
        rows = check_table(raw, schema)
        made = encrypt_table(raw, schema, KEYS, folder / "t")
    except CipherScoreError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 3000
        return
    assert rows == made.rows == len(table) - 1
    codec = RecordCodec(FieldCipher(KEYS, made.schema))
    tokens = read_tokens(folder / "t")
    for row, record in enumerate(read_records(raw, schema, list(range(0, rows, 5)))):
        assert codec.encode(record) == {
            name: c.dictionary[c.indices[5 * row]] for name, c in tokens.columns.items()
        }


def test_financial_distress_is_split_by_company(tmp_path):
    path = real_table("financial_distress/financial_distress.csv.gz")
    options = Options(goal=Goal(below=-0.5), group="Company", categorical=("x80",))
    schema = infer(path, "Financial Distress", options).schema
    assert len(schema.fields) == 84
    fitted, tokens = encrypted(tmp_path, path, schema)
    assert tokens.label.sum() == 136
    companies = np.concatenate(
        [batch.column("Company").to_pylist() for batch in find_table(fitted, path).batches()]
    )
    parts = [set(companies[tokens.split == part]) for part in (TRAIN, VALIDATION, TEST)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 422
    for part, share in ((TRAIN, 0.64), (VALIDATION, 0.16), (TEST, 0.2)):
        assert abs(tokens.label[tokens.split == part].sum() / 136 - share) < 0.02
