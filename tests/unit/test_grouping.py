"""Which categories get a level of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.client.grouping import keep_categories
from cipherscore.errors import DataError, SchemaError
from cipherscore.levels import MISSING_LEVEL, OTHER_LEVEL
from cipherscore.schema import Field, Grouping


def grouped(most=3, least=5, **settings):
    return Field("f", "categorical", other=True, grouping=Grouping(most, least), **settings)


def kept(counts, rows=10_000, **settings):
    return list(keep_categories(grouped(**settings), counts, rows))


def test_the_frequent_ones_are_kept():
    counts = {"a": 5, "b": 4, "c": 900, "d": 7, "e": 6}
    assert kept(counts) == ["c", "d", "e"]
    assert kept(counts, most=9) == ["a", "c", "d", "e"]
    assert kept({"b": 9, "a": 9, "c": 9, "d": 1}, most=2) == ["a", "b"]  # ties go by the text


def test_the_rarest_makes_room_for_others_unless_it_is_frequent():
    assert kept({"a": 500, "b": 20}, rows=1000) == ["a"]
    assert kept({"a": 500, "b": 500}, rows=1000) == ["a", "b"]
    assert kept({"a": 9}, rows=9) == ["a"]


def test_something_is_kept_where_nothing_is_frequent():
    assert kept({"b": 2, "a": 2}) == ["a"]
    with pytest.raises(DataError, match="'f' has no category in the training rows"):
        kept({})
    with pytest.raises(DataError, match="neither categories nor a grouping"):
        keep_categories(Field("f", "categorical", categories={"a": ""}), {}, 1)


def test_what_cannot_be_a_level_is_another():
    counts = {OTHER_LEVEL: 99, MISSING_LEVEL: 99, "x" * 256: 99, "a": 9}
    assert kept(counts, rows=400) == ["a"]


@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 50), max_size=12),
    st.integers(1, 6),
    st.integers(1, 20),
)
def test_any_counts_give_levels_that_a_field_takes(counts, most, least):
    counts = {text.strip(): count for text, count in counts.items() if text.strip()}
    if not counts:
        return
    names = kept(counts, sum(counts.values()), most=most, least=least)
    assert 1 <= len(names) <= most
    assert names == sorted(names)
    field = Field("f", "categorical", categories=dict.fromkeys(names, ""), other=True)
    for text in counts:
        assert field.level_of(text) == (text if text in names else OTHER_LEVEL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"categories": {"(other)": ""}, "other": True}, r"is not '<missing>' or '\(other\)'"),
     ({"grouping": Grouping(3, 5)}, "a grouping needs other = true"),
     ({"kind": "numeric", "edges": (0.0, 1.0), "other": True}, "for categorical fields")],
)  # fmt: skip
def test_wrong_fields_are_refused(settings, message):
    with pytest.raises(SchemaError, match=message):
        Field(**{"name": "f", "kind": "categorical", **settings})


@pytest.mark.parametrize("bad", [(0, 1), (5000, 1), (3, 0)])
def test_wrong_groupings_are_refused(bad):
    with pytest.raises(SchemaError, match="grouping: "):
        Grouping(*bad)


def test_an_ungrouped_field_has_no_levels_yet():
    field = grouped()
    assert not field.fitted
    with pytest.raises(SchemaError, match="'f' has no categories yet; they are fitted on training"):
        _ = field.levels
    old = Field("f", "categorical", categories={OTHER_LEVEL: "as any category"})
    assert old.levels == (OTHER_LEVEL,)
