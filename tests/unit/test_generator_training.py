# ruff: noqa: E402 - the trainer's packages may be absent
import dataclasses

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("sklearn")

from cipherscore.errors import ConfigurationError, TrainingError
from tests.support.generator_tables import (
    SIZES,
    SMALL_PRESETS,
    structured_rows,
    token_dataset,
    without_bad,
)  # fmt: skip
from training import generator
from training.arrays import ArrayCheckpoint, read_arrays, write_arrays
from training.capstone_gan import build_dense
from training.fidelity import Rows
from training.generator_figures import draw, judge, judge_learning
from training.generator_presets import (
    CAPSTONE,
    DEFAULT,
    GENERATOR_PRESETS,
    LargerTable,
    generator_preset,
)
from training.generator_weights import load_sampler, weights_of
from training.runs import RUN_FILE, Run

COLUMNS = tuple(SIZES.values())
SMALL = SMALL_PRESETS["default"]


@pytest.fixture
def small_presets(monkeypatch):
    monkeypatch.setattr(generator, "generator_preset", SMALL_PRESETS.__getitem__)


def learned(count=200):
    return Rows(*structured_rows(count))


def same(one, other):
    return one.keys() == other.keys() and all((one[k] == other[k]).all() for k in one)


@pytest.fixture
def eagerly():
    """Run TensorFlow without graphs, whose making takes longer than the few steps of a test."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class StopError(Exception):
    """Ends a training from its progress callback."""


def stop_at(step):
    def progress(done, total, figures):
        if done >= step:
            raise StopError

    return progress


@pytest.mark.parametrize("layers", ["generator_hidden", "critic_hidden"])
def test_capstone_networks_have_the_published_size(layers):
    network = build_dense(81, getattr(CAPSTONE, layers), 0, "network")
    assert network.count_params() == 783_441
    assert network.input_shape == network.output_shape == (None, 81)


def test_presets_are_found_by_name():
    assert GENERATOR_PRESETS["capstone"] is generator_preset("capstone")
    with pytest.raises(ConfigurationError, match="default, capstone"):
        generator_preset("nonesuch")


@pytest.mark.parametrize("rows", [10, 4_999, 5_000, 19_999, 20_000, 10**6])
def test_presets_batches_can_be_quartered_for_tables_of_all_sizes(rows):
    for preset in GENERATOR_PRESETS.values():
        found = preset.for_table(rows)
        assert found.batch % 4 == 0
        assert found.for_table(10) == found


def test_larger_tables_get_wider_networks_and_longer_trainings():
    sizes = [DEFAULT.for_table(rows) for rows in (1, 4_999, 5_000, 19_999, 20_000, 10**6)]
    assert [found.steps for found in sizes] == [800, 800, 2_500, 2_500, 4_000, 4_000]
    assert [found.generator_hidden[0] for found in sizes] == [128, 128, 256, 256, 512, 512]


def test_the_networks_fit_the_number_of_rows_and_are_found_again(tmp_path, monkeypatch):
    small = SMALL_PRESETS["default"]
    wider = LargerTable(300, (24,), (16,), batch=16, steps=8, check_every=4, pair_weight=1.0)
    monkeypatch.setattr(
        generator, "generator_preset", lambda _: dataclasses.replace(small, larger=(wider,))
    )
    run = generator.train_generator(token_dataset(400), tmp_path)
    assert run.metrics["training"]["steps"] == 8
    assert load_sampler(run).network.layers[1].units == 24
    run = generator.train_generator(token_dataset(200), tmp_path / "small")
    assert load_sampler(run).network.layers[1].units == 16


@pytest.mark.parametrize("preset", SMALL_PRESETS.values(), ids=SMALL_PRESETS)
def test_rows_are_valid_and_the_same_for_a_seed(preset):
    fitted = generator.fit_generator(learned(), COLUMNS, preset, 3)
    first = weights_of(fitted.sampler)
    again = generator.fit_generator(learned(), COLUMNS, preset, 3)
    assert same(first, weights_of(again.sampler))
    other = generator.fit_generator(learned(), COLUMNS, preset, 4)
    assert not same(first, weights_of(other.sampler))
    drawn = draw(fitted.sampler, 100, 0.3, seed=1)
    assert drawn.indices.shape == (100, 3)
    assert drawn.indices.dtype == np.int32
    assert ((drawn.indices >= 0) & (drawn.indices < COLUMNS)).all()
    assert (drawn.indices == draw(fitted.sampler, 100, 0.3, seed=1).indices).all()


@pytest.mark.parametrize("preset", SMALL_PRESETS.values(), ids=SMALL_PRESETS)
def test_a_resumed_training_equals_one_never_stopped(preset, tmp_path):
    whole = generator.fit_generator(learned(), COLUMNS, preset, 1)
    checkpoint = ArrayCheckpoint(tmp_path / "c.npz", {"of": "this"})
    with pytest.raises(StopError):
        generator.fit_generator(
            learned(), COLUMNS, preset, 1, checkpoint=checkpoint, progress=stop_at(8)
        )
    seen = []
    resumed = generator.fit_generator(
        learned(), COLUMNS, preset, 1, checkpoint=checkpoint,
        progress=lambda done, total, figures: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(12, 12)]
    assert resumed.chosen_step == whole.chosen_step
    assert same(weights_of(resumed.sampler), weights_of(whole.sampler))


@pytest.mark.usefixtures("eagerly", "small_presets")
@pytest.mark.parametrize("preset", SMALL_PRESETS)
def test_train_generator_saves_a_run_that_loads(preset, tmp_path):
    dataset = token_dataset()
    run = generator.train_generator(dataset, tmp_path, preset=preset, seed=5)
    assert Run.load(tmp_path).metrics == run.metrics
    assert not (tmp_path / generator.CHECKPOINT_FILE).exists()
    assert run.noise_width == {"default": 4 + 3, "capstone": 10}[preset]
    assert set(run.metrics["test"]) >= {"tstr_auc", "real_auc", "pair_fidelity", "closeness_share"}
    sampler = load_sampler(run)
    assert sampler.noise_width == run.noise_width
    stamp = (tmp_path / RUN_FILE).stat().st_mtime_ns
    again = generator.train_generator(dataset, tmp_path, preset=preset, seed=5)
    assert again == Run.load(tmp_path)
    assert (tmp_path / RUN_FILE).stat().st_mtime_ns == stamp


@pytest.mark.usefixtures("eagerly", "small_presets")
def test_train_generator_goes_on_after_an_interrupt(tmp_path):
    dataset = token_dataset()
    whole = generator.train_generator(dataset, tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(StopError):
        generator.train_generator(dataset, out, progress=stop_at(8))
    assert (out / generator.CHECKPOINT_FILE).exists()
    assert not (out / RUN_FILE).exists()
    steps = []
    run = generator.train_generator(dataset, out, progress=lambda done, *_: steps.append(done))
    assert steps == [12]
    assert run.metrics["test"] == whole.metrics["test"]
    steps.clear()
    generator.train_generator(
        dataset, out, resume=False, progress=lambda done, *_: steps.append(done)
    )
    assert steps == [4, 8, 12]


@pytest.mark.usefixtures("eagerly", "small_presets")
def test_a_damaged_checkpoint_starts_afresh(tmp_path):
    (tmp_path / generator.CHECKPOINT_FILE).write_bytes(b"PK junk")
    steps = []
    generator.train_generator(
        token_dataset(), tmp_path, progress=lambda done, *_: steps.append(done)
    )
    assert steps == [4, 8, 12]


@pytest.mark.usefixtures("eagerly", "small_presets")
def test_damaged_weights_are_refused(tmp_path):
    run = generator.train_generator(token_dataset(), tmp_path)
    arrays, facts = read_arrays(run.weights_path)
    write_arrays(run.weights_path, dict(list(arrays.items())[1:]), facts)
    with pytest.raises(TrainingError, match="damaged"):
        load_sampler(run)
    write_arrays(run.weights_path, arrays, {**facts, "sizes": [3, 2, 6]})
    with pytest.raises(TrainingError, match="fit"):
        load_sampler(run)
    run.weights_path.write_bytes(b"")
    with pytest.raises(TrainingError, match="read"):
        load_sampler(run)


def test_one_class_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="bad credit"):
        generator.train_generator(without_bad(token_dataset()), tmp_path)


def test_a_table_without_labels_is_refused(tmp_path):
    dataset = dataclasses.replace(token_dataset(), label=np.empty(0, np.int8))
    with pytest.raises(TrainingError, match="labels"):
        generator.train_generator(dataset, tmp_path)


def test_rows_with_unseen_tokens_are_left_out():
    indices = np.array([[0, 1], [-1, 0], [2, 2]], np.int32)
    kept = generator.learnable(Rows(indices, np.array([0, 1, 1], np.int8)))
    assert kept.indices.tolist() == [[0, 1], [2, 2]]
    assert kept.label.tolist() == [0, 1]


@pytest.mark.usefixtures("eagerly")
def test_a_diverged_training_says_so():
    wild = dataclasses.replace(SMALL, generator_rate=float("nan"))
    with pytest.raises(TrainingError, match="diverged"):
        generator.fit_generator(learned(), COLUMNS, wild, 0)


@pytest.mark.slow
def test_the_default_learns_what_a_column_by_column_sampler_cannot():
    preset = dataclasses.replace(DEFAULT, steps=400)
    rows = learned(1000)
    fitted = generator.fit_generator(rows, COLUMNS, preset, 0)
    tests = Rows(*structured_rows(1000, seed=9))
    drawn = draw(fitted.sampler, 3000, 0.3, 1)
    figures = judge(drawn, tests, COLUMNS, len(rows.label)) | judge_learning(
        drawn, rows, tests, COLUMNS
    )
    assert figures["tstr_auc"] > figures["real_auc"] - 0.03
    assert figures["pair_fidelity"] > 0.93
