"""Folds, methods, and a study that is interrupted and goes on."""

import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from cipherscore.errors import ConfigurationError, DataError
from cipherscore.schema import Smoothing
from evaluation import depth, keras_baseline
from evaluation.command import classifier_figures
from evaluation.contestants import MAIN, Contestant, contestants, keras_scores, network, peer
from evaluation.folds import RawData, folds, in_plain, token_dataset
from evaluation.page import clean
from evaluation.plan import HUGE_ROWS, LARGE_ROWS, plan
from evaluation.pooled import OutOfFold
from evaluation.store import Store, run
from evaluation.study import Study
from tests.support.raw_tables import TINY, tiny_table
from training.evaluation import auc
from training.presets import DEFAULT
from training.progress import silent

SMALL_PLAN = replace(plan(100), repeats=2, folds=3, slow_folds=1, shares=(0.5,), learning_folds=2,
                     seeds=2, seed_folds=2, samples=20)  # fmt: skip


@pytest.fixture
def methods(keyset):
    logistic = peer(lambda _: LogisticRegression(), StandardScaler(), OneHotEncoder())
    return [
        Contestant(MAIN, "ours", "tokens", network(TINY, keyset, with_train=True), asdict(TINY)),
        Contestant("plain", "ours, plain", "levels", network(TINY, keyset, plain=True)),
        Contestant("logistic", "logistic", "raw values", logistic, most_repeats=1, most_rows=40),
    ]


def study(tmp_path, methods, raw=None):
    store = Store(tmp_path / "folds.json")
    return Study(raw or tiny_table(), None, methods, SMALL_PLAN, 1, store), store


def finished(tmp_path, methods, progress=silent):
    made, store = study(tmp_path, methods)
    run(list(made.tasks()), store, progress)
    return made


def without_seconds(content):
    if isinstance(content, dict):
        return {k: without_seconds(v) for k, v in content.items() if k != "seconds"}
    return [without_seconds(v) for v in content] if isinstance(content, list) else content


def test_every_row_is_tested_once_in_each_repeat():
    raw = tiny_table()
    found = list(folds(raw, 2, 4, seed=0))
    for repeat in range(2):
        tested = np.concatenate([fold.test for fold in found if fold.repeat == repeat])
        assert np.array_equal(np.sort(tested), np.arange(raw.rows))
    assert all(not set(fold.train) & set(fold.test) for fold in found)
    shares = [raw.label[fold.test].mean() for fold in found]
    assert np.ptp(shares) < 0.07


def test_folds_depend_on_repeat_and_seed():
    raw = tiny_table()
    tests = {tuple(f.test) for s in (0, 1) for f in folds(raw, 2, 3, seed=s)}
    assert len(tests) == 12


def test_rows_of_one_group_stay_together():
    raw = tiny_table(group="company")
    for fold in folds(raw, 1, 4, seed=0):
        assert not set(raw.group[fold.train]) & set(raw.group[fold.test])


def test_too_few_rows_of_a_class_are_refused():
    raw = tiny_table()
    few = replace(raw, label=np.where(np.arange(raw.rows) < 3, 1, 0).astype(np.int8))
    with pytest.raises(DataError, match="3 rows, too few for 10 folds; give --folds 3"):
        list(folds(few, 1, 10, seed=0))


def test_fewer_training_rows_keep_the_classes_in_proportion():
    raw = tiny_table(600)
    fold = next(folds(raw, 1, 3, seed=0))
    part = fold.learning_from(100, raw.label, 5)
    assert len(part.train) == pytest.approx(100, abs=1)
    assert set(part.train) < set(fold.train)
    assert np.array_equal(part.test, fold.test)
    assert raw.label[part.train].mean() == pytest.approx(raw.label[fold.train].mean(), abs=0.01)
    again = fold.learning_from(100, raw.label, 5)
    assert np.array_equal(again.train, part.train)
    assert fold.learning_from(10_000, raw.label, 5) is fold


def test_bins_come_from_training_rows_only(keyset):
    raw = tiny_table()
    fold = next(folds(raw, 1, 3, seed=0))
    _, codec = token_dataset(raw, fold, keyset)
    values = raw.numbers("size")[fold.train]
    edges = codec.schema.by_name["size"].edges
    assert edges[0] == values.min()
    assert edges[-1] == values.max()
    assert edges[1:-1] == pytest.approx(np.quantile(values, [1 / 3, 2 / 3]))


