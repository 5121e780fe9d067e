"""Fields, levels and schemas: what is accepted, what is refused, and what the host sees."""

import json
import math
import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.dataset import LABEL_COLUMN, SPLIT_COLUMN
from cipherscore.errors import RecordError, SchemaError
from cipherscore.field import MAX_LEVEL_LENGTH, number_of
from cipherscore.schema import (
    MAX_LEVELS,
    MISSING_LEVEL,
    RESERVED_NAMES,
    Binning,
    Field,
    PublicSchema,
    Schema,
    Source,
    Target,
)

TARGET = Target("y", "0", "1")


def KIND(value):
    """Name a test case; the values themselves can be megabytes."""
    return type(value).__name__


def numeric(**settings):
    return Field("f", "numeric", **{"edges": (0.0, 10.0, 20.0), **settings})


def codes(*names, **settings):
    return Field("f", "categorical", categories=dict.fromkeys(names, ""), **settings)


def test_levels_of_a_numeric_field_are_half_open_intervals():
    field = numeric(edges=(4, 21, 38.5, 72), missing="level")
    assert field.levels == ("[4, 21)", "[21, 38.5)", "[38.5, 72]", MISSING_LEVEL)
    given = [4, 20.999, 21, 38.5, 72, -5, 1000]
    assert [field.levels.index(field.level_of(value)) for value in given] == [0, 0, 1, 2, 2, 0, 2]


@pytest.mark.parametrize(
    "value", [6, 6.0, "6", " 6 ", "6.0", "+6", "6e0", "0.6E1", "006", np.int64(6), np.float32(6),
              Decimal(6), Fraction(6)],
)  # fmt: skip
def test_spellings_of_a_number(value):
    assert numeric().check_number(value) == 6.0


@pytest.mark.parametrize(
    "value",
    [None, "", " ", "x", "nan", "inf", "-inf", "infinity", "1_0", "0x6", "6 7", "6,5", "٦", "6\x00",
     math.nan, math.inf, -math.inf, True, False, b"6", [6], {"a": 6}, 10**400, "1e400",
     Decimal("NaN"), Decimal("sNaN"), 10**5000, 1j, object()],
    ids=KIND,
)  # fmt: skip
@pytest.mark.parametrize("field", [numeric(), numeric(valid_range=(0.0, 20.0))])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(RecordError, match=r"^record 3, field 'f': .* is not allowed; allowed: "):
        field.level_of(value, 3)


def test_range_is_closed():
    field = numeric(valid_range=(-1.0, 30.0), unit="months")
    assert [field.level_of(v) for v in (-1, 30)] == ["[0, 10)", "[10, 20]"]
    for value in (-1.0001, 30.5, "31"):
        with pytest.raises(RecordError, match="a number from -1 to 30 months"):
            field.level_of(value)


@pytest.mark.parametrize("value", [None, "", "  ", "?", " ? ", "NA", math.nan, 999, "999", "999.0"])
def test_absent_values_have_a_level_or_are_refused(value):
    texts = ("?", " NA", "999")
    assert numeric(missing="level", missing_values=texts).level_of(value) == MISSING_LEVEL
    with pytest.raises(RecordError):
        numeric(missing_values=texts).level_of(value)


def test_absent_category():
    field = codes("a", "999", missing="level", missing_values=("?",))
    assert [field.level_of(v) for v in (None, "", "?", math.nan, " ")] == [MISSING_LEVEL] * 5
    assert field.level_of(999) == "999"
    with pytest.raises(RecordError, match="or absent"):
        field.level_of("b")
    with pytest.raises(RecordError):
        codes("a").level_of(None)


@pytest.mark.parametrize(
    ("value", "code"),
    [(1, "1"), (1.0, "1"), ("1", "1"), (" 1\t", "1"), (True, "True"), (0.5, "0.5"),
     (np.int8(1), "1"), (np.float64(1), "1"), (" pad", " pad"), ("2.0", "2.0"), (2.0, "2.0")],
)  # fmt: skip
def test_spellings_of_a_category(value, code):
    assert codes("1", "True", "0.5", " pad", "2.0").level_of(value) == code


