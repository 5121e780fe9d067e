"""Train the generator on an encrypted table, and make rows with a trained one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cipherscore.dataset import TEST, TRAIN, VALIDATION, TokenDataset
from cipherscore.errors import TrainingError
from training import disclosure, fidelity
from training.arrays import ArrayCheckpoint, Arrays, read_arrays, write_arrays
from training.capstone_gan import CapstoneSampler, CapstoneTrainer, build_dense
from training.fidelity import Rows
from training.gan import ConditionalSampler, ConditionalTrainer, build_generator
from training.generator_presets import GeneratorPreset, generator_preset
from training.progress import Progress, silent
from training.runs import Run, finished_run, start_run
from training.tensorflow_setup import configure, tf

WEIGHTS_FORMAT = 1
CHECKPOINT_FILE = "checkpoint.npz"
MIN_CLASS_ROWS = 5
FIGURE_ROWS = 2_000
"""Rows drawn for the figures while training."""
TEST_ROWS = 5_000
"""Rows drawn for the figures of the finished generator."""
DRAW_CHUNK = 4_096

Sampler = ConditionalSampler | CapstoneSampler


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


@dataclass(frozen=True)
class FittedGenerator:
    """A trained generator.

    Args:
        sampler: With the kept weights.
        chosen_step: Step they are from: the one with the best pair fidelity to the learned rows.
        figures: Figures of that step.
    """

    sampler: Sampler
    chosen_step: int
    figures: Mapping[str, float]


def train_generator(
    dataset: TokenDataset,
    out: Path,
    *,
    preset: str = "default",
    seed: int = 0,
    progress: Progress = silent,
    resume: bool = True,
    threads: int = 1,
) -> Run:
    """Train on training and validation rows, measure against test rows and save the run.

    A finished run of the same inputs in ``out`` is returned as it is; an unfinished one goes on
    from its checkpoint.  With ``resume=False`` both are ignored.

    Raises:
        ConfigurationError: There is no such preset.
        TrainingError: The table cannot be learned from, or training diverged.
    """
    recipe = generator_preset(preset)
    if resume and (done := finished_run(out, "generator", preset, seed, dataset.digest)):
        return done
    configure(threads)
    vocabulary = dataset.build_vocabulary()
    rows = _dataset_rows(dataset, dataset.indices(vocabulary))
    learned = learnable(rows.take(np.isin(dataset.split, (TRAIN, VALIDATION))))
    identity = {
        "preset": asdict(recipe), "seed": seed,
        "dataset": dataset.digest, "vocabulary": vocabulary.digest,
    }  # fmt: skip
    checkpoint = ArrayCheckpoint(out / CHECKPOINT_FILE, identity)
    if not resume:
        checkpoint.remove()
    run = start_run(dataset, vocabulary, out, "generator", preset, seed)
    begun = time.perf_counter()
    fitted = fit_generator(
        learned, vocabulary.sizes, recipe, seed, progress=progress, checkpoint=checkpoint
    )
    metrics: dict[str, Any] = {
        "training": {
            "seconds": round(time.perf_counter() - begun, 3),
            "steps": recipe.steps,
            "chosen_step": fitted.chosen_step,
            **fitted.figures,
        }
    }
    tests = rows.take(dataset.split == TEST)
    if len(tests.label):
        drawn = draw(fitted.sampler, TEST_ROWS, run.class_prior, seed)
        metrics["test"] = judge(drawn, learned, tests, vocabulary.sizes)
    run = replace(run, noise_width=fitted.sampler.noise_width, metrics=metrics)
    write_arrays(run.weights_path, _weights(fitted.sampler), _facts(recipe, vocabulary.sizes))
    run = run.save(vocabulary)
    checkpoint.remove()
    return run


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
        preset: Networks and recipe.
        seed: Same rows, sizes, preset and seed: same weights, also after a resume.
        progress: Told after each ``preset.check_every`` steps.
        checkpoint: Where to keep the state of the unfinished training.

    Raises:
        TrainingError: A class has too few rows, or training diverged.
    """
    _check_classes(learned)
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
    _set_weights(sampler, best.weights)
    return FittedGenerator(sampler, best.step, best.figures)


