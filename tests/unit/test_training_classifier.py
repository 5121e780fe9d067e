from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cipherscore.dataset import TEST
from cipherscore.errors import ConfigurationError, TrainingError
from tests.support.token_tables import renamed, table
from training import classifier, fitting
from training.checkpoint import CHECKPOINT_FILE, read_tensors, write_tensors
from training.classifier import fit_classifier, load_network, predict, train_classifier
from training.network import build_network
from training.presets import CAPSTONE, DEFAULT, classifier_preset
from training.runs import Run
from training.table import build_table, first_seen_order, multi_hot, stratified_parts

SMALL = replace(DEFAULT, steps=40, members=4, hidden=(4,))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(classifier, "classifier_preset", lambda name: replace(SMALL, name=name))


def test_capstone_network_has_the_published_size():
    network = build_network(CAPSTONE, (4,) * 20)
    # 80-256-1024-512-256-1 with biases
    expected = 80 * 256 + 256 + 256 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 256 + 256 + 256 + 1
    assert sum(p.numel() for p in network.parameters()) == expected
    assert (CAPSTONE.steps, CAPSTONE.learning_rate, CAPSTONE.dropout) == (1000, 0.05, 0.1)


@pytest.mark.parametrize("preset", [DEFAULT, CAPSTONE], ids=lambda p: p.name)
def test_an_unseen_token_contributes_nothing(preset):
    sizes = (3, 2, 4)
    network = build_network(preset, sizes).eval()
    indices = torch.tensor([[0, 1, 3], [-1, 1, -1], [-1, -1, -1]], dtype=torch.int32)
    row = network.multi_hot(indices)
    assert row.sum(dim=1).tolist() == [3, 1, 0]
    np.testing.assert_array_equal(row.numpy(), multi_hot(indices.numpy(), sizes))
    chances = network(indices)
    assert chances.shape == (3,)
    assert chances.dtype == torch.float32


@pytest.mark.parametrize("preset", [DEFAULT, CAPSTONE], ids=lambda p: p.name)
def test_moving_columns_keeps_every_answer(preset):
    sizes = (3, 2, 4)
    network = build_network(preset, sizes).eval()
    order = [2, 0, 1, 4, 3, 8, 6, 5, 7]
    rows = torch.eye(9)
    before = network.member_logits(rows)
    network.move_columns(order)
    torch.testing.assert_close(network.member_logits(rows)[order], before)


def test_first_seen_order_knows_rows_only():
    indices = np.array([[2, 1], [0, -1], [2, 0]])
    assert first_seen_order(indices, (3, 3)).tolist() == [2, 0, 1, 4, 3, 5]


def test_parts_are_even_in_each_class():
    labels = np.array([0] * 70 + [1] * 30)
    parts = stratified_parts(labels, 10, 0)
    assert (np.bincount(parts[labels == 0]) == 7).all()
    assert (np.bincount(parts[labels == 1]) == 3).all()


def test_every_row_is_held_out_by_one_member_and_no_test_row_is_used():
    dataset = table()
    built = build_table(dataset, dataset.build_vocabulary(), SMALL, 0)
    assert (built.held_out.sum(dim=1) == 1).all()
    assert len(built.rows) == (dataset.split != TEST).sum()


@pytest.mark.parametrize("preset", [SMALL, replace(CAPSTONE, steps=3, hidden=(8, 8))])
def test_training_is_equivariant_to_renaming_tokens(preset):
    plain = table()
    results = []
    for dataset in (plain, renamed(plain, "x"), renamed(plain, "y")):
        vocabulary = dataset.build_vocabulary()
        fitted = fit_classifier(dataset, vocabulary, preset, seed=7)
        results.append((fitted, predict(fitted.network, dataset.indices(vocabulary))))
    first, chances = results[0]
    for fitted, other in results[1:]:
        np.testing.assert_array_equal(fitted.validation_probabilities,
                                      first.validation_probabilities)  # fmt: skip
        np.testing.assert_allclose(other, chances, atol=1e-6)