@pytest.mark.parametrize(
    "value", [None, "", "3", "1.0", 3, b"1", ["1"], 10**5000, "x" * 10**7, "\ud800"], ids=KIND
)
def test_unknown_categories_are_refused_in_one_short_line(value):
    with pytest.raises(RecordError) as caught:
        codes("1", "2").level_of(value)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
    assert "allowed: 1, 2" in str(caught.value)


def test_long_category_lists_are_cut_in_messages():
    field = codes(*(f"c{i}" for i in range(MAX_LEVELS)))
    with pytest.raises(RecordError, match=r"c11, … \(4096 codes\)"):
        field.level_of("x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "text"}, "kind 'text' is unknown"),
        ({"kind": "categorical"}, "0 categories; allowed: 1 to 4096"),
        ({"categories": dict.fromkeys(map(str, range(MAX_LEVELS + 1)), "")}, "4097 categories"),
        ({"categories": {"": "x"}}, "1 to 255 bytes"),
        ({"categories": {"  ": "x"}}, "only blanks"),
        ({"categories": {"ä" * 128: "x"}}, "1 to 255 bytes"),
        ({"categories": {"\ud800": "x"}}, "1 to 255 bytes"),
        ({"categories": {MISSING_LEVEL: "x"}}, "is not '<missing>'"),
        ({"categories": {"?": ""}, "missing_values": (" ?",)}, "drop one"),
        ({"kind": "numeric"}, "needs edges or a binning"),
        ({"kind": "numeric", "edges": (1.0,)}, "two or more rising"),
        ({"kind": "numeric", "edges": (1.0, 1.0)}, "two or more rising"),
        ({"kind": "numeric", "edges": (2.0, 1.0)}, "two or more rising"),
        ({"kind": "numeric", "edges": (1.0, math.nan)}, "two or more rising"),
        ({"kind": "numeric", "edges": (1.0, math.inf)}, "two or more rising"),
        ({"kind": "numeric", "edges": tuple(map(float, range(MAX_LEVELS + 1)))}, "at most 4096"),
        ({"kind": "numeric", "edges": (1.0, 2.0), "valid_range": (2.0, 1.0)}, "range must be"),
        ({"kind": "numeric", "edges": (1.0, 2.0), "valid_range": (0.0, math.nan)}, "range must be"),
        ({"categories": {"a": ""}, "missing": "drop"}, "'error' or 'level'"),
        ({"name": " ", "categories": {"a": ""}}, "needs a name"),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused(settings, message):
    with pytest.raises(SchemaError, match=re.escape(message)):
        Field(**{"name": "f", "kind": "categorical", **settings})


def test_longest_code_and_most_bins_are_accepted():
    assert codes("x" * MAX_LEVEL_LENGTH).levels == ("x" * MAX_LEVEL_LENGTH,)
    assert len(numeric(edges=tuple(map(float, range(MAX_LEVELS)))).levels) == MAX_LEVELS - 1


@pytest.mark.parametrize(
    ("method", "bins"), [("median", 3), ("", 3), ("tree", 1), ("tree", -1), ("tree", 4097)]
)
def test_wrong_binnings_are_refused(method, bins):
    with pytest.raises(SchemaError, match="binning"):
        Binning(method, bins)


@pytest.mark.parametrize(
    "change",
    [{"bad": "0"}, {"cost_false_good": 0.0}, {"cost_false_bad": -1.0}, {"cost_false_bad": math.inf},
     {"cost_false_good": math.nan}],
)  # fmt: skip
def test_wrong_targets_are_refused(change):
    with pytest.raises(SchemaError, match="'y'"):
        replace(TARGET, **change)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "/etc/passwd"}, "inside its folder"),
        ({"path": "a/../../b"}, "inside its folder"),
        ({"sample": "../x.csv"}, "plain file name"),
        ({"url": "https://example.org/x"}, "an url needs one"),
        ({"sha256": "AB" * 32}, "lower-case"),
        ({"delimiter": ""}, "single character"),
        ({"delimiter": ", "}, "single character"),
        ({"delimiter": "\n"}, "single character"),
        ({"delimiter": "§"}, "single character"),
    ],
)  # fmt: skip
def test_wrong_sources_are_refused(settings, message):
    with pytest.raises(SchemaError, match=message):
        Source(**settings)


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a--b", "a\n", "ä", "x" * 53, "x" * 10**7], ids=KIND
)
def test_wrong_schema_names_are_refused(name):
    with pytest.raises(SchemaError, match="small letters") as caught:
        Schema(name, (codes("a"),), TARGET)
    assert len(str(caught.value)) < 250


