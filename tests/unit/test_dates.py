# ruff: noqa: DTZ001 - days have no zone
"""Dates in raw tables."""

from datetime import date, datetime, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore import dates
from cipherscore.client.tables import level_indices, numbers
from cipherscore.errors import RecordError, SchemaError
from cipherscore.schema import Field

SPELLINGS = {
    "YYYY-MM-DD": "%Y-%m-%d", "YYYY/MM/DD": "%Y/%m/%d", "YYYY.MM.DD": "%Y.%m.%d",
    "DD.MM.YYYY": "%d.%m.%Y", "DD/MM/YYYY": "%d/%m/%Y", "MM/DD/YYYY": "%m/%d/%Y",
    "DD-MM-YYYY": "%d-%m-%Y", "MM-DD-YYYY": "%m-%d-%Y", "DD Mon YYYY": "%d-%b-%Y",
    "Mon DD, YYYY": "%B %d, %Y", "YYYYMMDD": "%Y%m%d", "YYYY-MM": "%Y-%m", "MM/YYYY": "%m/%Y",
    "Mon YYYY": "%b-%Y",
}  # fmt: skip


def test_every_form_is_tested():
    assert list(SPELLINGS) == list(dates.FORMS)


@given(st.sampled_from(list(SPELLINGS)), st.dates(date(1900, 1, 1), date(2099, 12, 31)))
def test_a_written_day_is_read_back(form, day):
    expected = day if "D" in form else day.replace(day=1)
    found = dates.parse(form, day.strftime(SPELLINGS[form]))
    assert found is not None
    assert found.date() == expected
    assert form in dates.detect([day.strftime(SPELLINGS[form])])


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2024-02-29T23:59:59.5Z", 23), ("2024-02-29 7:05", 7), ("2024-02-29 12:30 AM", 0),
     ("2024-02-29 12:30 pm", 12), (" 2024-2-29 00:00:00+02:00 ", 0), ("2024-02-29", 0)],
)  # fmt: skip
def test_times_of_day(text, hour):
    assert dates.parse("YYYY-MM-DD", text) == datetime(2024, 2, 29, hour)


@pytest.mark.parametrize(
    ("form", "value"),
    [("YYYY-MM-DD", "2023-02-29"), ("YYYY-MM-DD", "2023-13-01"), ("YYYY-MM-DD", "2023-01-01 25:00"),
     ("YYYY-MM-DD", "2023-01-01 13:00 PM"), ("YYYY-MM-DD", "0000-00-00"), ("YYYY-MM-DD", ""),
     ("YYYY-MM-DD", None), ("YYYY-MM-DD", 20230101), ("YYYYMMDD", 20231301), ("YYYYMMDD", True),
     ("YYYYMMDD", 2023010.5), ("YYYYMMDD", float("nan")), ("DD Mon YYYY", "1 Foo 2023"),
     ("YYYY-MM-DD", "२०२३-०१-०१"), ("DD.MM.YYYY", "1.1.23")],
)  # fmt: skip
def test_what_is_no_date(form, value):
    assert dates.parse(form, value) is None


def test_dates_of_other_types_need_no_form():
    day = datetime(2023, 4, 5, 6, tzinfo=timezone.utc)
    assert dates.parse("DD.MM.YYYY", day) == datetime(2023, 4, 5, 6)
    assert dates.parse("DD.MM.YYYY", day.date()) == datetime(2023, 4, 5)
    assert dates.parse("YYYYMMDD", 20230405.0) == datetime(2023, 4, 5)


def test_ambiguous_dates_have_both_forms():
    assert dates.detect(["01/02/2023", "3/4/2023"]) == ["DD/MM/YYYY", "MM/DD/YYYY"]
    assert dates.detect(["01/02/2023", "3/14/2023"]) == ["MM/DD/YYYY"]
    assert dates.detect(["01/02/2023", "x"]) == []


def part(name, **settings):
    settings = {"edges": (-1e6, 0.0, 1e6), "date": "DD.MM.YYYY", **settings}
    return Field("f", "numeric", part=name, column="When", **settings)


def test_parts():
    values = {
        name: part(name, reference="2024-03-01" if name == "days" else "").number_of(
            "29.02.2024 15:00"
        )
        for name in dates.PARTS
    }
    assert values == {"days": 1, "year": 2024, "month": 2, "weekday": 4, "hour": 15}
    assert part("days", reference="2024-03-01").number_of("01.04.2024") == -31


def test_a_column_of_dates_gives_what_its_values_give():
    field = part("days", reference="2024-03-01", missing="level", missing_values=("never",))
    texts = ["01.03.2024", None, "never", "05.03.2024", " 1.3.2024 ", "01.03.2024"]
    found = level_indices(pa.array(texts), field)
    assert [field.levels[i] for i in found] == [field.level_of(text) for text in texts]
    days = pa.array([datetime(2024, 2, 28), None, datetime(2024, 3, 4)], pa.timestamp("ns"))
    assert numbers(days, field)[[0, 2]].tolist() == [2, -3]
    assert field.levels[level_indices(days, field)[1]] == "<missing>"
    with pytest.raises(RecordError, match=r"record 1, field 'When': '31\.02\.2024'.*date like DD"):
        level_indices(pa.array(["01.03.2024", "31.02.2024"]), field)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"part": "age", "date": "YYYYMMDD"}, "part 'age' is unknown"),
     ({"part": "year", "date": "%Y"}, "date '%Y' is unknown"),
     ({"part": "days", "date": "YYYYMMDD"}, "needs a reference"),
     ({"part": "days", "date": "YYYYMMDD", "reference": "soon"}, "no day like"),
     ({"part": "days", "date": "YYYYMMDD", "reference": "20240101"}, "no day like"),
     ({"part": "year", "date": "YYYYMMDD", "reference": "2024-01-01"}, "take none"),
     ({"date": "YYYYMMDD"}, "part '' is unknown")],
)  # fmt: skip
def test_wrong_parts_are_refused(settings, message):
    with pytest.raises(SchemaError, match=f"field 'f': .*{message}"):
        Field("f", "numeric", edges=(0.0, 1.0), **settings)
    with pytest.raises(SchemaError, match="part of a date is a numeric field"):
        Field("f", "categorical", categories={"a": ""}, **settings)
