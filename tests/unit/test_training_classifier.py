from __future__ import annotations

import math
from dataclasses import MISSING, fields, replace

import numpy as np
import pytest
import torch

from cipherscore.dataset import TEST, TRAIN
from cipherscore.errors import ConfigurationError, TrainingError
from tests.support.token_tables import renamed, table
from training import classifier, fitting
from training.checkpoint import CHECKPOINT_FILE, read_tensors, write_tensors
from training.classifier import fit_classifier, load_network, predict, train_classifier
from training.evaluation import auc
from training.fitting import Fitter
from training.network import FieldNetwork, build_network
from training.presets import CAPSTONE, DEFAULT, ClassifierPreset, classifier_preset
from training.progress import silent
from training.runs import Run
from training.table import build_table, first_seen_order, stratified_parts, table_columns

SMALL = replace(DEFAULT, steps=40, members=4, hidden=(4,))
BATCHED = replace(SMALL, batch_rows=32, epochs=6)


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
    assert row.nonzero().tolist() == [[0, 0], [0, 4], [0, 8], [1, 4]]
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


@pytest.mark.parametrize("preset", [DEFAULT, CAPSTONE], ids=lambda p: p.name)
def test_summed_token_rows_are_multi_hot_rows(preset):
    dataset = table(validation=False)
    vocabulary = dataset.build_vocabulary(np.arange(dataset.rows) < 4)  # leaves unseen tokens
    built = build_table(dataset, vocabulary, preset, 0)
    network = build_network(preset, vocabulary.sizes).eval()
    sums = network.member_logits(built.token_rows(slice(None)))
    network.move_columns(built.order)
    indices = torch.from_numpy(dataset.indices(vocabulary)[dataset.split != TEST])
    assert (indices == -1).any()
    torch.testing.assert_close(sums, network.member_logits(network.multi_hot(indices)))


def test_table_columns_follow_the_order():
    order = np.array([2, 0, 1, 4, 3])
    indices = np.array([[2, 1], [0, -1]], np.int32)
    columns = table_columns(indices, (3, 2), order)
    assert columns.tolist() == [[0, 3], [1, 5]]
    assert columns.dtype == np.int32


def test_parts_are_even_in_each_class():
    labels = np.array([0] * 70 + [1] * 30)
    parts = stratified_parts(labels, 10, 0)
    assert (np.bincount(parts[labels == 0]) == 7).all()
    assert (np.bincount(parts[labels == 1]) == 3).all()


def test_every_row_is_held_out_by_one_member_and_no_test_row_is_used():
    dataset = table()
    built = build_table(dataset, dataset.build_vocabulary(), SMALL, 0)
    assert (built.held_out.sum(dim=1) == 1).all()
    assert len(built.columns) == (dataset.split != TEST).sum()


def test_learn_only_rows_are_held_out_by_nobody():
    dataset, made = table(), replace(table(40, seed=5), label=np.ones(40, np.int8))
    vocabulary = dataset.build_vocabulary()
    for preset in (SMALL, replace(CAPSTONE, hidden=(8, 8))):
        alone = build_table(dataset, vocabulary, preset, 0)
        both = build_table(dataset, vocabulary, preset, 0, made)
        real = len(alone.labels)
        assert len(both.labels) == real + 40  # whatever their split
        assert torch.equal(both.held_out[:real], alone.held_out)
        assert torch.equal(both.columns[:real], alone.columns)
        assert not both.held_out[real:].any()
        assert (both.labels[real:] == 1).all()


def test_learn_only_rows_teach_and_never_validate():
    dataset = table()
    vocabulary = dataset.build_vocabulary()
    made = replace(table(200, seed=5), label=np.ones(200, np.int8))
    plain = fit_classifier(dataset, vocabulary, SMALL, seed=3)
    taught = fit_classifier(dataset, vocabulary, SMALL, seed=3, learn_only=made)
    np.testing.assert_array_equal(taught.validation_labels, plain.validation_labels)
    gain = taught.validation_probabilities.mean() - plain.validation_probabilities.mean()
    assert gain > 0.1


def test_weighted_classes_weigh_the_same():
    dataset = table()
    built = build_table(dataset, dataset.build_vocabulary(), SMALL, 0)
    weights = fitting._weights(built, balanced=True)
    bad = built.labels == 1
    assert float(bad.float().mean()) < 0.45
    assert float(weights[bad].sum()) == pytest.approx(float(weights[~bad].sum()), rel=1e-5)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)


def test_weighted_classes_move_probabilities_to_the_middle():
    dataset = table()
    vocabulary = dataset.build_vocabulary()
    weighted = replace(SMALL, class_weighting=True)
    plain, balanced = (
        fit_classifier(dataset, vocabulary, preset, seed=3).validation_probabilities.mean()
        for preset in (SMALL, weighted)
    )
    share = dataset.label[dataset.split != TEST].mean()
    assert plain == pytest.approx(share, abs=0.04)
    assert balanced == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("preset", [SMALL, BATCHED, replace(CAPSTONE, steps=3, hidden=(8, 8))])
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


def fitter(preset, rows=300, progress=silent):
    dataset = table(rows)
    vocabulary = dataset.build_vocabulary()
    built = build_table(dataset, vocabulary, preset, 0)
    network = build_network(preset, vocabulary.sizes)
    return Fitter(network, built, preset, progress)


