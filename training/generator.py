"""Train the generator on an encrypted table, and make rows with a trained one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cipherscore.dataset import TEST, TRAIN, VALIDATION, TokenDataset
from cipherscore.errors import ConfigurationError, TrainingError
from training import fidelity
from training.arrays import ArrayCheckpoint
from training.capstone_gan import CapstoneTrainer
from training.fidelity import Rows
from training.gan import ConditionalTrainer
from training.generator_figures import draw, judge, judge_learning
from training.generator_presets import GeneratorPreset, generator_preset
from training.generator_weights import (
    FittedGenerator,
    Sampler,
    save_generator,
    set_weights,
    weights_of,
)
from training.privacy import PrivacyBudget
from training.private_generator import fit_private_generator
from training.progress import Progress, silent
from training.runs import Run, finished_run, start_run
from training.tensorflow_setup import configure

CHECKPOINT_FILE = "checkpoint.npz"
MIN_CLASS_ROWS = 5
FIGURE_ROWS = 5_000
"""Rows drawn for the figures while training."""
LEAST_TEST_ROWS = 5_000
"""Rows drawn for the figures of the finished generator."""


class Trainer(Protocol):
    """What `fit_generator` asks of a pair of networks in training."""

    def advance(self, start: int, steps: int) -> dict[str, float]:
        """Run some steps and return the last losses."""

    def sampler(self) -> Sampler:
        """Return the generator as it would be served now."""

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a resumed training needs."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` returned."""


def train_generator(
    dataset: TokenDataset,
    out: Path,
    *,
    preset: str = "default",
    seed: int = 0,
    epsilon: float | None = None,
    delta: float | None = None,
    progress: Progress = silent,
    resume: bool = True,
    threads: int = 1,
) -> Run:
    """Train on training and validation rows, measure against test rows and save the run.

    A finished run of the same inputs in ``out`` is returned as it is; an unfinished one goes on
    from its checkpoint.  With ``resume=False`` both are ignored.

    With ``epsilon`` the model is (epsilon, delta)-differentially private in those rows; see
    `training.privacy` and `PrivacyBudget.for_rows`.  ``metrics["privacy"]`` then says so, and no
    figure is stored that looks at a learned row.  The vocabulary, the number of rows and the
    digest of the table are taken as public.

    Raises:
        ConfigurationError: There is no such preset, or it cannot keep that privacy.
        TrainingError: The table cannot be learned from, or training diverged.
    """
    recipe = generator_preset(preset)
    chosen = np.isin(dataset.split, (TRAIN, VALIDATION))
    budget = _budget(recipe, epsilon, delta, max(1, int(chosen.sum())))
    privacy = budget and budget.facts()
    done = finished_run(out, "generator", preset, seed, dataset.digest) if resume else None
    if done and done.metrics.get("privacy") == privacy:
        return done
    configure(threads)
    vocabulary = dataset.build_vocabulary()
    rows = _dataset_rows(dataset, dataset.indices(vocabulary))
    learned, tests = learnable(rows.take(chosen)), rows.take(dataset.split == TEST)
    identity = {
        "preset": asdict(recipe), "seed": seed, "privacy": privacy,
        "dataset": dataset.digest, "vocabulary": vocabulary.digest,
    }  # fmt: skip
    checkpoint = ArrayCheckpoint(out / CHECKPOINT_FILE, identity)
    if not resume:
        checkpoint.remove()
    run = start_run(dataset, vocabulary, out, "generator", preset, seed)
    begun = time.perf_counter()
    inputs = (learned, vocabulary.sizes, recipe, seed)
    if budget:
        fitted = fit_private_generator(*inputs, budget, progress=progress, checkpoint=checkpoint)
        run = replace(run, class_prior=fitted.class_prior)
    else:
        fitted = fit_generator(*inputs, progress=progress, checkpoint=checkpoint)
    seconds = time.perf_counter() - begun
    metrics = _metrics(fitted, run, seconds, learned, tests, private=budget is not None)
    if privacy:
        metrics["privacy"] = privacy
    run = replace(run, noise_width=fitted.sampler.noise_width, metrics=metrics)
    save_generator(run.weights_path, fitted)
    run = run.save(vocabulary)
    checkpoint.remove()
    return run


def _budget(
    preset: GeneratorPreset, epsilon: float | None, delta: float | None, rows: int
) -> PrivacyBudget | None:
    if epsilon is None:
        if delta is not None:
            raise ConfigurationError("delta needs an epsilon; give both, or none for no guarantee")
        return None
    if preset.network != "conditional":
        raise ConfigurationError(
            f"the preset {preset.name!r} cannot keep an epsilon: its discriminator learns from "
            "the rows themselves; leave --epsilon out, or take --preset default"
        )
    return PrivacyBudget.for_rows(epsilon, delta, rows)


