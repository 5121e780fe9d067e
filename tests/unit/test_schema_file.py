"""Schema files: round trip, the built-in ones, and files made to fail."""

import csv
import re

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.dates import FORMS, PARTS
from cipherscore.errors import SchemaError
from cipherscore.schema import (
    MISSING_LEVEL,
    OTHER_LEVEL,
    Binning,
    Field,
    Grouping,
    Schema,
    Source,
    Target,
)
from cipherscore.schema_file import (
    BUILT_IN_FOLDER,
    built_in_names,
    format_schema,
    load_schema,
    parse_schema,
    save_schema,
)

NAMES = (  # noqa: SIM905 - easier to read
    "existingchecking duration credithistory purpose creditamount savings employmentsince "
    "installmentrate statussex otherdebtors residencesince property age otherinstallmentplans "
    "housing existingcredits job peopleliable telephone foreignworker"
).split()


def content(**changes):
    base = {
        "format": 1,
        "name": "s",
        "target": {"name": "y", "good": "0", "bad": "1"},
        "field": [{"name": "f", "kind": "categorical", "categories": {"a": "first"}}],
    }
    return {**base, **changes}


def field(**changes):
    return content(field=[{"name": "f", "kind": "numeric", "edges": [1, 2.5], **changes}])


@pytest.mark.parametrize("name", built_in_names())
def test_built_in_schemas_survive_a_round_trip(name, tmp_path):
    schema = load_schema(name)
    save_schema(schema, tmp_path / "s.toml")
    assert load_schema(tmp_path / "s.toml") == schema
    assert tuple(schema.by_name) == tuple(NAMES)
    assert (schema.target.name, schema.target.good, schema.target.bad) == (
        "classification",
        "1",
        "2",
    )
    assert (schema.target.cost_false_good, schema.target.cost_false_bad) == (5.0, 1.0)
    assert schema.source.sha256.startswith("b21f3d81db80")
    assert all(f.description for f in schema.fields)
    protected = {f.name for f in schema.fields if f.protected}
    assert protected == {"statussex", "age", "foreignworker"}
    assert all(all(f.categories.values()) for f in schema.fields)


def test_capstone_edges_are_the_published_ones(capstone_schema):
    edges = {f.name: f.edges for f in capstone_schema.fields if f.kind == "numeric"}
    assert edges["duration"] == (4, 21, 38, 55, 72)
    assert edges["creditamount"] == (250, 4793.5, 9337, 13880.5, 18424)
    assert edges["age"] == (19, 33, 47, 61, 75)
    assert len(edges) == 7
    assert sum(f.kind == "categorical" for f in capstone_schema.fields) == 13


def test_embedded_sample_fits_and_names_every_column():
    schema = load_schema("german-credit")
    with (BUILT_IN_FOLDER / schema.source.sample).open(encoding="utf-8") as stream:
        assert next(csv.reader(stream)) == [*NAMES, "classification"]


def test_file_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "s.toml"
    path.write_bytes(b"\xef\xbb\xbf" + tomli_w.dumps(content()).encode())
    assert load_schema(path).name == "s"