def test_fields_named_twice_or_reserved_are_refused():
    field = codes("a")
    assert RESERVED_NAMES == (LABEL_COLUMN, SPLIT_COLUMN)
    for fields, message in [
        ((), "has no field"),
        ((field, field), "'f' is named twice"),
        ((replace(field, name="y"),), "'y' is named twice"),
        ((replace(field, name="split"),), "rename it"),
        ((replace(field, name="label"),), "rename it"),
    ]:
        with pytest.raises(SchemaError, match=message):
            Schema("s", fields, TARGET)
    with pytest.raises(SchemaError, match="version"):
        Schema("s", (field,), TARGET, version=0)
    Schema("s", (field,), replace(TARGET, name="label"))


def test_unfitted_schema_has_no_levels(small_schema):
    assert not small_schema.fitted
    with pytest.raises(SchemaError, match="'size' has no bin edges yet"):
        _ = small_schema.by_name["size"].levels
    with pytest.raises(SchemaError, match="cipherscore encrypt"):
        _ = small_schema.digest
    assert small_schema.with_edges({"size": (0.0, 1.0)}).fitted


def test_digest_covers_what_a_token_stands_for(small_schema):
    fitted = small_schema.with_edges({"size": (0.0, 1.0, 2.0)})
    changed = [
        replace(fitted, name="other"),
        replace(fitted, version=2),
        replace(fitted, fields=fitted.fields[::-1]),
        replace(fitted, target=replace(fitted.target, bad="worse")),
        fitted.with_edges({"size": (0.0, 1.5, 2.0)}),
        replace(fitted, fields=(replace(fitted.fields[0], missing="level"), fitted.fields[1])),
    ]
    assert len({schema.digest for schema in [fitted, *changed]}) == 7
    described = replace(fitted, title="words", source=Source(path="x.csv"))
    assert described.digest == fitted.digest


def test_public_schema_shows_no_category_and_no_edge(capstone_schema):
    public = capstone_schema.public()
    text = public.to_json()
    assert PublicSchema.from_json(text) == public
    assert json.loads(text).keys() == {
        "name", "digest", "fields", "target", "cost_false_good", "cost_false_bad",
    }  # fmt: skip
    assert all(entry.keys() == {"name", "kind"} for entry in json.loads(text)["fields"])
    for field in capstone_schema.fields:
        for level, meaning in field.categories.items():
            assert level not in text
            assert meaning not in text
        assert not any(repr(edge) in text for edge in field.edges if edge > 100)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("digest"),
        lambda d: d.update(extra=1),
        lambda d: d.update(fields=[]),
        lambda d: d.update(fields=d["fields"] * 2),
        lambda d: d.update(fields=[{"name": "a", "kind": "text"}]),
        lambda d: d.update(fields=[{"name": 5, "kind": "numeric"}]),
        lambda d: d.update(fields=["a"]),
        lambda d: d.update(name=5),
        lambda d: d.update(name=""),
        lambda d: d.update(cost_false_bad=0),
        lambda d: d.update(cost_false_bad="1"),
        lambda d: d.update(cost_false_bad=True),
        lambda d: d.update(cost_false_bad=math.inf),
    ],
)
def test_changed_public_schemas_are_refused(capstone_schema, change):
    document = json.loads(capstone_schema.public().to_json())
    change(document)
    with pytest.raises(SchemaError, match="not a public schema"):
        PublicSchema.from_json(json.dumps(document))


@pytest.mark.parametrize("junk", ["", "[]", "null", "{", '"a"', "[" * 100_000, "\x00"], ids=KIND)
def test_junk_is_no_public_schema(junk):
    with pytest.raises(SchemaError, match="not a public schema"):
        PublicSchema.from_json(junk)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_and_its_text_are_one(number):
    assert number_of(number) == number_of(repr(number)) == number


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=9, unique=True),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_number_has_the_level_that_contains_it(edges, value):
    edges = sorted(edges)
    field = numeric(edges=tuple(edges))
    position = field.levels.index(field.level_of(value))
    assert position == 0 or value >= edges[position]
    assert position == len(edges) - 2 or value < edges[position + 1]
