"""Scorecards: schema entries, points and how attributes are dealt, sums of records and of tables."""

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from cipherscore import cli
from cipherscore.client.checking import check_table
from cipherscore.client.dealing import dealt, dependence
from cipherscore.client.encrypt import decrypt_table, encrypt_table
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import PASSPHRASE_VARIABLE, Keyset
from cipherscore.client.points import RIDGES, Levels, best_weights, choose_ridge, fit_weights
from cipherscore.client.records import RecordCodec
from cipherscore.client.scorecards import fit_points, summed
from cipherscore.client.sources import from_arrow
from cipherscore.client.splits import stratified_split
from cipherscore.client.tables import encode_batch
from cipherscore.dataset import TRAIN, read_tokens
from cipherscore.errors import DataError, RecordError, SchemaError
from cipherscore.schema import Binning, Field, Grouping, Schema, Scorecards, Smoothing, Target
from cipherscore.schema_file import format_schema, load_schema, parse_schema
from cipherscore.scorecards import planned_fields
from evaluation.fairness import groups_of, protected_fields
from evaluation.folds import Fold, RawData, in_plain, token_dataset
from evaluation.oversampling import smote_rows
from evaluation.overview import cramers_v, overview
from tests.conftest import CHEAP_KDF

KEYS = Keyset("0badcafe", {"0badcafe": bytes(range(32)), "0000beef": bytes(32)})
HEAD = """
format = 1
name = "cards"
[target]
name = "y"
good = "ok"
bad = "bad"
"""
CARDS = "[scorecards]\ncount = 2\nlevels = 4\n"
FIELDS = """
[[field]]
name = "colour"
kind = "categorical"
categories = {r = "red", g = "green"}
[[field]]
name = "size"
kind = "numeric"
edges = [0, 1, 2]
"""
POINTS = """
[[field]]
name = "colour"
kind = "categorical"
categories = {r = "red", g = "green"}
scorecard = 2
points = {r = 5, g = -3}
[[field]]
name = "size"
kind = "numeric"
edges = [0, 1, 2]
scorecard = 1
points = {"[0, 1)" = 7, "[1, 2]" = -7}
[[scorecard]]
name = "scorecard_1"
kind = "numeric"
edges = [-7, 0, 7]
[[scorecard]]
name = "scorecard_2"
kind = "numeric"
edges = [-3, 1, 5]
"""


def schema_of(count=2, levels=4, views=1, **entries):
    """A schema of every kind of attribute, nothing fitted."""
    attributes = (
        Field("colour", "categorical", categories={"r": "red", "g": "green"}, missing="level"),
        Field("town", "categorical", grouping=Grouping(3, 1), other=True, missing="level"),
        Field("size", "numeric", binning=Binning("quantile", 3), missing="level", column="Size!"),
        Field("age", "numeric", edges=(18.0, 40.0, 80.0), valid_range=(0.0, 120.0)),
    )
    return Schema(
        "cards", planned_fields(count, levels, views), Target("y", good="ok", bad="bad"),
        scorecards=Scorecards(attributes), **entries,
    )  # fmt: skip


