"""Train the classifier on an encrypted table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cipherscore.dataset import TEST, TokenDataset
from cipherscore.errors import TrainingError
from cipherscore.vocabulary import Vocabulary
from training.checkpoint import CHECKPOINT_FILE, Checkpoint, read_tensors, write_tensors
from training.evaluation import Floats, cost_threshold, evaluate
from training.fitting import Fitter
from training.network import FieldNetwork, build_network
from training.preset_file import SUFFIX, label_of, read_preset
from training.presets import ClassifierPreset, classifier_preset
from training.progress import Progress, silent
from training.runs import Run, finished_run, start_run
from training.table import build_table, check_labels

WEIGHTS_FORMAT = 1
PREDICT_ROWS = 8192
"""Rows predicted at a time; it bounds memory."""


@dataclass(frozen=True)
class FittedClassifier:
    """A trained network with its columns in vocabulary order.

    Args:
        network: In evaluation mode.
        steps: Optimiser steps made.
        chosen_step: Step whose weights were kept.
        validation_labels: int8 [rows held out].
        validation_probabilities: float64 [rows held out], from members that did not learn them.
    """

    network: FieldNetwork
    steps: int
    chosen_step: int
    validation_labels: np.ndarray
    validation_probabilities: Floats


def train_classifier(
    dataset: TokenDataset,
    out: Path,
    *,
    preset: str = "default",
    seed: int = 0,
    progress: Progress = silent,
    resume: bool = True,
    threads: int = 1,
) -> Run:
    """Train, choose the threshold on validation rows, evaluate on test rows and save the run.

    A finished run of the same inputs in ``out`` is returned as it is; an unfinished one goes on
    from its checkpoint.  With ``resume=False`` both are ignored.

    Raises:
        ConfigurationError: There is no such preset, by name or as a TOML file.
        TrainingError: The table cannot be learned from, or training diverged.
    """
    if preset.endswith(SUFFIX):
        recipe = read_preset(Path(preset))
        preset = label_of(recipe)
    else:
        recipe = classifier_preset(preset)
    if resume and (done := finished_run(out, "classifier", preset, seed, dataset.digest)):
        return done
    check_labels(dataset)
    vocabulary = dataset.build_vocabulary()
    checkpoint = Checkpoint(
        out / CHECKPOINT_FILE,
        {
            "preset": _plain(recipe),
            "seed": seed,
            "dataset": dataset.digest,
            "vocabulary": vocabulary.digest,
        },
    )
    if not resume:
        checkpoint.remove()
    run = start_run(dataset, vocabulary, out, "classifier", preset, seed)
    begun = time.perf_counter()
    with _threads(threads):
        fitted = fit_classifier(
            dataset, vocabulary, recipe, seed=seed, progress=progress, checkpoint=checkpoint
        )
        seconds = time.perf_counter() - begun
        run = replace(run, **_judge(fitted, dataset, vocabulary, seconds))
    write_tensors(run.weights_path, _weights(fitted.network, vocabulary, recipe))
    run = run.save(vocabulary)
    checkpoint.remove()
    return run


def fit_classifier(
    dataset: TokenDataset,
    vocabulary: Vocabulary,
    preset: ClassifierPreset,
    *,
    seed: int,
    progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
    learn_only: TokenDataset | None = None,
) -> FittedClassifier:
    """Train a network in memory; torch's random state is left as it was.

    Args:
        dataset: An encrypted table with labels; its training and validation rows are used.
        vocabulary: Its columns are the network's.
        preset: Network and recipe.
        seed: Same rows, preset and seed: same weights.
        progress: Told of every look at the validation rows.
        checkpoint: Where to keep the state of the unfinished training.
        learn_only: Further labelled rows under the same key, such as made ones.  They are learned
            from and nothing else: early stopping and the validation answers see the rows of
            ``dataset`` alone.

    Raises:
        TrainingError: The table cannot be learned from, or training diverged.
        DataError: ``learn_only`` is encrypted under another key, or lacks a field.
    """
    table = build_table(dataset, vocabulary, preset, seed, learn_only)
    # Made rows bring no knowledge of their own: what can be learned depends on the others.
    rare = table.rare_rows(0 if learn_only is None else learn_only.rows)
    preset = preset.for_table(len(table.teaching), rare, table.draws)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(preset, vocabulary.sizes)
        network.start_at(0.5 if preset.class_weighting else float(table.labels.mean()))
        network.sharing = table.sharing
        fitter = Fitter(network, table, preset, progress, checkpoint)
        fitter.fit()
    labels, probabilities = fitter.validation()
    network.settle()
    network.move_columns(table.order)
    chosen = fitter.best.step if preset.patience else fitter.step
    return FittedClassifier(network, fitter.step, chosen, labels, probabilities)


def predict(network: FieldNetwork, indices: np.ndarray) -> Floats:
    """Return the probability of bad credit, float64 [rows], for int32 [rows, fields] indices."""
    network.eval()
    parts = [np.empty(0, np.float64)]
    with torch.no_grad():
        for start in range(0, len(indices), PREDICT_ROWS):
            rows = np.ascontiguousarray(indices[start : start + PREDICT_ROWS])
            parts.append(network(torch.from_numpy(rows)).double().numpy())
    return np.concatenate(parts)


def load_network(run: Run) -> FieldNetwork:
    """Read the trained network of a run, in evaluation mode.

    Raises:
        TrainingError: The weights are missing, damaged, or do not fit the run's vocabulary.
    """
    content = read_tensors(run.weights_path)
    sizes = run.vocabulary().sizes
    try:
        fits = content["format"] == WEIGHTS_FORMAT and tuple(content["sizes"]) == sizes
        recipe = {**content["preset"], "hidden": tuple(content["preset"]["hidden"])}
        with torch.random.fork_rng(devices=[]):
            network = build_network(ClassifierPreset(**recipe), sizes)
        network.load_state_dict(content["state"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{run.weights_path}: damaged ({type(error).__name__})") from error
    if not fits:
        raise TrainingError(f"{run.weights_path}: does not fit the run's vocabulary")
    return network.eval()


def _judge(
    fitted: FittedClassifier, dataset: TokenDataset, vocabulary: Vocabulary, seconds: float
) -> dict[str, Any]:
    """Return the run's threshold and metrics; test rows only measure."""
    costs = dataset.schema.cost_false_good, dataset.schema.cost_false_bad
    labels, chances = fitted.validation_labels, fitted.validation_probabilities
    threshold = cost_threshold(labels, chances, *costs)
    metrics: dict[str, Any] = {
        "training": {
            "seconds": round(seconds, 3),
            "steps": fitted.steps,
            "chosen_step": fitted.chosen_step,
        },
        "validation": evaluate(labels, chances, threshold, *costs),
    }
    test = dataset.split == TEST
    if test.any():
        chances = predict(fitted.network, dataset.indices(vocabulary)[test])
        metrics["test"] = evaluate(dataset.label[test], chances, threshold, *costs)
    return {"threshold": threshold, "metrics": metrics}


def _weights(
    network: FieldNetwork, vocabulary: Vocabulary, preset: ClassifierPreset
) -> dict[str, Any]:
    return {
        "format": WEIGHTS_FORMAT,
        "preset": _plain(preset),
        "sizes": list(vocabulary.sizes),
        "state": network.state_dict(),
    }


def _plain(preset: ClassifierPreset) -> dict[str, Any]:
    return {**asdict(preset), "hidden": list(preset.hidden)}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