def test_plain_levels_hold_what_tokens_stand_for(keyset):
    raw = tiny_table()
    tokens, codec = token_dataset(raw, next(folds(raw, 1, 3, seed=0)), keyset)
    column = in_plain(tokens, codec).columns["color"]
    assert [column.dictionary[i].decode() for i in column.indices] == raw.texts("color").tolist()
    assert not {b"r", b"b"} & set(tokens.columns["color"].dictionary)


def test_homophones_come_from_training_rows_only(keyset):
    raw = tiny_table()
    fields = tuple(replace(f, smoothing=Smoothing(0.1)) for f in raw.schema.fields)
    raw = replace(raw, schema=replace(raw.schema, fields=fields))
    fold = next(folds(raw, 1, 3, seed=0))
    tokens, codec = token_dataset(raw, fold, keyset)
    colors = raw.texts("color")
    for level, weights in codec.schema.by_name["color"].homophones.items():
        share = np.mean(colors[fold.train] == level)
        assert len(weights) == max(1, np.ceil(share / 0.1 - 1e-9))
    column = tokens.columns["color"]
    assert len(column.dictionary) > len(codec.schema.by_name["color"].levels)
    assert [codec.levels["color"][column.dictionary[i]] for i in column.indices] == colors.tolist()
    plain = in_plain(tokens, codec).columns["color"]
    assert [plain.dictionary[i].decode() for i in plain.indices] == colors.tolist()
    again, _ = token_dataset(raw, fold, keyset)
    assert (again.columns["color"].indices == column.indices).all()


def test_absent_texts_are_one_level():
    raw = tiny_table()
    field = replace(raw.schema.fields[0], missing="level", missing_values=("?",))
    schema = replace(raw.schema, fields=(field, raw.schema.fields[1]))
    cells = ["?", " r ", "b", "", None, "?"] * 20
    table = raw.table.set_column(0, "color", pa.array(cells))
    found = RawData(schema, table, raw.label).texts("color")
    assert found[:6].tolist() == ["<missing>", "r", "b", "<missing>", "<missing>", "<missing>"]


def test_an_interrupted_study_gives_the_same_figures(tmp_path, methods):
    whole = finished(tmp_path / "whole", methods)

    def stop(done, total, figures):
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path / "halves", methods, stop)
    begun, _ = study(tmp_path / "halves", methods)
    tasks = list(begun.tasks())
    assert sum(task.done for task in tasks) == len(tasks) // 2
    seen = []
    resumed = finished(tmp_path / "halves", methods, lambda done, *_: seen.append(done))
    assert seen == list(range(1, len(tasks) + 1))
    one, other = (clean(classifier_figures(made)) for made in (whole, resumed))
    assert without_seconds(one) == without_seconds(other)
    assert json.dumps(one, allow_nan=False)


def test_a_finished_study_is_not_run_again(tmp_path, methods):
    finished(tmp_path, methods)
    before = (tmp_path / "folds.json").stat().st_mtime_ns
    finished(tmp_path, methods)
    assert (tmp_path / "folds.json").stat().st_mtime_ns == before


def test_other_data_are_computed_anew(tmp_path, methods):
    finished(tmp_path, methods)
    other, _ = study(tmp_path, methods, tiny_table(seed=1))
    assert not any(task.done for task in other.tasks())


def test_a_changed_recipe_is_computed_anew_and_the_others_are_kept(tmp_path, methods):
    finished(tmp_path, methods)
    changed = [methods[0], methods[1], replace(methods[2], recipe={"C": 2})]
    fresh = [task.key for task in study(tmp_path, changed)[0].tasks() if not task.done]
    assert fresh == ["0/0", "0/1", "0/2"]


def test_the_results_file_is_private_and_holds_no_value(tmp_path, methods):
    finished(tmp_path, methods)
    path = tmp_path / "folds.json"
    assert path.stat().st_mode & 0o777 == 0o600
    parts = json.loads(path.read_text())["parts"]
    assert parts.keys() == {MAIN, "plain", "logistic", "learning curve", "seeds"}
    for name, part in parts.items():
        for entry in part["results"].values():
            lists = {key for key, value in entry.items() if isinstance(value, list)}
            assert lists == ({"probabilities"} if name == MAIN else set())
            assert not [value for value in entry.values() if isinstance(value, str)]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 9}', '{"format": 1, "parts": 3}'])
def test_a_foreign_results_file_is_refused(tmp_path, content):
    path = tmp_path / "folds.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="remove it or give another --out"):
        Store(path)


def test_tokens_and_plain_levels_give_equal_figures(tmp_path, methods):
    content = classifier_figures(finished(tmp_path, methods))
    assert content["comparison"]["token_cost"] < 1e-6
    against_plain = content["comparison"]["methods"][1]["difference"]["auc"]
    assert against_plain["mean"] == pytest.approx(0, abs=1e-6)


