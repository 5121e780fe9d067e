from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cipherscore.errors import TrainingError
from tests.support.token_tables import renamed, table
from training.runs import RUN_FILE, VOCABULARY_FILE, Run, code_version, finished_run, start_run


@pytest.fixture
def run(tmp_path):
    dataset = table()
    vocabulary = dataset.build_vocabulary()
    started = start_run(dataset, vocabulary, tmp_path / "run", "classifier", "default", 3)
    started.weights_path.write_bytes(b"weights")
    return replace(started, threshold=0.2, metrics={"test": {"auc": 0.8}}).save(vocabulary)


def test_a_run_reads_back_as_it_was_saved(run):
    assert Run.load(run.folder) == run
    assert run.model_name == "toy-credit-classifier"
    assert run.started <= run.finished
    assert run.code_version == code_version()
    assert run.vocabulary() == table().build_vocabulary()


def test_only_a_run_of_the_same_inputs_counts_as_finished(run):
    inputs = ("classifier", "default", 3, run.dataset_digest)
    assert finished_run(run.folder, *inputs) == run
    for position, other in enumerate(("generator", "capstone", 4, "0" * 64)):
        changed = [*inputs[:position], other, *inputs[position + 1 :]]
        assert finished_run(run.folder, *changed) is None
    run.weights_path.unlink()
    assert finished_run(run.folder, *inputs) is None


def test_starting_again_removes_the_old_facts(run):
    dataset = table()
    start_run(dataset, dataset.build_vocabulary(), run.folder, "classifier", "default", 4)
    with pytest.raises(TrainingError, match="no finished training"):
        Run.load(run.folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 9}'])
def test_a_damaged_file_is_reported(run, content):
    (run.folder / RUN_FILE).write_text(content)
    with pytest.raises(TrainingError):
        Run.load(run.folder)


def test_a_swapped_vocabulary_is_reported(run):
    other = renamed(table(), "x").build_vocabulary()
    (run.folder / VOCABULARY_FILE).write_text(other.to_json())
    with pytest.raises(TrainingError, match="not the vocabulary"):
        run.vocabulary()
    (run.folder / VOCABULARY_FILE).unlink()
    with pytest.raises(TrainingError, match="cannot be read"):
        run.vocabulary()


def test_facts_are_saved_last_and_with_their_own_vocabulary(tmp_path):
    dataset = table()
    vocabulary = dataset.build_vocabulary()
    started = start_run(dataset, vocabulary, tmp_path, "classifier", "default", 3)
    with pytest.raises(TrainingError, match="weights before"):
        started.save(vocabulary)
    with pytest.raises(TrainingError, match="trained with"):
        started.save(renamed(dataset, "x").build_vocabulary())


def test_the_file_holds_no_path(run):
    assert str(run.folder) not in (run.folder / RUN_FILE).read_text()
    assert json.loads((run.folder / RUN_FILE).read_text())["threshold"] == 0.2
