"""Training on smoothed tables: what is held out, how copies count, which tokens share weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cipherscore.dataset import TEST, TRAIN, VALIDATION
from cipherscore.errors import TrainingError
from tests.support.token_tables import drawn, renamed, table
from training import classifier, sharing, sweep
from training.classifier import fit_classifier, predict, train_classifier
from training.evaluation import auc
from training.network import build_network
from training.presets import CAPSTONE, DEFAULT
from training.sharing import token_sharing
from training.table import build_table

SMALL = replace(DEFAULT, steps=40, members=4, hidden=(4,))
HOMOPHONES, DRAWS = 3, 4


def built(dataset, preset=SMALL):
    return build_table(dataset, dataset.build_vocabulary(), preset, 0)


@pytest.fixture(scope="module")
def copies():
    return drawn(table(), HOMOPHONES, DRAWS)


def test_only_validation_rows_are_held_out_where_rows_have_copies(copies):
    found = built(copies)
    validation = (copies.split[copies.split != TEST] == VALIDATION).tolist()
    assert found.held_out.sum(dim=1).tolist() == [int(held) for held in validation]
    assert found.held_out.any(dim=0).all()  # each member has some
    whole = built(copies, replace(SMALL, cross_fit=False))
    assert (whole.held_out == torch.tensor(validation)[:, None]).all()


@pytest.mark.parametrize("draws", [0, 1])
def test_without_copies_all_rows_are_held_out_as_before(draws):
    dataset = table()
    expected = built(dataset)
    found = built(replace(dataset, draws=draws))
    assert torch.equal(found.held_out, expected.held_out)
    assert found.weights is None
    assert bool(found.sharing) == bool(draws)


def test_copies_without_validation_rows_are_refused():
    dataset = drawn(table(validation=False), HOMOPHONES, DRAWS)
    for cross_fit in (True, False):
        with pytest.raises(TrainingError, match=r"4 draws .* no validation rows"):
            built(dataset, replace(SMALL, cross_fit=cross_fit))


def test_every_applicant_counts_alike(copies):
    plain, found = built(table()), built(copies)
    assert found.weights is not None
    train = copies.split[copies.split != TEST] == TRAIN
    assert set(found.weights[train].tolist()) == {1.0}
    assert set(found.weights[~train].tolist()) == {float(DRAWS)}
    assert found.rare_rows(0) == plain.rare_rows(0)
    made = table(30, seed=8)
    more = build_table(copies, copies.build_vocabulary(), SMALL, 0, drawn(made, HOMOPHONES, 1))
    assert more.weights[-30:].tolist() == [DRAWS] * 30
    assert more.rare_rows(30) == plain.rare_rows(0)


def test_a_pass_over_copies_is_no_longer_than_one_without_them():
    plain, found = DEFAULT.for_table(10_240, 600), DEFAULT.for_table(204_800, 600, draws=20)
    assert found == plain
    assert DEFAULT.for_table(12_800, 240, draws=20) == DEFAULT.for_table(640, 240)


def planted(rows=4000, levels=3, homophones=3, seed=0):
    """Two fields: tokens of the first with the same level go with the same tokens of the second."""
    generator = np.random.default_rng(seed)
    level = generator.integers(0, levels, rows)
    other = np.where(generator.random(rows) < 0.6, level, generator.integers(0, levels, rows))
    token = level * homophones + generator.integers(0, homophones, rows)
    size = levels * homophones
    columns = np.stack([token, other + size], axis=1)
    label = generator.integers(0, 2, rows).astype(np.int8)
    return columns, label, (size, levels)


def test_homophones_share_and_levels_do_not():
    columns, label, sizes = planted()
    first, second = token_sharing(columns, label, sizes)
    same = np.equal.outer(np.arange(9) // 3, np.arange(9) // 3)
    torch.testing.assert_close(first.sum(dim=1), torch.ones(9))
    assert first.numpy()[same].min() > 0.15  # a third each, up to chance
    assert first.numpy()[~same].max() < 0.001
    assert second.numpy()[~np.eye(3, dtype=bool)].max() < 0.001


def test_the_label_alone_tells_levels_apart():
    columns, _, sizes = planted()
    columns[:, 1] = sizes[0]
    label = (columns[:, 0] < 3).astype(np.int8)
    (first, _) = token_sharing(columns, label, sizes)
    assert first[:3, 3:].max() < 0.001
    assert first[3:, 3:].min() > 0.05  # the other two levels cannot be told apart


def test_tokens_without_rows_and_unknown_tokens_share_with_nobody():
    columns, label, sizes = planted()
    columns[columns[:, 0] == 4, 0] = sum(sizes)
    first, _ = token_sharing(columns, label, sizes)
    assert first[4].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert first[:, 4].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert torch.isfinite(first).all()


def test_a_field_of_very_many_tokens_does_not_share(monkeypatch):
    monkeypatch.setattr(sharing, "MOST_TOKENS", 5)
    columns, label, sizes = planted()
    first, second = token_sharing(columns, label, sizes)
    assert (len(first), len(second)) == (0, 3)
    network = build_network(SMALL, sizes)
    network.sharing = (first, second)
    torch.testing.assert_close(network.shared(network.first)[:9], network.first[:9])


@pytest.mark.parametrize("preset", [SMALL, CAPSTONE], ids=lambda p: p.name)
def test_settling_keeps_every_answer(preset):
    columns, label, sizes = planted()
    network = build_network(preset, sizes).eval()
    rows = network.multi_hot(torch.tensor([[0, 0], [4, 2], [8, -1]], dtype=torch.int32))
    alone = network.member_logits(rows)
    network.sharing = token_sharing(columns, label, sizes)
    before = network.member_logits(rows)
    network.settle()
    assert network.sharing == ()
    torch.testing.assert_close(network.member_logits(rows), before)
    assert not torch.allclose(before, alone)


def chances(dataset, requests=6):
    """Probabilities of the test rows under several draws, float64 [draws, rows], and labels."""
    vocabulary = dataset.build_vocabulary()
    network = fit_classifier(dataset, vocabulary, SMALL, seed=0).network
    found = []
    for number in range(requests):
        asked = drawn(replace(table(600), split=np.full(600, TEST)), HOMOPHONES, 1, 100 + number)
        back = np.argsort(np.random.default_rng(100 + number).permutation(600))
        found.append(predict(network, asked.indices(vocabulary)[back]))
    return np.stack(found)


def test_draws_of_an_applicant_come_closer_by_sharing_and_by_copies(monkeypatch):
    spread = {}
    for draws in (1, 4):
        dataset = drawn(table(600), HOMOPHONES, draws)
        spread["shared", draws] = chances(dataset).std(axis=0).mean()
        monkeypatch.setattr("training.table.token_sharing", lambda *_: ())
        spread["alone", draws] = chances(dataset).std(axis=0).mean()
        monkeypatch.undo()
    assert spread["shared", 1] < 0.6 * spread["alone", 1]
    assert spread["shared", 4] < 0.6 * spread["alone", 4]
    assert spread["alone", 4] < spread["alone", 1]


def test_training_on_homophones_learns_and_is_equivariant(copies):
    results = []
    for dataset in (copies, renamed(copies, "other")):
        vocabulary = dataset.build_vocabulary()
        fitted = fit_classifier(dataset, vocabulary, SMALL, seed=1)
        tests = dataset.split == TEST
        results.append(predict(fitted.network, dataset.indices(vocabulary)[tests]))
        assert fitted.network.sharing == ()
        assert len(fitted.validation_labels) == (dataset.split == VALIDATION).sum()
    # Fields are in vocabulary order and rows as they were; only columns moved.
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
    assert auc(copies.label[copies.split == TEST], results[0]) > 0.75


def test_an_interrupted_training_on_copies_goes_on_within_a_pass(tmp_path, monkeypatch, copies):
    preset = replace(SMALL, batch_rows=64, check_every=3, steps=20)
    monkeypatch.setattr(classifier, "classifier_preset", lambda name: replace(preset, name=name))

    def interrupt(done, *_):
        if done >= 6:
            raise KeyboardInterrupt

    passes = -(-int((copies.split != TEST).sum()) // 64)
    look = preset.for_table(int((copies.split != TEST).sum()), 60, DRAWS).check_every
    assert look % passes  # looks fall within passes
    with pytest.raises(KeyboardInterrupt):
        train_classifier(copies, tmp_path / "cut", progress=interrupt)
    cut = train_classifier(copies, tmp_path / "cut")
    whole = train_classifier(copies, tmp_path / "whole")
    states = [classifier.load_network(run).state_dict() for run in (cut, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_sweep_divides_rows_without_copies(copies):
    parts = sweep._folds(copies, 5, 0)
    learning = copies.split[copies.split != TEST]
    tests = np.stack([part.split == TEST for part in parts])
    assert (tests.sum(axis=0) == (learning == VALIDATION)).all()
    assert all((part.split == VALIDATION).any() for part in parts)
    with pytest.raises(TrainingError, match=r"4 draws .* give --folds \d+"):
        sweep._folds(copies, 40, 0)
