"""Class imbalance: made rows come from training rows only, teach only, and are judged in pairs."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cipherscore.client.sources import from_arrow
from cipherscore.schema import Binning, Field, Schema, Target
from evaluation.contestants import network
from evaluation.folds import RawData, folds, in_plain, token_dataset
from evaluation.imbalance import FIGURES, METHODS, ImbalanceStudy, finding, imbalance
from evaluation.oversampling import generated_rows, rarer, smote_rows
from evaluation.page import clean
from evaluation.plan import plan
from evaluation.store import Store, run
from evaluation.study import measure
from tests.support.generator_tables import SMALL_PRESETS
from tests.support.raw_tables import TINY, tiny_table

PLAN = replace(plan(100), folds=3, imbalance_folds=3)
GENERATOR = SMALL_PRESETS["default"]


def study(tmp_path, generator=GENERATOR):
    store = Store(tmp_path / "folds.json")
    return ImbalanceStudy(tiny_table(), PLAN, TINY, generator, 1, store), store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imbalance")
    made, store = study(folder)
    run(list(made.tasks()), store)
    return made, folder


@pytest.fixture
def fold():
    return next(folds(tiny_table(), 1, 3, seed=0))


def plain(raw, fold, keyset):
    return in_plain(*token_dataset(raw, fold, keyset))


def levels(dataset, name):
    column = dataset.columns[name]
    return np.array([column.dictionary[i].decode() for i in column.indices])


def columns_table(**columns):
    """A table of the given columns, all bad rows alike; every third row is bad."""
    fields = tuple(
        Field(name, "numeric", binning=Binning("uniform", 4), missing="level")
        if isinstance(values[0], float)
        else Field(name, "categorical", categories=dict.fromkeys(sorted(set(values)), ""))
        for name, values in columns.items()
    )
    schema = Schema("columns", fields, Target("y", good="ok", bad="bad"))
    rows = len(next(iter(columns.values())))
    table = {**columns, "y": ["bad" if i % 3 == 0 else "ok" for i in range(rows)]}
    return RawData.read(schema, from_arrow(pa.table(table)))


def test_made_rows_balance_the_classes(keyset, fold):
    raw = tiny_table()
    made = smote_rows(raw, fold, plain(raw, fold, keyset), 0)
    good, bad = np.bincount(raw.label[fold.train])
    assert made.rows == good - bad > 0
    assert (made.label == 1).all()
    flipped = replace(raw, label=1 - raw.label)
    made = smote_rows(flipped, fold, plain(flipped, fold, keyset), 0)
    assert made.rows == good - bad
    assert (made.label == 0).all()


def test_the_rarer_class_is_the_one_to_make():
    assert rarer(np.array([0, 0, 0, 1])) == (1, 2)
    assert rarer(np.array([1, 1, 0])) == (0, 1)
    assert rarer(np.array([1, 0])) == (1, 0)


def test_smote_interpolates_between_bad_rows_of_the_training_rows(keyset):
    # Bad rows have sizes 0 to 1 and one color; good rows, in training or not, lie far away.
    bad = np.arange(90) % 3 == 0
    sizes = np.where(bad, np.linspace(0, 1, 90), 9.0 + np.linspace(0, 1, 90)).tolist()
    raw = columns_table(size=sizes, color=np.where(bad, "r", "b").tolist())
    fold = next(folds(raw, 1, 3, seed=0))
    made = smote_rows(raw, fold, plain(raw, fold, keyset), 0)
    assert set(levels(made, "color")) == {"r"}
    first = raw.fitted(fold.train).by_name["size"].levels[0]
    assert set(levels(made, "size")) == {first}


def test_smote_rows_ignore_test_rows(keyset, fold):
    raw = tiny_table()
    flipped = raw.label.copy()
    flipped[fold.test] = 1 - flipped[fold.test]
    first, other = (
        smote_rows(data, fold, plain(data, fold, keyset), 3)
        for data in (raw, replace(raw, label=flipped))
    )
    for name in raw.schema.by_name:
        assert np.array_equal(levels(first, name), levels(other, name))


@pytest.mark.parametrize("kind", ["numbers", "categories", "absent"])
def test_smote_takes_tables_of_one_kind_and_absent_numbers(keyset, kind):
    sizes = [float(i % 7) for i in range(60)]
    colors = ["rgb"[i % 5 % 3] for i in range(60)]
    columns = {"numbers": {"size": sizes}, "categories": {"color": colors, "hue": colors[::-1]},
               "absent": {"color": colors, "size": [1.5, *sizes[1:]]}}[kind]  # fmt: skip
    if kind == "absent":
        columns["size"][5:50:4] = [None] * len(columns["size"][5:50:4])
    raw = columns_table(**columns)
    fold = next(folds(raw, 1, 3, seed=0))
    made = smote_rows(raw, fold, plain(raw, fold, keyset), 0)
    assert made.rows == rarer(raw.label[fold.train])[1]
    schema = raw.fitted(fold.train)
    assert all(set(levels(made, f.name)) <= set(f.levels) for f in schema.fields)


@pytest.mark.parametrize("rare", [1, 0])
def test_generated_rows_are_of_the_rarer_class_and_in_the_vocabulary(keyset, fold, rare):
    raw = tiny_table()
    if not rare:
        raw = replace(raw, label=1 - raw.label)
    dataset = plain(raw, fold, keyset)
    vocabulary = dataset.build_vocabulary()
    made = generated_rows(fold, dataset, GENERATOR, 1)
    assert (rare, made.rows) == rarer(raw.label[fold.train])
    assert (made.label == rare).all()
    assert (made.indices(vocabulary) >= 0).all()


def test_doing_nothing_is_the_classifier_of_the_comparison(keyset, finished):
    made, _ = finished
    fold = made.folds[1]
    scores = network(TINY, keyset)(made.raw, fold, fold.training_seed(1))
    wanted = measure(made.raw, fold, scores)
    found = made.results()["none"][1]
    assert found["auc"] == pytest.approx(wanted["auc"])
    assert found["cost_at_threshold"] == pytest.approx(wanted["tuned"]["expected_cost"])
    assert found["made_rows"] == 0


def test_figures_are_paired_and_adjusted_for_all_tests(finished):
    made, _ = finished
    content = imbalance(made)
    assert json.dumps(clean(content), allow_nan=False)
    assert [row["name"] for row in content["methods"]] == list(METHODS)
    assert content["tests"] == 3 * len(FIGURES)
    results = made.results()
    for row in content["methods"][1:]:
        for figure, test in row["difference"].items():
            pairs = zip(results[row["name"]], results["none"], strict=True)
            gaps = [one[figure] - other[figure] for one, other in pairs]
            assert test["mean"] == pytest.approx(np.mean(gaps))
            assert test["p"] <= test["p_holm"] <= 1
    assert [row["made_rows"] > 0 for row in content["methods"]] == [False, False, True, True]


def test_findings_by_hand():
    def test(mean, p):
        return {"mean": mean, "p_holm": p}

    differences = {"auc": test(0.02, 0.01), "brier": test(-0.01, 0.04), "ks": test(0.3, 0.06),
                   "cost_at_ratio": test(0.2, 0.001)}  # fmt: skip
    found = finding({"title": "x", "difference": differences})
    assert found["tested"]
    assert [one["figure"] for one in found["better"]] == ["auc", "brier"]
    assert found["worse"] == [{"figure": "cost_at_ratio", "difference": 0.2}]
    untested = finding({"title": "x", "difference": {"auc": test(0.02, float("nan"))}})
    assert not untested["tested"]
    assert not untested["better"]


def test_a_changed_generator_leaves_the_other_results(finished):
    made, _ = study(finished[1], replace(GENERATOR, steps=8))
    assert [task.done for task in made.tasks()] == [True, True, False, False] * 3
