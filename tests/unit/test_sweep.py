"""The search for a recipe: what it sees, that it can be ended at any moment, what it writes."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from cipherscore.dataset import TEST
from cipherscore.errors import ConfigurationError, TrainingError
from tests.support.token_tables import table
from training import sweep as searching
from training.optimizers import OPTIMIZERS
from training.preset_file import read_preset, write_preset
from training.presets import CAPSTONE, DEFAULT
from training.sweep import JOURNAL, sweep_classifier
from training.sweep_report import FIGURES, PAGE, PRESET, write_report

TRIALS = 5


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Recipes of a few steps, scored again once: what is tested is the search."""
    monkeypatch.setattr(searching, "FINALISTS", 1)
    monkeypatch.setattr(searching, "DIVISIONS", 1)
    proposed = searching.recipe
    monkeypatch.setattr(searching, "recipe", lambda trial: replace(proposed(trial), steps=10))


@pytest.fixture(scope="module")
def dataset():
    return table(rows=300, seed=5)


def told(sweep):
    return [(t.number, t.state, t.value, t.params) for t in sweep.trials]


def test_the_same_seed_gives_the_same_search(dataset, tmp_path):
    first, second = (
        sweep_classifier(dataset, tmp_path / name, trials=TRIALS, folds=2, seed=3) for name in "ab"
    )
    assert told(first) == told(second)
    assert first.best == second.best
    other = sweep_classifier(dataset, tmp_path / "c", trials=TRIALS, folds=2, seed=4)
    assert told(other)[1:] != told(first)[1:]


def test_the_default_preset_is_tried_first(dataset, tmp_path):
    found = sweep_classifier(dataset, tmp_path, trials=1, folds=2)
    kept = {**asdict(DEFAULT), "steps": 10, "name": "swept", "source": found.best.source}
    assert asdict(found.best) == kept