def test_training_learns_repeats_itself_and_leaves_the_random_state(tmp_path, small):
    dataset = table(600)
    before = torch.get_rng_state()
    runs = [train_classifier(dataset, tmp_path / name, seed=1) for name in "ab"]
    assert torch.equal(torch.get_rng_state(), before)
    weights = [read_tensors(run.weights_path)["state"] for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert runs[0].metrics["test"]["auc"]["value"] > 0.8
    assert 0 < runs[0].threshold < 1
    assert Run.load(tmp_path / "a") == runs[0]
    chances = predict(load_network(runs[0]), dataset.indices(runs[0].vocabulary()))
    assert ((chances > 0) & (chances < 1)).all()


def test_another_seed_gives_another_network(tmp_path, small):
    runs = [train_classifier(table(), tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    first, second = (read_tensors(run.weights_path)["state"]["first"] for run in runs)
    assert not torch.equal(first, second)


class Interrupt:
    """Progress that interrupts the training at its third look."""

    calls = 0

    def __call__(self, done, total, figures):
        self.calls += 1
        assert {"loss", "validation_loss", "validation_auc"} <= figures.keys()
        if self.calls == 3:
            raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, small):
    dataset = table()
    with pytest.raises(KeyboardInterrupt):
        train_classifier(dataset, tmp_path / "cut", progress=Interrupt())
    assert (tmp_path / "cut" / CHECKPOINT_FILE).is_file()
    with pytest.raises(TrainingError, match="no finished training"):
        Run.load(tmp_path / "cut")
    seen = []
    cut = train_classifier(dataset, tmp_path / "cut", progress=lambda done, *_: seen.append(done))
    whole = train_classifier(dataset, tmp_path / "whole")
    assert seen[0] == 3 * SMALL.check_every
    states = [read_tensors(run.weights_path)["state"] for run in (cut, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not (tmp_path / "cut" / CHECKPOINT_FILE).exists()


def test_a_checkpoint_of_another_seed_is_ignored(tmp_path, small):
    with pytest.raises(KeyboardInterrupt):
        train_classifier(table(), tmp_path, seed=1, progress=Interrupt())
    seen = []
    train_classifier(table(), tmp_path, seed=2, progress=lambda done, *_: seen.append(done))
    assert seen[0] == SMALL.check_every


def test_a_damaged_checkpoint_is_ignored(tmp_path, small):
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"junk")
    assert train_classifier(table(), tmp_path).finished


def test_a_finished_run_is_returned_and_another_input_trains_again(tmp_path, small):
    first = train_classifier(table(), tmp_path)
    assert train_classifier(table(), tmp_path, progress=Interrupt()) == first
    assert train_classifier(table(), tmp_path, seed=5).seed == 5


def test_a_table_without_validation_rows_can_be_learned(tmp_path, monkeypatch):
    recipe = replace(CAPSTONE, steps=20, hidden=(8, 8))
    monkeypatch.setattr(classifier, "classifier_preset", lambda _: recipe)
    run = train_classifier(table(validation=False), tmp_path)
    assert run.metrics["validation"]["rows"] > 20
    assert run.metrics["training"]["chosen_step"] == 20


def test_a_loss_that_is_not_finite_is_reported(tmp_path, monkeypatch):
    recipe = replace(CAPSTONE, steps=50, hidden=(8, 8), learning_rate=1e30)
    monkeypatch.setattr(classifier, "classifier_preset", lambda _: recipe)
    with pytest.raises(TrainingError, match="loss is"):
        train_classifier(table(), tmp_path)


def test_tables_that_cannot_be_learned_are_refused(tmp_path):
    dataset = table()
    with pytest.raises(TrainingError, match="no labels"):
        train_classifier(replace(dataset, label=np.empty(0, np.int8)), tmp_path)
    with pytest.raises(TrainingError, match="rows of bad credit"):
        train_classifier(replace(dataset, label=np.zeros_like(dataset.label)), tmp_path)


def test_an_unknown_preset_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="default, capstone"):
        train_classifier(table(), tmp_path, preset="best")
    assert classifier_preset("default") is DEFAULT


def test_weights_of_other_sizes_or_with_code_are_refused(tmp_path, small):
    run = train_classifier(table(), tmp_path)
    content = read_tensors(run.weights_path)
    write_tensors(run.weights_path, {**content, "sizes": [1, 2]})
    with pytest.raises(TrainingError, match="does not fit"):
        load_network(run)
    torch.save({"state": SystemExit(1)}, run.weights_path)
    with pytest.raises(TrainingError, match="cannot be read"):
        load_network(run)


def test_checkpoints_are_written_while_training_runs(tmp_path, small, monkeypatch):
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    found = []
    train_classifier(
        table(), tmp_path, progress=lambda *_: found.append((tmp_path / CHECKPOINT_FILE).exists())
    )
    assert found[-1]