def table_of(rows=400, seed=0):
    generator = np.random.default_rng(seed)
    bad = generator.random(rows) < 0.4
    size = generator.normal(50 + 12 * bad, 10)
    color = np.where(generator.random(rows) < 0.3 + 0.4 * bad, "r", "g").astype(object)
    color[::17] = None
    return pa.table({
        "colour": color,
        "town": generator.choice(list("abcdefg"), rows, p=[0.4, 0.3, 0.2, 0.025, 0.025, 0.025, 0.025]),
        "Size!": pa.array(np.where(generator.random(rows) < 0.05, np.nan, size), from_pandas=True),
        "age": generator.integers(18, 80, rows) - 5 * bad,
        "y": np.where(bad, "bad", "ok"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("cards") / "tokens.parquet"
    return encrypt_table(from_arrow(table_of()), schema_of(), KEYS, out), out


def test_a_file_with_scorecards_is_read_back_as_equal(made):
    planned = parse_schema(HEAD + CARDS + FIELDS)
    assert [f.name for f in planned.fields] == ["scorecard_1", "scorecard_2"]
    assert [f.binning for f in planned.fields] == [Binning("quantile", 4)] * 2
    assert [f.name for f in planned.inputs] == ["colour", "size"]
    assert planned.raw_names == ("colour", "size", "y")
    assert not planned.fitted
    text = format_schema(planned)
    assert parse_schema(text) == planned
    assert "[[scorecard]]" not in text  # count and levels can be edited
    smoothed = parse_schema(HEAD + CARDS + "[smoothing]\nmost_share = 0.1\n" + FIELDS)
    assert [f.smoothing for f in smoothed.fields] == [Smoothing(0.1)] * 2
    assert parse_schema(format_schema(smoothed)) == smoothed
    fitted = made[0].schema
    assert parse_schema(format_schema(fitted)) == fitted
    assert fitted.fitted


def test_points_by_hand():
    schema = parse_schema(HEAD + CARDS + POINTS)
    assert schema.fitted
    codec = RecordCodec(FieldCipher(KEYS, schema))
    tokens = codec.encode({"colour": "g", "size": 0.5})
    assert codec.decode(tokens) == {"scorecard_1": "[0, 7]", "scorecard_2": "[-3, 1)"}
    assert schema.public().fields[0].name == "scorecard_1"
    assert "colour" not in schema.public().to_json()


def test_the_digest_covers_points_and_members_and_levels():
    digests = [parse_schema(HEAD + CARDS + POINTS).digest]
    changes = (
        ("r = 5", "r = 6"), ("scorecard = 2", "scorecard = 1"), ("edges = [0, 1, 2]", "edges = [0, 2]"),
        ("edges = [-3, 1, 5]", "edges = [-3, 2, 5]"), ('r = "red", ', 'R = "red", '),
    )  # fmt: skip
    for old, new in changes:
        text = HEAD + CARDS + POINTS.replace(old, new)
        text = text.replace('scorecard = 1\npoints = {"[', 'scorecard = 2\npoints = {"[') if (
            old == "scorecard = 2"
        ) else text  # fmt: skip
        text = (
            text.replace('"[0, 1)" = 7, "[1, 2]" = -7', '"[0, 2]" = 7')
            if new == "edges = [0, 2]"
            else text
        )
        text = text.replace("r = 5", "R = 5") if new.startswith("R") else text
        digests.append(parse_schema(text).digest)
    assert len(set(digests)) == len(changes) + 1
    described = POINTS.replace('kind = "categorical"', 'kind = "categorical"\ndescription = "x"')
    assert parse_schema(HEAD + CARDS + described).digest == digests[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CARDS.replace("2", "0") + FIELDS, "count must be 1 to 64, not 0"),
        (CARDS.replace("4", "1") + FIELDS, "levels must be 2 to"),
        (CARDS + "views = 9\n" + FIELDS, "views must be 1 to 8, not 9"),
        (CARDS.replace("2", "3") + FIELDS, "3 of them need as many attributes; there are 2"),
        (CARDS.replace("levels = 4\n", "") + FIELDS, "entry 'levels' is missing"),
        (CARDS + FIELDS + "[field.smoothing]\nmost_share = 0.1\n", "'size'.*above the first"),
        (CARDS + FIELDS.replace("size", "scorecard_1"), "'scorecard_1' is named twice"),
        (CARDS + POINTS.replace("r = 5, ", ""), "'colour'.*points must name each level once; 'r'"),
        (CARDS + POINTS.replace("r = 5", "r = 0.5"), "whole number.*not 0.5"),
        (CARDS + POINTS.replace("scorecard = 2\n", ""), "both scorecard and points"),
        (CARDS + POINTS.replace("scorecard = 2", "scorecard = 1"), "each of 1 to 2 needs"),
        (CARDS + POINTS.replace("scorecard_2", "scorecard_7"), "'scorecard_1, scorecard_7'"),
        (CARDS + POINTS.replace("scorecard = 2\npoints = {r = 5, g = -3}\n", ""), "'colour'.*none"),
        (CARDS + POINTS.replace("edges = [-3", 'missing = "level"\nedges = [-3'), "never missing"),
        (POINTS, r"\[\[scorecard\]\] needs \[scorecards\]"),
        (FIELDS.replace('kind = "numeric"', 'kind = "numeric"\nscorecard = 1'), "unknown entry"),
    ],
)  # fmt: skip
def test_refusals(text, said):
    with pytest.raises(SchemaError, match=said):
        parse_schema(HEAD + text)


def test_fields_are_called_like_scorecards():
    schema = schema_of()
    odd = (replace(schema.fields[0], name="total"), schema.fields[1])
    with pytest.raises(SchemaError, match=r"are called scorecard_1.*not 'total, scorecard_2'"):
        replace(schema, fields=odd)


def levels_of(rows=600, seed=0, signal=1.0):
    """Three attributes of 2, 3 and 5 levels; the first two decide the label."""
    generator = np.random.default_rng(seed)
    levels = np.stack([generator.integers(0, size, rows) for size in (2, 3, 5)], axis=1)
    margin = signal * (2 * levels[:, 0] - 1 + 1.5 * (levels[:, 1] - 1))
    label = (generator.random(rows) < 1 / (1 + np.exp(-margin))).astype(np.int8)
    return levels, label


@pytest.mark.parametrize("ridge", [0.5, 10.0])
def test_weights_are_those_of_ridge_regression(ridge):
    levels, label = levels_of()
    indicators = np.concatenate([np.eye(n)[c] for n, c in zip((2, 3, 5), levels.T, strict=True)], 1)
    model = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000).fit(indicators, label)
    found = fit_weights(Levels.of(levels, (2, 3, 5)), label, ridge, np.zeros(11))
    np.testing.assert_allclose(found, [*model.intercept_, *model.coef_[0]], atol=2e-5)