def test_an_interrupted_search_goes_on_to_the_same_end(dataset, tmp_path, monkeypatch):
    whole = sweep_classifier(dataset, tmp_path / "whole", trials=TRIALS, folds=2)
    fit, calls = searching.fit_classifier, []

    def interrupt(*arguments, **named):
        calls.append(1)
        if len(calls) == 6:  # within the third trial
            raise KeyboardInterrupt
        return fit(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(searching, "fit_classifier", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep_classifier(dataset, tmp_path / "cut", trials=TRIALS, folds=2)
    resumed = sweep_classifier(dataset, tmp_path / "cut", trials=TRIALS, folds=2)
    strip = [entry[1:] for entry in told(resumed)]  # the number of the lost trial is not used again
    assert strip == [entry[1:] for entry in told(whole)]
    assert [f.auc for f in resumed.finalists] == [f.auc for f in whole.finalists]
    assert resumed.best.steps == whole.best.steps


def test_a_search_ended_before_its_first_trial_still_tries_the_default_preset(
    dataset, tmp_path, monkeypatch
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(searching, "fit_classifier", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep_classifier(dataset, tmp_path, trials=1, folds=2)
    found = sweep_classifier(dataset, tmp_path, trials=1, folds=2)
    assert found.best.learning_rate == DEFAULT.learning_rate
    assert found.best.hidden == DEFAULT.hidden


def test_the_best_are_scored_again_beside_the_default_preset(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "FINALISTS", 2)
    found = sweep_classifier(dataset, tmp_path, trials=TRIALS, folds=2)
    whole = sorted(found.trials[1:], key=lambda trial: -(trial.value or 0.0))
    assert {one.number for one in found.finalists} == {0, *(t.number for t in whole[:2])}
    assert [one.auc for one in found.finalists] == sorted(
        (one.auc for one in found.finalists), reverse=True
    )
    winner = next(t for t in found.trials if t.number == found.finalists[0].number)
    assert found.best == searching.recipe(winner)
    # What ended is kept: nothing is trained again.
    monkeypatch.delattr(searching, "fit_classifier")
    again = sweep_classifier(dataset, tmp_path, trials=TRIALS, folds=2)
    assert again.finalists == found.finalists


def test_a_search_that_was_killed_leaves_no_trial_running(dataset, tmp_path):
    sweep_classifier(dataset, tmp_path, trials=2, folds=2)
    study = searching._open(tmp_path / JOURNAL, {"dataset": dataset.digest, "folds": 2, "seed": 0})
    study.ask()
    found = sweep_classifier(dataset, tmp_path, trials=3, folds=2)
    assert len(found.trials) == 3
    assert not study.get_trials(states=(TrialState.RUNNING,))


def test_a_finished_search_is_not_run_again(dataset, tmp_path, monkeypatch):
    before = sweep_classifier(dataset, tmp_path, trials=2, folds=2)
    monkeypatch.delattr(searching, "fit_classifier")
    assert told(sweep_classifier(dataset, tmp_path, trials=2, folds=2)) == told(before)


def test_test_rows_are_not_looked_at(dataset, tmp_path):
    label = np.where(dataset.split == TEST, 1 - dataset.label, dataset.label).astype(np.int8)
    columns = {
        name: replace(
            column,
            indices=np.where(dataset.split == TEST, 0, column.indices).astype(np.int32),
        )
        for name, column in dataset.columns.items()
    }
    other = replace(dataset, label=label, columns=columns)
    first = sweep_classifier(dataset, tmp_path / "a", trials=2, folds=2)
    assert told(first) == told(sweep_classifier(other, tmp_path / "b", trials=2, folds=2))


@pytest.mark.parametrize("change", ["dataset", "folds", "seed"])
def test_a_folder_holds_one_search(dataset, tmp_path, change):
    sweep_classifier(dataset, tmp_path, trials=1, folds=2)
    table_ = replace(dataset, digest="0" * 64) if change == "dataset" else dataset
    with pytest.raises(ConfigurationError, match=f"another {change}"):
        sweep_classifier(
            table_, tmp_path, trials=1, folds=3 if change == "folds" else 2,
            seed=1 if change == "seed" else 0,
        )  # fmt: skip


def test_a_recipe_that_diverges_is_as_bad_as_a_coin(dataset, tmp_path, monkeypatch):
    def diverge(*_, **__):
        raise TrainingError("the loss is nan")

    monkeypatch.setattr(searching, "fit_classifier", diverge)
    found = sweep_classifier(dataset, tmp_path, trials=2, folds=2)
    assert [t.value for t in found.trials] == [0.5, 0.5]
    assert found.trials[0].user_attrs["failed"] == "the loss is nan"


def test_a_recipe_behind_the_others_is_given_up(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "PRUNE_AFTER", 2)
    made = searching.recipe

    def worse_and_worse(trial):
        # Without a step that learns, the network answers the same for every row.
        return replace(made(trial), steps=10 if trial.number < 3 else 1, learning_rate=1e-9)

    fit = searching.fit_classifier
    monkeypatch.setattr(
        searching,
        "recipe",
        lambda trial: made(trial) if trial.number < 3 else worse_and_worse(trial),
    )
    monkeypatch.setattr(searching, "fit_classifier", fit)
    found = sweep_classifier(dataset, tmp_path, trials=8, folds=2)
    assert TrialState.PRUNED in [trial.state for trial in found.trials]


def test_what_is_written(dataset, tmp_path):
    found = sweep_classifier(dataset, tmp_path, trials=TRIALS, folds=2)
    content = write_report(found, tmp_path, "A sweep")
    assert json.loads((tmp_path / FIGURES).read_text()) == json.loads(json.dumps(content))
    assert read_preset(tmp_path / PRESET) == found.best
    assert content["auc"] == found.finalists[0].auc == max(f["auc"] for f in content["finalists"])
    assert content["best"]["number"] == found.finalists[0].number
    assert set(content["by_optimizer"]) <= set(OPTIMIZERS)
    page = (tmp_path / PAGE).read_text()
    assert page.startswith("# A sweep\n")
    assert re.search(
        rf"^\| {content['best']['number']} \| {content['auc']:.4f} \|", page, re.MULTILINE
    )


@pytest.mark.parametrize("preset", [DEFAULT, CAPSTONE], ids=lambda p: p.name)
def test_a_preset_file_gives_the_preset_back(preset, tmp_path):
    write_preset(preset, tmp_path / "p.toml")
    assert read_preset(tmp_path / "p.toml") == preset


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('steps = "many"', "steps is 'many', not of type int"),
        ("steps = true", "steps is True"),
        ("class_weighting = 1", "class_weighting is 1, not of type bool"),
        ("hidden = []", "hidden is"),
        ("hidden = [0]", "hidden is"),
        ("dropout = nan_", "no preset file"),
        ("colour = 1", "knows no colour"),
    ],
)
def test_a_wrong_preset_file_is_refused(line, said, tmp_path):
    path = tmp_path / "p.toml"
    write_preset(DEFAULT, path)
    name = line.split(" ")[0]
    kept = [text for text in path.read_text().splitlines() if not text.startswith(f"{name} =")]
    text = "\n".join(kept)
    if name == "hidden":
        text = re.sub(r"hidden = \[[^\]]*\]", "", path.read_text())
    path.write_text(f"{text}\n{line}\n")
    with pytest.raises(ConfigurationError, match=said):
        read_preset(path)


def test_a_preset_file_without_an_entry_is_refused(tmp_path):
    path = tmp_path / "p.toml"
    write_preset(DEFAULT, path)
    kept = [text for text in path.read_text().splitlines() if not text.startswith("steps")]
    path.write_text("\n".join(kept))
    with pytest.raises(ConfigurationError, match="lacks steps"):
        read_preset(path)


def test_a_preset_file_of_before_class_weights_has_none(tmp_path):
    path = tmp_path / "p.toml"
    write_preset(replace(DEFAULT, class_weighting=True), path)
    assert read_preset(path).class_weighting
    kept = [text for text in path.read_text().splitlines() if "class_weighting" not in text]
    path.write_text("\n".join(kept))
    assert read_preset(path) == DEFAULT


@given(st.binary(max_size=200))
def test_any_other_file_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("preset") / "p.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        read_preset(path)