def test_whole_numbers_as_target_values():
    schema = parse_schema(tomli_w.dumps(content(target={"name": "y", "good": 1, "bad": 2})))
    assert (schema.target.good, schema.target.bad) == ("1", "2")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (content(format=2), "format = 2 is unknown; known: 1"),
        (content(format="1"), "format = '1' is unknown"),
        (content(fields=[]), "unknown entry 'fields'; known: dropped, field"),
        (content(name=5), "name = 5 has the wrong type; give a text"),
        (content(version="1"), "give a whole number"),
        (content(version=True), "give a whole number"),
        (content(source="x.csv"), "give a table of entries"),
        (content(source={"file": "x"}), "source: unknown entry 'file'"),
        (content(source={"header": 1}), "give true or false"),
        (content(source={"delimiter": ",,"}), "single character"),
        (content(target={"name": "y", "good": "0"}), "target: entry 'bad' is missing"),
        (content(target={"name": "y", "good": True, "bad": False}), "target: good = True"),
        (content(target={"name": "y", "good": "0", "bad": "1", "cost": 5}), "unknown entry 'cost'"),
        (content(target={"name": "y", "good": 1, "bad": "1"}), "two different values"),
        (content(field=[]), "has no field"),
        (content(field=["f"]), "field: 'f' is no table"),
        (content(field=[{"kind": "numeric"}]), "field: entry 'name' is missing"),
        (content(field=[{"name": "f"}]), "field 'f': entry 'kind' is missing"),
        (content(field=[{"name": 3, "kind": "numeric"}]), "name = 3 has the wrong type"),
        (field(edges="123"), "edges = '123' has the wrong type; give a list"),
        (field(edges=[1, "2"]), "edges is a list of numbers"),
        (field(edges=[1, True]), "edges is a list of numbers"),
        (field(edges=[10**400, 1]), "too large"),
        (field(edges=[2, 1]), "rising"),
        (field(range=[1]), "range is [lowest, highest], not 1"),
        (field(range=[2, 1]), "range must be"),
        (field(missing="drop"), "missing must be"),
        (field(missing_values="NA"), "give a list"),
        (field(missing_values=[999]), "missing_values is a list of texts"),
        (field(categories={"a": 1}), 'code = "meaning"'),
        (field(binning={"method": "tree"}), "entry 'bins' is missing"),
        (field(binning={"method": "tree", "bins": 2.5}), "give a whole number"),
        (field(binning={"method": "tree", "bins": 1}), "bins must be 2 to 4096"),
        (field(binning={"method": "magic", "bins": 3}), "'magic' is unknown"),
        (field(bins=3), "unknown entry 'bins'"),
        (field(grouping={"most": 3}), "entry 'least' is missing"),
        (field(grouping={"most": 3, "least": 2}), "other and grouping are for categorical"),
        (field(protected=1), "give true or false"),
        (field(part="days", date="YYYY-MM-DD"), "needs a reference"),
        (content(group="y"), "the target cannot be the group"),
        (content(group="f"), "reads the column of the target or the group"),
        (field(column="y"), "reads the column of the target or the group"),
        (content(dropped=[1]), "dropped is a list of texts"),
        (content(source={"encoding": "utf-7"}), "known: utf-8, latin-1"),
        (content(source={"decimal": ";"}), "must be '.' or ','"),
        (content(source={"columns": ["a", "a"]}), "a name occurs twice in columns"),
        (content(target={"name": "y", "good": [], "bad": "1"}), "target: good is a value or a list"),
        (content(target={"name": "y", "good": ["0", True], "bad": "1"}), "target: good is a value"),
        (content(target={"name": "y", "good": ["0", 1], "bad": "1"}), "a value is named twice"),
        (content(target={"name": "y", "good": "0", "bad": "1", "bad_below": True}), "give a whole number or a number"),
        (content(target={"name": "y", "good": "0", "bad": "1", "bad_below": 1, "bad_above": 2}), "give one of bad_below"),
    ],
)  # fmt: skip
def test_wrong_documents_are_refused_in_one_line(document, message, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
    with pytest.raises(SchemaError, match=re.escape(message)) as caught:
        load_schema(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["name", "target", "field"])
def test_missing_entries(key):
    document = content()
    del document[key]
    with pytest.raises(SchemaError, match=f"entry '{key}' is missing"):
        parse_schema(tomli_w.dumps(document))


@pytest.mark.parametrize(
    "junk",
    [b"", b"format", b"\xff\xfe", b"{}", b"\x00", b"a = " + b"[" * 100_000, b"a" * 10_000_000],
    ids=len,
)
def test_junk_is_no_schema(tmp_path, junk):
    path = tmp_path / "s.toml"
    path.write_bytes(junk)
    with pytest.raises(SchemaError) as caught:
        load_schema(path)
    assert len(str(caught.value)) < 500


def test_unknown_schemas_name_the_built_in_ones(tmp_path):
    for name in ("germancredit", tmp_path, tmp_path / "none.toml", "a\x00b", "x" * 10_000_000):
        with pytest.raises(SchemaError, match="german-credit, german-credit-capstone") as caught:
            load_schema(name)
        assert len(str(caught.value)) < 500


def test_saving_keeps_the_old_file_when_the_disk_is_full(tmp_path, small_schema, monkeypatch):
    path = tmp_path / "s.toml"
    save_schema(small_schema, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_schema(load_schema("german-credit"), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.toml"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
CODES = TEXT.filter(lambda text: text.strip() and text != MISSING_LEVEL and text.strip() != "?")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NUMERIC = st.builds(
    lambda edges, **rest: Field(kind="numeric", edges=tuple(sorted(edges)), **rest),
    name=st.just("n"),
    edges=st.lists(NUMBERS, min_size=2, max_size=6, unique_by=lambda v: v + 0.0),
    unit=TEXT,
    description=TEXT,
    missing=st.sampled_from(["error", "level"]),
    missing_values=st.lists(TEXT, max_size=3).map(tuple),
    valid_range=st.none() | st.tuples(NUMBERS, NUMBERS).map(lambda pair: tuple(sorted(pair))),
    column=TEXT.filter(lambda text: text not in ("y", "c", "g")),
    protected=st.booleans(),
    binning=st.none()
    | st.builds(Binning, st.sampled_from(["tree", "uniform"]), st.integers(2, 99)),
)
CATEGORICAL = st.builds(
    Field,
    name=st.just("c"),
    kind=st.just("categorical"),
    categories=st.dictionaries(CODES, TEXT, min_size=1, max_size=6),
    missing_values=st.sampled_from([(), ("?",)]),
)
GROUPED = st.builds(
    lambda codes, most: Field(
        "c", "categorical", categories=codes, other=True, grouping=Grouping(most, 5)
    ),
    st.dictionaries(CODES.filter(lambda text: text != OTHER_LEVEL), TEXT, max_size=6),
    st.integers(1, 9),
)
DATED = st.builds(
    lambda part, form: Field(
        "d", "numeric", edges=(0.0, 1.0), column="when", part=part, date=form,
        reference="2024-02-29" if part == "days" else "",
    ),
    st.sampled_from(PARTS),
    st.sampled_from(list(FORMS)),
)  # fmt: skip
TARGETS = st.builds(
    Target, st.just("y"), st.just("0"), st.just("1"), st.floats(0.1, 9), st.floats(0.1, 9), TEXT
) | st.one_of(
    st.builds(Target, st.just("y"), st.just("0"), st.just("1"), also_bad=st.just(("2", "x"))),
    st.builds(Target, st.just("y"), st.just("a"), st.just("b"), bad_below=NUMBERS),
    st.builds(Target, st.just("y"), st.just("a"), st.just("b"), bad_above=NUMBERS),
)
SCHEMAS = st.builds(
    Schema,
    name=st.just("any"),
    fields=st.tuples(NUMERIC, CATEGORICAL | GROUPED, DATED),
    target=TARGETS,
    version=st.integers(1, 9),
    title=TEXT,
    source=st.builds(
        Source,
        delimiter=st.sampled_from(",;\t |"),
        header=st.booleans(),
        columns=st.lists(TEXT, max_size=3, unique=True).map(tuple),
        encoding=st.sampled_from(["utf-8", "latin-1"]),
        decimal=st.sampled_from([".", ","]),
    ),
    group=st.sampled_from(["", "g"]),
    dropped=st.lists(TEXT, max_size=3).map(tuple),
)


@given(SCHEMAS)
def test_any_schema_survives_a_round_trip(schema):
    again = parse_schema(format_schema(schema))
    assert again == schema
    if schema.fitted:
        assert again.digest == schema.digest