def _metrics(
    fitted: FittedGenerator, run: Run, seconds: float, learned: Rows, tests: Rows, *, private: bool
) -> dict[str, Any]:
    """Return the run's figures; if it is private, none that looks at learned rows."""
    steps = {"steps": fitted.preset.steps, "chosen_step": fitted.chosen_step}
    training = {"seconds": round(seconds, 3), **steps}
    metrics: dict[str, Any] = {"training": {**training, **fitted.figures}}
    if len(tests.label):
        rows, sizes = len(learned.label), fitted.sampler.heads.sizes
        wanted = max(LEAST_TEST_ROWS, fidelity.tstr_rows(rows))
        drawn = draw(fitted.sampler, wanted, run.class_prior, run.seed)
        metrics["test"] = judge(drawn, tests, sizes, rows)
        if not private:
            metrics["test"] |= judge_learning(drawn, learned, tests, sizes)
    return metrics


def fit_generator(
    learned: Rows,
    sizes: Sequence[int],
    preset: GeneratorPreset,
    seed: int,
    *,
    progress: Progress = silent,
    checkpoint: ArrayCheckpoint | None = None,
) -> FittedGenerator:
    """Train a generator in memory.

    Args:
        learned: Rows without an unseen token, of both classes.
        sizes: Columns of each field.
        preset: Networks and recipe; `GeneratorPreset.for_table` says what it means here.
        seed: Same rows, sizes, preset and seed: same weights, also after a resume.
        progress: Told after each ``preset.check_every`` steps.
        checkpoint: Where to keep the state of the unfinished training.

    Raises:
        TrainingError: A class has too few rows, or training diverged.
    """
    _check_classes(learned)
    preset = preset.for_table(len(learned.label))
    network = ConditionalTrainer if preset.network == "conditional" else CapstoneTrainer
    trainer: Trainer = network(preset, sizes, learned.indices, learned.label, seed)
    best = _Best()
    start = _resume(trainer, best, checkpoint)
    for step in range(start, preset.steps, preset.check_every):
        count = min(preset.check_every, preset.steps - step)
        figures = trainer.advance(step, count)
        figures |= _progress_figures(trainer.sampler(), learned, sizes)
        if not all(math.isfinite(value) for value in figures.values()):
            raise TrainingError(f"the generator's training diverged before step {step + count}")
        best.offer(step + count, figures, trainer.sampler())
        if checkpoint:
            state = {**trainer.state(), **{f"best-{k}": v for k, v in best.weights.items()}}
            facts = {"next": step + count, "step": best.step, "figures": best.figures}
            checkpoint.save(state, facts)
        progress(step + count, preset.steps, figures)
    sampler = trainer.sampler()
    set_weights(sampler, best.weights)
    prior = float(learned.label.mean())
    return FittedGenerator(sampler, best.step, best.figures, prior, preset)


def learnable(rows: Rows) -> Rows:
    """Return the rows whose tokens are all in the vocabulary."""
    return rows.take(np.flatnonzero((rows.indices >= 0).all(axis=1)))


class _Best:
    """The weights of the step with the best pair fidelity so far."""

    def __init__(self) -> None:
        self.step = 0
        self.figures: dict[str, float] = {}
        self.weights: dict[str, np.ndarray] = {}

    def offer(self, step: int, figures: Mapping[str, float], sampler: Sampler) -> None:
        if not self.weights or figures["pair_fidelity"] >= self.figures["pair_fidelity"]:
            self.step, self.figures, self.weights = step, dict(figures), weights_of(sampler)


def _resume(trainer: Trainer, best: _Best, checkpoint: ArrayCheckpoint | None) -> int:
    """Take up a checkpoint, if there is a sound one, and return the next step."""
    saved = checkpoint.load() if checkpoint else None
    if not saved:
        return 0
    arrays, facts = saved
    trainer.restore(arrays)
    best.step, best.figures = facts["step"], facts["figures"]
    best.weights = {k[5:]: v for k, v in arrays.items() if k.startswith("best-")}
    return int(facts["next"])


def _progress_figures(sampler: Sampler, learned: Rows, sizes: Sequence[int]) -> dict[str, float]:
    drawn = draw(sampler, FIGURE_ROWS, float(learned.label.mean()), seed=0)
    columns, pairs = fidelity.fidelity(learned, drawn, sizes)
    return {"column_fidelity": columns, "pair_fidelity": pairs}


def _dataset_rows(dataset: TokenDataset, indices: np.ndarray) -> Rows:
    if len(dataset.label) != dataset.rows or len(dataset.split) != dataset.rows:
        raise TrainingError(
            "the encrypted table has no labels; encrypt it with a schema that has a target"
        )
    return Rows(indices, dataset.label)


def _check_classes(learned: Rows) -> None:
    counts = np.bincount(learned.label, minlength=2)
    for count, name in zip(counts, ("good", "bad"), strict=True):
        if count < MIN_CLASS_ROWS:
            raise TrainingError(
                f"{count} rows of {name} credit without an unseen token; the generator needs at "
                f"least {MIN_CLASS_ROWS}"
            )
