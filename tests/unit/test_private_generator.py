# ruff: noqa: E402 - the trainer's packages may be absent
import dataclasses
import json
import random

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("sklearn")

from typer.testing import CliRunner

from cipherscore import cli
from cipherscore.dataset import TEST
from cipherscore.errors import ConfigurationError
from tests.support.generator_tables import SIZES, SMALL_PRESETS, structured_rows, token_dataset
from training import generator, private_generator
from training.arrays import ArrayCheckpoint
from training.fidelity import Rows
from training.generator_figures import draw
from training.generator_weights import weights_of
from training.privacy import PrivacyBudget
from training.private_generator import fit_private_generator
from training.runs import RUN_FILE, Run

COLUMNS = tuple(SIZES.values())
SMALL = SMALL_PRESETS["default"]
BUDGET = PrivacyBudget(2.0, 1e-4)
LEARNED_FIGURES = {
    "real_auc", "closeness_share", "copy_rate", "rare_coverage", "membership_auc",
}  # fmt: skip


@pytest.fixture(autouse=True)
def eagerly(monkeypatch):
    """Small presets, and no graphs, whose making takes longer than the few steps of a test."""
    monkeypatch.setattr(generator, "generator_preset", SMALL_PRESETS.__getitem__)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class StopError(Exception):
    """Ends a training from its progress callback."""


def stop(done, total, figures):
    if done >= 8:
        raise StopError


class Exhausted(random.Random):
    """A source that must not be asked."""

    def getrandbits(self, k):
        raise AssertionError("the rows were measured a second time")


def learned(count=400):
    return Rows(*structured_rows(count))


def without_tests():
    """Return a table without test rows, on which nothing is measured in the end: that takes long."""
    dataset = token_dataset(100)
    return dataclasses.replace(dataset, split=np.zeros_like(dataset.split))


def same(one, other):
    return all((one[k] == other[k]).all() for k in one)


def test_rows_are_valid_and_follow_from_seed_and_noise():
    def fit(seed, noise):
        source = random.Random(noise)
        return fit_private_generator(learned(), COLUMNS, SMALL, seed, BUDGET, source=source)

    first = fit(3, 1)
    assert first.chosen_step == SMALL.steps
    assert same(weights_of(first.sampler), weights_of(fit(3, 1).sampler))
    assert not same(weights_of(first.sampler), weights_of(fit(3, 2).sampler))
    assert not same(weights_of(first.sampler), weights_of(fit(4, 1).sampler))
    drawn = draw(first.sampler, 100, first.class_prior, seed=1)
    assert ((drawn.indices >= 0) & (drawn.indices < COLUMNS)).all()


def test_the_seed_alone_does_not_repeat_the_noise():
    priors = {
        fit_private_generator(learned(), COLUMNS, SMALL, 3, BUDGET).class_prior for _ in range(3)
    }
    assert len(priors) > 1


def test_a_resumed_training_measures_no_second_time(tmp_path):
    inputs = (learned(), COLUMNS, SMALL, 1, BUDGET)
    whole = fit_private_generator(*inputs, source=random.Random(5))
    checkpoint = ArrayCheckpoint(tmp_path / "c.npz", {"of": "this"})
    with pytest.raises(StopError):
        fit_private_generator(
            *inputs, checkpoint=checkpoint, progress=stop, source=random.Random(5)
        )
    resumed = fit_private_generator(*inputs, checkpoint=checkpoint, source=Exhausted())
    assert same(weights_of(resumed.sampler), weights_of(whole.sampler))
    assert (resumed.class_prior, resumed.figures) == (whole.class_prior, whole.figures)


def test_tables_are_kept_before_the_first_step(tmp_path, monkeypatch):
    def fail(*_):
        raise StopError

    inputs = (learned(), COLUMNS, SMALL, 1, BUDGET)
    checkpoint = ArrayCheckpoint(tmp_path / "c.npz", {"of": "this"})
    monkeypatch.setattr(private_generator.TableTrainer, "advance", fail)
    with pytest.raises(StopError):
        fit_private_generator(*inputs, checkpoint=checkpoint)
    monkeypatch.undo()
    fit_private_generator(*inputs, checkpoint=checkpoint, source=Exhausted())


def test_a_private_run_says_so_and_keeps_no_figure_of_learned_rows(tmp_path):
    dataset = token_dataset()
    run = generator.train_generator(dataset, tmp_path, epsilon=2.0)
    rows = int((dataset.split != TEST).sum())
    assert run.metrics["privacy"] == PrivacyBudget(2.0, 1 / (10 * rows)).facts()
    assert set(run.metrics["training"]) == {"seconds", "steps", "chosen_step", "measured_pairs"}
    assert run.metrics["training"]["chosen_step"] == SMALL.steps
    assert not LEARNED_FIGURES & set(run.metrics["test"])
    assert "pair_fidelity" in run.metrics["test"]
    exact = dataset.label[dataset.split != TEST].mean()
    assert run.class_prior != exact
    assert run.class_prior == pytest.approx(exact, abs=0.2)
    assert Run.load(tmp_path) == run


def test_a_finished_run_is_kept_for_its_own_guarantee_only(tmp_path):
    dataset = without_tests()
    generator.train_generator(dataset, tmp_path, epsilon=5.0)
    stamp = (tmp_path / RUN_FILE).stat().st_mtime_ns
    generator.train_generator(dataset, tmp_path, epsilon=5.0)
    assert (tmp_path / RUN_FILE).stat().st_mtime_ns == stamp
    for changed in ({"epsilon": 4.0}, {"epsilon": 4.0, "delta": 1e-4}, {}):
        run = generator.train_generator(dataset, tmp_path, **changed)
        assert run.metrics.get("privacy", {}).get("epsilon") == changed.get("epsilon")
        assert (tmp_path / RUN_FILE).stat().st_mtime_ns > stamp
        stamp = (tmp_path / RUN_FILE).stat().st_mtime_ns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 1.0, "preset": "capstone"}, "cannot keep an epsilon: its discriminator"),
        ({"delta": 1e-6}, "delta needs an epsilon"),
        ({"epsilon": -1.0}, "epsilon -1 is not allowed"),
        ({"epsilon": 1.0, "delta": 0.5}, "below"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_read(options, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        generator.train_generator(token_dataset(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_command_trains_privately_and_shows_the_guarantee(tmp_path, monkeypatch):
    dataset = without_tests()
    monkeypatch.setattr("cipherscore.dataset.read_tokens", lambda _: dataset)
    words = ["train", "generator", "--out", str(tmp_path), "--epsilon", "5"]
    shown = CliRunner().invoke(cli.app, words)
    assert shown.exit_code == 0
    assert "privacy" in shown.stdout
    assert "epsilon" in shown.stdout
    found = json.loads(CliRunner().invoke(cli.app, [*words, "--json"]).stdout)
    assert found["metrics"]["privacy"]["epsilon"] == 5.0
