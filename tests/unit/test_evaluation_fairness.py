"""Figures by group: a small table by hand, bands of numbers, small groups, and what stays hidden."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cipherscore.client.sources import from_arrow
from cipherscore.schema import Binning, Field, Schema, Target
from evaluation.fairness import LEAST_SHOWN, by_group, figures_of, groups_of, protected_fields
from evaluation.folds import RawData
from evaluation.overview import cramers_v, overview
from evaluation.page import clean
from evaluation.pooled import OutOfFold, band

TARGET = Target("y", good="ok", bad="bad", cost_false_good=5.0)


def table(sex, age, label):
    schema = Schema(
        "people",
        (
            Field("sex", "categorical", categories={"f": "female", "m": "male", "x": ""},
                  protected=True),
            Field("age", "numeric", unit="years", binning=Binning("quantile", 2), protected=True),
        ),
        TARGET,
    )  # fmt: skip
    texts = [TARGET.bad if bad else TARGET.good for bad in label]
    found = pa.table({"sex": sex, "age": pa.array(age, pa.float64()), "y": texts})
    return RawData.read(schema, from_arrow(found))


@pytest.fixture
def people():
    """Ten women, twenty men and two others; decisions at 0.5, one repeat."""
    sex = ["f"] * 10 + ["m"] * 20 + ["x"] * 2
    label = np.array([1, 1, 1, 1] + [0] * 6 + [1] * 5 + [0] * 15 + [1, 0], np.int8)
    #                 women: 3 of 4 bad and 2 of 6 good are refused
    chance = np.array(
        [0.9, 0.8, 0.7, 0.2] + [0.6, 0.6, 0.1, 0.1, 0.1, 0.1]
        # men: 2 of 5 bad and 3 of 15 good are refused
        + [0.9, 0.7, 0.3, 0.3, 0.3] + [0.6] * 3 + [0.1] * 12
        + [0.9, 0.1]
    )  # fmt: skip
    raw = table(sex, 20.0 + np.arange(32), label)
    return raw, OutOfFold(label, chance[None], np.full((1, 32), 0.5))


def test_figures_of_a_group_by_hand(people):
    _, data = people
    found = figures_of(data.of(np.arange(10)))
    assert found["base_rate"] == pytest.approx(0.4)
    assert found["approval_rate"] == pytest.approx(0.5)
    assert found["recall"] == pytest.approx(0.75)
    assert found["false_alarm"] == pytest.approx(2 / 6)
    assert found["good_approved"] == pytest.approx(4 / 6)
    # 24 pairs; the bad 0.2 loses to two goods of 0.6, the others win.
    assert found["auc"] == pytest.approx(22 / 24)
    assert found["calibration_gap"] == pytest.approx((2.6 + 1.6) / 10 - 0.4)


def test_ratio_and_opportunity_by_hand(people):
    raw, data = people
    groups = {g["value"]: g for g in by_group(raw, data, 50)[0]["groups"]}
    assert groups["m"]["reference"]
    assert "ratio" not in groups["m"]
    # Women: 5 of 10 approved; men: 15 of 20.  Of good ones: 4 of 6 and 12 of 15.
    assert groups["f"]["ratio"]["value"] == pytest.approx(0.5 / 0.75)
    assert groups["f"]["opportunity"]["value"] == pytest.approx(4 / 6 - 12 / 15)
    for name in ("ratio", "opportunity", "approval_rate"):
        assert groups["f"][name]["low"] <= groups["f"][name]["value"] <= groups["f"][name]["high"]
    assert groups["f"]["meaning"] == "female"


def test_groups_of_fewer_than_five_rows_are_hidden(people):
    raw, data = people
    report = by_group(raw, data, 10)[0]
    assert report["hidden_groups"] == 1
    assert [g["value"] for g in report["groups"]] == ["f", "m"]
    levels = next(e for e in overview(raw)["categories"] if e["field"] == "sex")
    assert levels["rare_levels"] == 1
    assert {entry["value"] for entry in levels["levels"]} == {"f", "m"}


def test_small_groups_are_flagged(people):
    raw, data = people
    assert all(group["small"] for group in by_group(raw, data, 10)[0]["groups"])
    many = table(["f"] * 60 + ["m"] * 60, np.arange(120.0), np.arange(120) % 2)
    even = OutOfFold(many.label, np.full((1, 120), 0.3), np.full((1, 120), 0.5))
    assert not any(group["small"] for group in by_group(many, even, 10)[0]["groups"])


def test_a_group_of_one_class_has_no_area(people):
    _, data = people
    found = figures_of(data.of(np.flatnonzero(data.label == 0)))
    assert math.isnan(found["auc"])
    assert math.isnan(found["recall"])
    assert found["base_rate"] == 0


def test_numbers_are_cut_into_bands_of_about_equal_count(people):
    raw, _ = people
    groups = groups_of(raw, raw.schema.by_name["age"])
    assert len(groups) == 4
    assert groups[0].value.startswith("below ")
    assert groups[-1].value.endswith(" or more")
    assert np.array_equal(np.sort(np.concatenate([g.rows for g in groups])), np.arange(32))
    assert all(7 <= len(group.rows) <= 9 for group in groups)


def test_absent_numbers_and_constant_ones_have_a_group():
    raw = table(["f"] * 12, [30.0] * 6 + [math.nan] * 6, np.arange(12) % 2)
    found = {g.value: len(g.rows) for g in groups_of(raw, raw.schema.by_name["age"])}
    assert found == {"all": 6, "absent": 6}


def test_only_protected_fields_are_compared(people):
    raw, data = people
    assert [field.name for field in protected_fields(raw)] == ["sex", "age"]
    fields = tuple(replace(f, protected=f.name == "age") for f in raw.schema.fields)
    bare = replace(raw, schema=replace(raw.schema, fields=fields))
    assert [entry["field"] for entry in by_group(bare, data, 5)] == ["age"]


def test_the_same_seed_gives_the_same_intervals(people):
    raw, data = people
    first, again, other = (clean(by_group(raw, data, 20, seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_decisions_are_averaged_over_repeats():
    data = OutOfFold(np.array([1, 0]), np.array([[0.9, 0.1], [0.2, 0.3]]), np.full((2, 2), 0.5))
    assert data.refused.tolist() == [0.5, 0]


def test_band_of_a_share_is_about_two_standard_errors():
    label = np.repeat([0, 1], 200)
    data = OutOfFold(label, np.tile([0.2, 0.8], 200)[None], np.full((1, 400), 0.5))
    found = band(data, lambda sample: np.array([sample.refused.mean()]), 400)
    assert found.value[0] == 0.5
    assert found.high[0] - found.low[0] == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.2)


def test_cramers_v_by_hand():
    same = np.repeat([0, 1, 2], 40)
    assert cramers_v(same, same) == pytest.approx(1)
    assert cramers_v(np.tile([0, 1], 60), np.repeat([0, 1], 60)) == 0
    # A 2x2 table of 30, 10, 10, 30: chi2 / n = 0.25; corrected (0.25 - 1/79) / (1 - 1/79).
    first = np.repeat([0, 0, 1, 1], [30, 10, 10, 30])
    second = np.repeat([0, 1, 0, 1], [30, 10, 10, 30])
    expected = math.sqrt((0.25 - 1 / 79) / (1 - 1 / 79))
    assert cramers_v(first, second) == pytest.approx(expected)


def test_the_overview_has_percentiles_and_no_extreme_value(people):
    raw, _ = people
    found = overview(raw)
    assert found["classes"] == {"good": 22, "bad": 10}
    age = found["numeric"][0]
    assert age["good"] == pytest.approx(
        np.percentile(raw.numbers("age")[raw.label == 0], [5, 25, 50, 75, 95]).tolist()
    )
    assert age["bad"] is None  # ten rows are too few for percentiles
    text = json.dumps(found)
    assert "20.0" not in text
    assert "51.0" not in text
    assert LEAST_SHOWN == 5
    correlation = found["correlation"]
    assert correlation["names"] == ["sex", "age", "y"]
    assert np.allclose(np.diag(correlation["cramers_v"]), 1)