def test_tables_of_levels_are_counted_in_parts(monkeypatch):
    levels, _ = levels_of(101)
    indexed, values = Levels.of(levels, (2, 3, 5)), np.random.default_rng(1).random(101)
    indicators = np.concatenate([np.eye(n)[c] for n, c in zip((2, 3, 5), levels.T, strict=True)], 1)
    monkeypatch.setattr("cipherscore.client.points.CELLS", 30)
    np.testing.assert_allclose(indexed.tables(values), indicators.T * values @ indicators)


def test_the_ridge_is_strong_where_there_is_nothing_to_learn():
    def chosen(seed, signal):
        levels, label = levels_of(300, seed, signal)
        return choose_ridge(Levels.of(levels, (2, 3, 5)), label)

    assert min(chosen(seed, 0.0) for seed in range(3)) >= RIDGES[1]
    assert max(chosen(seed, 1.5) for seed in range(3)) < RIDGES[2]
    assert chosen(0, 1.5) == chosen(0, 1.5)
    levels, _ = levels_of(50)
    one_class = np.zeros(50, np.int8)
    assert choose_ridge(Levels.of(levels, (2, 3, 5)), one_class) == RIDGES[0]


def test_many_rows_get_the_weights_of_all_rows(monkeypatch):
    levels, label = levels_of(3000)
    indexed = Levels.of(levels, (2, 3, 5))
    monkeypatch.setattr("cipherscore.client.points.TUNE_ROWS", 500)
    found = best_weights(indexed, label)
    ridge = choose_ridge(indexed.every(6), label[::6])
    expected = fit_weights(indexed, label, ridge, np.zeros(11))[1:]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    rare = np.zeros(3000, np.int8)
    rare[:40] = 1  # every sixth row of them would be too few to choose by
    assert np.isfinite(best_weights(indexed, rare)).all()


def test_points_are_against_the_mean_row():
    levels, label = levels_of()
    points = fit_points(Levels.of(levels, (2, 4, 5)), label)  # no row has the second's last level
    for own, column in zip(points, levels.T, strict=True):
        assert abs(own[column].mean()) <= 0.5
    assert points[1][3] == 0
    assert points[0][1] - points[0][0] == pytest.approx(200, abs=60)  # 2 log-odds, shrunk a little
    assert points[1][0] < points[1][1] < points[1][2]
    assert np.abs(points[2]).max() < 60


def test_dependence_is_cramers_v():
    levels, _ = levels_of()
    levels[:, 2] = (levels[:, 1] + (levels[:, 2] == 0)) % 3
    indexed = Levels.of(levels, (2, 3, 5))  # two of five levels have no row
    found = dependence(indexed)
    for first in range(3):
        for second in range(first):
            expected = cramers_v(levels[:, first].astype(int), levels[:, second].astype(int))
            assert found[first, second] == found[second, first] == pytest.approx(expected)
    assert found[1, 2] > 0.5


def test_dependent_attributes_are_dealt_together():
    generator = np.random.default_rng(0)
    base = generator.integers(0, 3, (2000, 3))
    noisy = np.where(generator.random((2000, 3)) < 0.1, generator.integers(0, 3, (2000, 3)), base)
    indexed = Levels.of(np.concatenate([base, noisy], axis=1), (3,) * 6)
    points = [np.array([-10, 0, 10])] * 6
    members = dealt(indexed, points, 3)
    assert members[:3] == members[3:]
    assert sorted(members) == [1, 1, 2, 2, 3, 3]
    assert sorted(dealt(indexed, points, 6)) == [1, 2, 3, 4, 5, 6]
    assert set(dealt(indexed, [np.zeros(3, int)] * 6, 4)) == {1, 2, 3, 4}