@pytest.mark.parametrize("cross_fit", [True, False])
def test_a_pass_shows_each_row_that_teaches_once(cross_fit):
    trainer = fitter(replace(BATCHED, cross_fit=cross_fit))
    teaching = (~trainer.table.held_out.all(dim=1)).nonzero().flatten()
    orders = []
    for _ in range(2):
        order = []
        for _ in range(-(-len(teaching) // BATCHED.batch_rows)):
            chosen, rows = trainer._batch()
            assert len(chosen) == len(rows.columns) <= BATCHED.batch_rows
            order += chosen.tolist()
            trainer.step += 1
        assert sorted(order) == teaching.tolist()
        orders.append(order)
    assert orders[0] != orders[1]


def test_batches_learn_what_whole_steps_learn():
    results = []
    for batch_rows in (0, 64):
        preset = replace(DEFAULT, batch_rows=batch_rows, steps=120, members=4, hidden=(4,))
        dataset = table(1500)
        vocabulary = dataset.build_vocabulary()
        fitted = fit_classifier(dataset, vocabulary, preset, seed=1)
        tests = dataset.split == TEST
        results.append(
            auc(dataset.label[tests], predict(fitted.network, dataset.indices(vocabulary)[tests]))
        )
    assert min(results) > 0.8
    assert abs(results[0] - results[1]) < 0.02


def test_training_never_makes_the_multi_hot_table(monkeypatch):
    def refuse(*_):
        raise AssertionError("the multi-hot row is for serving")

    monkeypatch.setattr(FieldNetwork, "multi_hot", refuse)
    dataset = table()
    assert fit_classifier(dataset, dataset.build_vocabulary(), BATCHED, seed=0).steps


def test_averaged_weights_are_the_running_mean():
    preset = replace(SMALL, patience=0, steps=30, check_every=1, averaging=0.7)
    passed = []
    trainer = fitter(
        preset, progress=lambda *_: passed.append(trainer.network.wide.detach().clone())
    )
    expected = trainer.network.wide.detach().clone()
    trainer.fit()
    for step, wide in enumerate(passed, 1):
        kept = min(0.7, step / (step + fitting.AVERAGE_START))
        expected = kept * expected + (1 - kept) * wide
    assert len(passed) == 30
    torch.testing.assert_close(trainer.network.wide.detach(), expected)
    assert not torch.allclose(expected, passed[-1], atol=1e-4)


def test_a_small_table_gets_the_numbers_of_the_preset():
    assert DEFAULT.for_table(900, 270) == replace(DEFAULT, full_strength_rows=0)
    assert CAPSTONE.for_table(300_000, 10_000) == CAPSTONE


def test_a_large_table_gets_more_steps_and_less_restraint():
    fit = DEFAULT.for_table(100_000, 8 * DEFAULT.full_strength_rows)
    passes = math.ceil(100_000 / DEFAULT.batch_rows)
    assert fit.steps == DEFAULT.epochs * passes
    assert fit.patience == DEFAULT.patience_epochs * passes
    assert fit.check_every == passes
    assert fit.dropout == pytest.approx(DEFAULT.dropout / 2)
    assert fit.learning_rate == pytest.approx(DEFAULT.learning_rate / 2)
    assert fit.for_table(100_000, 2400) == fit
    assert DEFAULT.for_table(3000, 1).check_every == 6  # three batches, looks at ends of passes


def test_rare_classes_keep_the_full_restraint():
    fit = DEFAULT.for_table(284_807, 200)
    assert (fit.dropout, fit.learning_rate) == (DEFAULT.dropout, DEFAULT.learning_rate)


class Interrupt:
    """Progress that interrupts the training at its third look."""

    calls = 0

    def __call__(self, done, total, figures):
        self.calls += 1
        assert {"loss", "validation_loss", "validation_auc"} <= figures.keys()
        if self.calls == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "preset",
    [SMALL, BATCHED, replace(BATCHED, cross_fit=False)],
    ids=["whole", "batches", "one-split"],
)
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch, preset):
    monkeypatch.setattr(classifier, "classifier_preset", lambda name: replace(preset, name=name))
    dataset = table()
    teaching = dataset.split != TEST if preset.cross_fit else dataset.split == TRAIN
    look = preset.for_table(int(teaching.sum()), 100).check_every
    with pytest.raises(KeyboardInterrupt):
        train_classifier(dataset, tmp_path / "cut", progress=Interrupt())
    assert (tmp_path / "cut" / CHECKPOINT_FILE).is_file()
    with pytest.raises(TrainingError, match="no finished training"):
        Run.load(tmp_path / "cut")
    seen = []
    cut = train_classifier(dataset, tmp_path / "cut", progress=lambda done, *_: seen.append(done))
    whole = train_classifier(dataset, tmp_path / "whole")
    assert seen[0] == 3 * look
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


def test_weights_from_before_batches_and_averages_can_be_read(tmp_path, small):
    run = train_classifier(table(), tmp_path)
    before = load_network(run).state_dict()
    content = read_tensors(run.weights_path)
    names = [field.name for field in fields(ClassifierPreset) if field.default is MISSING]
    write_tensors(
        run.weights_path, {**content, "preset": {name: content["preset"][name] for name in names}}
    )
    after = load_network(run).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


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
