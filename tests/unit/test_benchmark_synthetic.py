"""The parts of `benchmarks.synthetic` that decide what is compared with what."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

pytest.importorskip("sklearn")

from benchmarks import environments
from benchmarks.synthetic import judge, report, sources, tables
from benchmarks.synthetic.peers.trees.cart import cart
from benchmarks.synthetic.tables import BAD, GOOD, INVALID, FoldTables, level_of_text
from cipherscore.client.sources import find_table
from cipherscore.errors import DataError
from cipherscore.field import MISSING_LEVEL, OTHER_LEVEL, Field
from cipherscore.schema_file import load_schema
from evaluation.folds import RawData, folds


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """The first fold of the embedded sample."""
    schema = load_schema("german-credit")
    sample = dataclasses.replace(schema, source=dataclasses.replace(schema.source, url=""))
    raw = RawData.read(schema, find_table(sample))
    return FoldTables(raw, next(folds(raw, 1, 5, 0)))


AGE = Field("age", "numeric", edges=(18.0, 30.0, 50.0, 80.0), valid_range=(18.0, 99.0))
ASSETS = Field("assets", "numeric", edges=(0.0, 1.0, 9.0), missing="level")
HOME = Field("home", "categorical", categories={"own": "", "rent": ""}, other=True, missing="level")
JOB = Field("job", "categorical", categories={"yes": "", "no": ""})


@pytest.mark.parametrize(
    ("field", "text", "level", "valid"),
    [
        (AGE, "29.99", "[18, 30)", True),
        (AGE, "30", "[30, 50)", True),
        (AGE, "99", "[50, 80]", True),
        (AGE, "120", "[50, 80]", False),
        (AGE, "-4e1", "[18, 30)", False),
        (AGE, "", INVALID, False),
        (AGE, "thirty", INVALID, False),
        (ASSETS, "", MISSING_LEVEL, True),
        (ASSETS, "-7", "[0, 1)", True),
        (HOME, "rent", "rent", True),
        (HOME, "castle", OTHER_LEVEL, True),
        (HOME, MISSING_LEVEL, MISSING_LEVEL, True),
        (JOB, "maybe", INVALID, False),
        (JOB, MISSING_LEVEL, INVALID, False),
    ],
)
def test_raw_values_are_binned_as_the_schema_says(field, text, level, valid):
    assert level_of_text(field, text, raw=True) == (level, valid)


def test_levels_are_taken_as_they_are_and_no_others():
    assert level_of_text(AGE, "[18, 30)", raw=False) == ("[18, 30)", True)
    assert level_of_text(AGE, "25", raw=False) == (INVALID, False)


@pytest.mark.parametrize("raw", [True, False])
def test_training_rows_come_back_from_a_file_as_they_were(fold, raw, tmp_path):
    whole = fold.all_values if raw else fold.all_levels
    tables.write(tables.take(whole, fold.fold.train), tmp_path / "rows.csv")
    found = fold.judged(tables.read(tmp_path / "rows.csv"), raw=raw)
    np.testing.assert_array_equal(found.rows.indices, fold.learned.indices)
    np.testing.assert_array_equal(found.rows.label, fold.raw.label[fold.fold.train])
    assert found.valid.all()
    assert (found.rows.indices >= 0).all()
    assert (found.rows.indices < fold.sizes).all()


def test_a_row_with_a_wrong_value_is_not_valid_and_has_no_column_there(fold):
    made = {name: np.array(c[:3]) for name, c in fold.all_levels.items()}
    name = fold.fields[0].name
    made[name][1] = "nonsense"
    found = fold.judged(made, raw=False)
    assert found.valid.tolist() == [True, False, True]
    assert found.rows.indices[1, 0] == tables.UNSEEN
    assert found.levels[name][1] == INVALID


def test_rows_without_a_column_or_with_a_strange_label_are_refused(fold):
    made = tables.take(fold.all_levels, np.arange(4))
    with pytest.raises(DataError, match="'duration'"):
        fold.judged({k: v for k, v in made.items() if k != "duration"}, raw=False)
    with pytest.raises(DataError, match="classification"):
        fold.judged({**made, fold.label: np.array(["good", "bad", "", "good"], object)}, raw=False)


def test_dates_reach_the_peers_as_numbers_and_come_back():
    opened = Field("opened", "numeric", edges=(1.0, 6.0, 12.0), part="month", date="YYYY-MM-DD")
    plain = dataclasses.replace(opened, part="", date="")
    assert level_of_text(plain, "7", raw=True) == (opened.level_of("2024-07-01"), True)


def test_real_rows_score_as_themselves(fold):
    with threadpool_limits(1):
        found = judge.own_figures(fold.learned, fold.learned, fold.tests, fold.sizes)
    count, holdout = len(fold.learned.label), len(fold.tests.label)
    assert found["copy_rate"] == 1
    assert found["rare_coverage"] == 1
    assert found["membership_auc"] > 0.9
    assert found["closeness_share"] == pytest.approx(0.5 + 0.5 * holdout / count, abs=0.05)


def test_rows_are_kept_until_something_changes(fold, tmp_path):
    source = sources.BY_NAME["independent"]
    maker = sources.Maker(tmp_path, seed=0, preset="default")
    assert maker.kept(source, fold) is None
    made = maker.make(source, fold)
    kept = maker.kept(source, fold)
    assert len(made.table[fold.label]) == sources.LEAST_DRAWN
    for name, column in made.table.items():
        np.testing.assert_array_equal(kept.table[name], column)
    assert sources.Maker(tmp_path, seed=1, preset="default").kept(source, fold) is None
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "independent.csv",
        "independent.json",
    ]


def test_a_source_that_fails_says_why(tmp_path):
    """SDMetrics is no dependency of this project."""
    with pytest.raises(sources.SourceError, match="No module named 'sdmetrics'"):
        sources.run_module(
            Path(sys.executable), "benchmarks.synthetic.peers.sdmetrics.scores", tmp_path
        )


def test_long_tables_get_fewer_epochs():
    assert sources.epochs(800) == 300
    assert sources.epochs(26_049) == 46
    assert sources.epochs(10**7) == 1


def test_cart_follows_the_columns_before():
    """`b` is a copy of `a`, and `c` an exact function of the label: trees find both."""
    import pandas as pd

    random = np.random.default_rng(0)
    label = random.choice([GOOD, BAD], 400, p=[0.7, 0.3])
    a = random.choice(["x", "y", "z"], 400)
    c = np.where(label == BAD, 10.0, 20.0)
    table = pd.DataFrame({"a": a, "b": a, "c": c, "label": label})
    task = {"label": "label", "numeric": ["c"], "rows": 1000, "seed": 3}
    made = cart(table, task)
    assert (made["a"] == made["b"]).all()
    assert (made["c"] == np.where(made["label"] == BAD, 10.0, 20.0)).all()
    assert (made["label"] == BAD).mean() == pytest.approx((label == BAD).mean(), abs=0.05)
    pd.testing.assert_frame_equal(made, cart(table, task))


def dataset(**figures):
    """A measured table of as many folds as there are values."""
    count = len(next(iter(next(iter(figures.values())).values())))
    return {
        "made": "2026-01-01",
        "folds": count,
        "seed": 0,
        "rows_learned": 800,
        "rows_tested": 200,
        "known_rows": [0.1] * count,
        "settings": {"ctgan": {"epochs": 46}},
        "failures": {},
        "figures": {
            source: [{name: v[i] for name, v in values.items()} for i in range(count)]
            for source, values in figures.items()
        },
    }


def test_means_and_spreads_are_those_of_the_sample():
    found = report.summary(dataset(cart={"tstr_auc": [0.7, 0.8, 0.9]}))
    assert found["cart"]["figures"]["tstr_auc"] == {
        "mean": pytest.approx(0.8),
        "sd": pytest.approx(0.1),
    }
    assert found["cart"]["title"].startswith("sequential CART (scikit-learn ")


def test_peers_are_compared_fold_by_fold():
    """The folds differ by far more than the sources do, which pairing must not see."""
    lines = report.comparison(
        dataset(
            ours={"tstr_auc": [0.70, 0.80, 0.90], "copy_rate": [0.0, 0.0, 0.0]},
            cart={"tstr_auc": [0.71, 0.82, 0.91], "copy_rate": [0.1, 0.1, 0.1]},
            tvae={"tstr_auc": [0.60, 0.80, 1.03], "copy_rate": [0.0, 0.0, 0.0]},
            forest={"tstr_auc": [0.60, 0.70, 0.80], "copy_rate": [0.0, 0.0, 0.0]},
            real={"tstr_auc": [0.99, 0.99, 0.99], "copy_rate": [1.0, 1.0, 1.0]},
        )
    )
    assert lines == [
        (
            "- **TSTR, logistic** (ours 0.800): better by more than one sd: sequential CART by 0.013 "
            "(sd of the differences 0.006); better, but within one sd: TVAE by 0.010 (sd of the "
            "differences 0.115)."
        ),
        "- **copies** (ours 0.0000): no peer is better.",
    ]


def test_less_is_better_where_it_is():
    lines = report.comparison(dataset(ours={"detection_auc": [0.9]}, tvae={"detection_auc": [0.7]}))
    assert lines == [
        "- **detection** (ours 0.900): better (one split, so no spread is known): TVAE by 0.200."
    ]


def test_the_table_has_a_row_for_each_source_and_says_what_is_missing():
    found = dataset(ours={"tstr_auc": [0.7, 0.8]}, ctgan={"tstr_auc": [0.5, 0.6]})
    found["failures"] = {"tvae": "no disk"}
    text = report.markdown({"loans": found})
    assert "| CipherScore | 0.750 ± 0.071 |  |" in text
    assert "| CTGAN | 0.550 ± 0.071 | ctgan " in text
    assert "46 epochs" in text
    assert "10.0 % equal a learned one in every level" in text
    assert "Not measured: TVAE: no disk" in text


def test_a_summary_keeps_other_tables_and_other_sources_of_the_same_folds():
    first = report.merged(
        {"adult": {"folds": 1}},
        "loans",
        dataset(cart={"tstr_auc": [0.7]}, ours={"tstr_auc": [0.1]}),
    )
    second = report.merged(first, "loans", dataset(ours={"tstr_auc": [0.9]}))
    assert set(second) == {"adult", "loans"}
    assert second["loans"]["sources"]["ours"]["figures"]["tstr_auc"]["mean"] == 0.9
    assert second["loans"]["sources"]["cart"] == first["loans"]["sources"]["cart"]
    other = report.merged(second, "loans", {**dataset(ours={"tstr_auc": [0.9]}), "seed": 1})
    assert set(other["loans"]["sources"]) == {"ours"}


def test_every_peer_has_a_lock_that_names_its_package():
    for source in sources.SOURCES:
        if source.compared:
            assert source.package in environments.versions(sources.PEERS / source.peer)


def test_numbers_that_are_absent_are_empty_cells(tmp_path):
    tables.write({"a": np.array([1.0, np.nan]), "b": np.array(["x", "y"], object)}, tmp_path / "t")
    found = tables.read(tmp_path / "t")
    assert found["a"].tolist() == ["1", ""]
    assert pa.array(found["b"]).to_pylist() == ["x", "y"]