def test_only_sums_are_encrypted(made, tmp_path):
    encrypted, out = made
    schema = encrypted.schema
    tokens = read_tokens(out)
    assert list(tokens.columns) == ["scorecard_1", "scorecard_2"]
    assert all(f.fitted for f in schema.inputs)
    decrypt_table(out, schema, KEYS, tmp_path / "plain.csv")
    with (tmp_path / "plain.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    raw, cards = table_of().to_pylist(), schema.scorecards
    for plain, record in zip(rows, raw, strict=True):
        sums = {"scorecard_1": 0, "scorecard_2": 0}
        for f in schema.inputs:
            points = cards.points[f.name][f.level_of(record[f.source])]
            sums[f"scorecard_{cards.members[f.name]}"] += points
        assert plain == {n: schema.by_name[n].level_of(value) for n, value in sums.items()}
    train = tokens.split == TRAIN
    for column in tokens.columns.values():
        shares = np.bincount(column.indices[train]) / train.sum()
        assert shares.min() > 0.1  # four bins; few distinct sums make them uneven
        assert shares.max() < 0.45


def test_views_are_staggered_bins_of_one_sum(tmp_path):
    planned = parse_schema(HEAD + CARDS + "views = 2\n" + FIELDS)
    names = ["scorecard_1a", "scorecard_1b", "scorecard_2a", "scorecard_2b"]
    assert [f.name for f in planned.fields] == names
    assert parse_schema(format_schema(planned)) == planned
    assert "[[scorecard]]" not in format_schema(planned)
    out, table = tmp_path / "tokens.parquet", table_of(1200)
    schema = encrypt_table(from_arrow(table), schema_of(1, 4, 2), KEYS, out).schema
    assert set(schema.scorecards.members.values()) == {1}
    assert parse_schema(format_schema(schema)) == schema
    tokens = read_tokens(out)
    assert list(tokens.columns) == names[:2]
    sums = summed(table, schema)
    assert sums["scorecard_1a"].equals(sums["scorecard_1b"])
    first, second = (f.inner_edges for f in schema.fields)
    both = sorted([*first, *second])
    assert both[::2] == list(second)  # one between any two of the other's
    train = np.sort(np.asarray(sums["scorecard_1a"])[tokens.split == TRAIN])
    shares = np.diff(np.searchsorted(train, [train[0], *both])) / len(train)
    assert shares == pytest.approx(np.full(7, 1 / 8), abs=0.05)
    codec = RecordCodec(FieldCipher(KEYS, schema))
    for row, record in enumerate(table.slice(0, 50).to_pylist()):
        for name, token in codec.encode(record).items():
            column = tokens.columns[name]
            assert column.dictionary[column.indices[row]] == token


def test_nothing_is_fitted_on_rows_held_out(made, tmp_path):
    table = table_of()
    label = (table["y"].to_numpy(zero_copy_only=False) == "bad").astype(np.int8)
    train = stratified_split(label, 0) == TRAIN
    ages = np.where(train, table["age"].to_numpy(), 79)
    changed = table.set_column(3, "age", pa.array(ages))
    again = encrypt_table(from_arrow(changed), schema_of(), KEYS, tmp_path / "tokens.parquet")
    assert again.schema == made[0].schema
    ages = np.where(train, 79, table["age"].to_numpy())
    other = table.set_column(3, "age", pa.array(ages))
    again = encrypt_table(from_arrow(other), schema_of(), KEYS, tmp_path / "tokens.parquet")
    assert again.schema.scorecards.points != made[0].schema.scorecards.points


RECORDS = st.fixed_dictionaries({
    "colour": st.sampled_from(["r", "g", None, ""]),
    "town": st.sampled_from(["a", "b", "never seen", None, " a "]),
    "Size!": st.none() | st.floats(-1e6, 1e6),
    "age": st.integers(0, 120) | st.floats(0, 120),
})  # fmt: skip


@given(records=st.lists(RECORDS, min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_a_table_gets_the_tokens_of_its_records(records, made):
    schema = made[0].schema
    codec = RecordCodec(FieldCipher(KEYS, schema))
    table = pa.Table.from_pylist(records, schema=pa.schema([
        ("colour", pa.string()), ("town", pa.string()), ("Size!", pa.float64()), ("age", pa.float64()),
    ]))  # fmt: skip
    columns = encode_batch(table, codec)
    sums = summed(table, schema)
    for row, record in enumerate(records):
        tokens = codec.encode(record)
        for name, column in columns.items():
            assert column.dictionary[column.indices[row]] == tokens[name]
            level = schema.by_name[name].level_of(sums[name][row].as_py())
            assert codec.decode(tokens)[name] == level


def test_refused_values_name_attribute_row_and_what_is_allowed(made):
    codec = RecordCodec(FieldCipher(KEYS, made[0].schema))
    good = {"colour": "r", "town": "a", "Size!": 1, "age": 30}
    with pytest.raises(RecordError, match=r"record 3.*'colour'.*blue.*r, g") as caught:
        codec.encode({**good, "colour": "blue"}, 3)
    assert (caught.value.field, caught.value.row) == ("colour", 3)
    with pytest.raises(DataError, match="lacks field 'Size!'"):
        codec.encode({name: value for name, value in good.items() if name != "Size!"})
    with pytest.raises(DataError, match="does not know: 'scorecard_1'"):
        codec.encode({**good, "scorecard_1": 5})
    with pytest.raises(RecordError, match=r"row|record 1.*'age'.*0 to 120"):
        encode_batch(pa.Table.from_pylist([good, {**good, "age": 121}]), codec)
    with pytest.raises(RecordError, match="'age'"):
        check_table(from_arrow(table_of().set_column(3, "age", pa.array([-1] * 400))), schema_of())


def test_scorecards_may_be_smoothed(tmp_path):
    schema = schema_of(1, 4)
    smooth = tuple(replace(f, smoothing=Smoothing(0.05)) for f in schema.fields)
    out = tmp_path / "tokens.parquet"
    table = from_arrow(table_of())
    made = encrypt_table(table, replace(schema, fields=smooth), KEYS, out, draws=2)
    (column,) = read_tokens(out).columns.values()
    assert len(column.dictionary) > 12
    codec = RecordCodec(FieldCipher(KEYS, made.schema))
    levels = {codec.decode({"scorecard_1": token})["scorecard_1"] for token in column.dictionary}
    assert len(levels) == 4


def test_attributes_that_tell_nothing_are_refused(tmp_path):
    table = table_of()
    constant = table.set_column(0, "colour", pa.array(["r"] * 400))
    constant = constant.set_column(1, "town", pa.array(["a"] * 400))
    with pytest.raises(DataError, match=r"tell nothing about 'y'.*take fewer scorecards"):
        encrypt_table(from_arrow(constant), schema_of(4), KEYS, tmp_path / "tokens.parquet")


def test_an_evaluation_reads_attributes_and_encrypts_sums():
    schema = schema_of()
    attributes = schema.scorecards.attributes
    marked = (replace(attributes[0], protected=True), *attributes[1:])
    raw = RawData.read(replace(schema, scorecards=Scorecards(marked)), from_arrow(table_of()))
    fold = Fold(0, 0, np.arange(0, 300), np.arange(300, 400))
    dataset, codec = token_dataset(raw, fold, KEYS)
    assert list(dataset.columns) == ["scorecard_1", "scorecard_2"]
    assert codec.schema == raw.fitted(fold.train)
    assert [box["field"] for box in overview(raw)["numeric"]] == ["size", "age"]
    (field,) = protected_fields(raw)
    assert [group.value for group in groups_of(raw, field)] == ["<missing>", "g", "r"]
    made = smote_rows(raw, fold, in_plain(dataset, codec), 0)
    assert set(made.columns) == set(dataset.columns)
    assert (made.label == 1).all()


def test_from_infer_to_rotate(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("CIPHERSCORE_HOME", str(home))
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse battery")
    KEYS.save(home / "owner/keyset.json", "correct horse battery", CHEAP_KDF)
    raw = tmp_path / "raw.csv"
    pa.csv.write_csv(table_of(), raw)

    def run(*words):
        result = CliRunner().invoke(cli.app, list(map(str, words)))
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    own, owner = tmp_path / "own.toml", home / "owner/schema.toml"
    assert "4 attributes" in run(
        "schema", "infer", raw, "--target", "y", "--bad", "bad", "--scorecards", 2, "--out", own
    )
    assert load_schema(own).scorecards is not None
    assert "2 scorecards of 4 attributes" in run("encrypt", "--schema", own, "--data", raw)
    facts = json.loads(run("schema", "check", owner, "--data", raw, "--json"))
    assert [f["tokens"] for f in facts["fields"]] == [
        len(f.levels) for f in load_schema(owner).fields
    ]
    assert {f["scorecard"] for f in facts["attributes"]} == {1, 2}
    assert "not encrypted themselves" in run("schema", "check", owner)
    run("decrypt", home / "host/tokens.parquet", "--out", tmp_path / "plain.csv")
    assert (tmp_path / "plain.csv").read_text().startswith('"scorecard_1a","scorecard_1b",')
    run("keys", "rotate", "--map", tmp_path / "map.json")
    assert set(json.loads((tmp_path / "map.json").read_text())["fields"]) == {
        "scorecard_1a", "scorecard_1b", "scorecard_2a", "scorecard_2b",
    }  # fmt: skip