def test_figures_are_those_of_out_of_fold_rows(tmp_path, methods):
    made = finished(tmp_path, methods)
    entries = made.results()[MAIN]
    fold = made.folds[4]
    kept = np.array(entries[fold.name]["probabilities"])
    assert entries[fold.name]["auc"] == pytest.approx(auc(made.raw.label[fold.test], kept))
    content = classifier_figures(made)
    matrix = content["classifier"]["confusion"]
    assert sum(cell["value"] for cell in matrix.values()) == pytest.approx(made.raw.rows)
    logistic = content["comparison"]["methods"][2]
    assert (logistic["folds"], logistic["learned_rows"]) == (3, 40)
    points = content["classifier"]["learning_curve"]
    assert [point["rows"] for point in points] == [40, 80]
    assert len(content["classifier"]["seeds"]["means"]) == 2


def test_labels_of_test_rows_change_nothing(methods):
    raw = tiny_table()
    fold = next(folds(raw, 1, 3, seed=0))
    flipped = raw.label.copy()
    flipped[fold.test] = 1 - flipped[fold.test]
    for method in methods:
        found = [method.scores(data, fold, 4) for data in (raw, replace(raw, label=flipped))]
        assert np.array_equal(found[0].test, found[1].test), method.title
        assert found[0].threshold == found[1].threshold


def test_seed_spread_by_hand():
    main = [{"auc": 0.6}, {"auc": 0.8}, {"auc": 0.1}]
    further = {"1/0/0": {"auc": 0.7}, "1/0/1": {"auc": 0.8}}
    found = depth.seed_spread(further, main, SMALL_PLAN)
    assert found["folds"] == 2
    assert found["means"] == pytest.approx([0.7, 0.75])
    assert found["sd_of_mean"] == pytest.approx(0.05 / 2**0.5)
    # Variances over seeds: 0.005 in the first fold, 0 in the second.
    assert found["sd_in_fold"] == pytest.approx(0.05)


def test_confusion_by_hand():
    label = np.array([1, 1, 0, 0, 0])
    chance = np.array([[0.9, 0.2, 0.6, 0.1, 0.1], [0.9, 0.7, 0.1, 0.1, 0.1]])
    found = depth.confusion(OutOfFold(label, chance, np.full((2, 5), 0.5)), SMALL_PLAN)
    assert {name: cell["value"] for name, cell in found.items()} == {
        "bad_called_bad": 1.5, "bad_called_good": 0.5,
        "good_called_bad": 0.5, "good_called_good": 2.5,
    }  # fmt: skip
    assert all(cell["low"] <= cell["value"] <= cell["high"] for cell in found.values())


def test_plans_shrink_with_the_table():
    small, large, huge = plan(1000), plan(LARGE_ROWS), plan(HUGE_ROWS)
    assert (small.repeats, small.folds) == (5, 10)
    assert (large.repeats, large.folds) == (1, 10)
    assert (huge.repeats, huge.folds) == (1, 5)
    quick = plan(1000, quick=True)
    assert (quick.slow_folds, quick.left_out) == (2, ("capstone",))
    made = [(p.synthetic_folds, p.imbalance_folds) for p in (small, large, huge, quick)]
    assert made == [(5, 10), (1, 3), (1, 3), (2, 2)]
    assert small.synthetic_parts == quick.synthetic_parts == 5
    assert plan(1000, folds=3).synthetic_parts == 3
    asked = plan(1000, repeats=2, folds=4)
    assert (asked.repeats, asked.folds, asked.test_share) == (2, 4, pytest.approx(1 / 3))
    assert "2 times 4 folds" in asked.rule


def test_slow_methods_are_held_back_on_large_tables():
    found = {c.name: c for c in contestants(DEFAULT, rows=50_000, slow_folds=2)}
    assert next(iter(found)) == MAIN
    assert found["plain"].most_folds == 2
    assert (found["keras"].most_folds, found["keras"].most_rows) == (2, 10_000)
    assert found[MAIN].most_rows is None


def test_the_keras_network_has_the_capstones_weights():
    assert keras_baseline.weight_count(20) == 13_697


@pytest.mark.slow
def test_the_keras_network_learns():
    raw = tiny_table(200)
    fold = next(folds(raw, 1, 2, seed=0))
    found = keras_scores(raw, fold, 3).test
    assert auc(raw.label[fold.test], found) > 0.65
    assert np.array_equal(found, keras_scores(raw, fold, 3).test)