def draw(sampler: Sampler, count: int, class_prior: float, seed: int) -> Rows:
    """Make ``count`` rows, the class of each drawn with ``class_prior`` as the share of bad."""
    random = np.random.Generator(np.random.PCG64(seed))
    label = (random.random(count) < class_prior).astype(np.int8)
    parts = [np.empty((0, len(sampler.heads.sizes)), np.int32)]
    for start in range(0, count, DRAW_CHUNK):
        classes = label[start : start + DRAW_CHUNK].astype(np.int32)
        shape = (len(classes), sampler.noise_width)
        noise = random.standard_normal(shape, dtype=np.float32)
        parts.append(sampler(tf.constant(noise), tf.constant(classes))[0].numpy())
    return Rows(np.concatenate(parts), label)


def judge(drawn: Rows, learned: Rows, tests: Rows, sizes: Sequence[int]) -> dict[str, float]:
    """Return the figures of drawn rows against rows the generator never saw."""
    columns, pairs = fidelity.fidelity(tests, drawn, sizes)
    return {
        "column_fidelity": columns,
        "pair_fidelity": pairs,
        "tstr_auc": fidelity.tstr_auc(drawn, tests, sizes),
        "real_auc": fidelity.tstr_auc(learned, tests, sizes, rows=None),
        "closeness_share": fidelity.closeness_share(drawn, learned, tests, sizes),
        "copy_rate": fidelity.copy_rate(drawn, learned),
        "validity": disclosure.validity(drawn, sizes),
        "rare_coverage": disclosure.rare_coverage(drawn, learned, sizes),
        "detection_auc": disclosure.detection_auc(drawn, tests, sizes),
        "membership_auc": disclosure.membership_auc(drawn, learned, tests, sizes),
    }


def learnable(rows: Rows) -> Rows:
    """Return the rows whose tokens are all in the vocabulary."""
    return rows.take(np.flatnonzero((rows.indices >= 0).all(axis=1)))


def load_sampler(run: Run) -> Sampler:
    """Read the trained generator of a run.

    Raises:
        TrainingError: The weights are missing, damaged, or do not fit the run's vocabulary.
    """
    arrays, facts = read_arrays(run.weights_path)
    sizes = run.vocabulary().sizes
    try:
        fits = facts["format"] == WEIGHTS_FORMAT and tuple(facts["sizes"]) == sizes
        hidden = {k: tuple(facts["preset"][k]) for k in ("generator_hidden", "critic_hidden")}
        sampler = build_sampler(GeneratorPreset(**{**facts["preset"], **hidden}), sizes)
        _set_weights(sampler, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{run.weights_path}: damaged ({type(error).__name__})") from error
    if not fits:
        raise TrainingError(f"{run.weights_path}: does not fit the run's vocabulary")
    return sampler


def build_sampler(preset: GeneratorPreset, sizes: Sequence[int]) -> Sampler:
    """Return the untrained generator of ``preset``."""
    if preset.network == "capstone":
        dense = build_dense(sum(sizes) + 1, preset.generator_hidden, 0, "generator")
        return CapstoneSampler(dense, sizes)
    return ConditionalSampler(build_generator(preset, sum(sizes)), sizes, preset.latent)


class _Best:
    """The weights of the step with the best pair fidelity so far."""

    def __init__(self) -> None:
        self.step = 0
        self.figures: dict[str, float] = {}
        self.weights: dict[str, np.ndarray] = {}

    def offer(self, step: int, figures: Mapping[str, float], sampler: Sampler) -> None:
        if not self.weights or figures["pair_fidelity"] >= self.figures["pair_fidelity"]:
            self.step, self.figures, self.weights = step, dict(figures), _weights(sampler)


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


def _weights(sampler: Sampler) -> dict[str, np.ndarray]:
    return {f"w{i:03}": value.copy() for i, value in enumerate(sampler.network.get_weights())}


def _set_weights(sampler: Sampler, weights: Arrays) -> None:
    sampler.network.set_weights([weights[name] for name in sorted(weights)])


def _facts(preset: GeneratorPreset, sizes: Sequence[int]) -> dict[str, Any]:
    return {"format": WEIGHTS_FORMAT, "preset": asdict(preset), "sizes": list(sizes)}


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
