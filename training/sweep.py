"""Search for a classifier's recipe: optimiser, learning rate, depth, width, decay and dropout.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) proposes recipes; each is scored by
the mean AUC over stratified folds of the training and validation rows (of the validation rows
alone where training rows have copies), on tokens.  Test rows are never looked at.  A recipe that is
behind the median of the others after a fold is given up.

The best of a hundred is a little lucky on the folds that chose it.  So the best few are scored
again beside the default preset, on rows divided anew, and the winner there is the result.

All trials are kept in a journal: interrupted, or killed, the same call goes on, to the same result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from cipherscore.dataset import TEST, VALIDATION, TokenColumn, TokenDataset
from cipherscore.errors import ConfigurationError, TrainingError
from training.classifier import fit_classifier, predict
from training.evaluation import auc
from training.optimizers import OPTIMIZERS
from training.presets import CAPSTONE, DEFAULT, ClassifierPreset
from training.progress import Progress, silent
from training.table import stratified_parts

JOURNAL = "study.journal"
PRUNE_AFTER = 10
"""Trials that run to their end whatever their first folds say."""
FINALISTS = 5
"""Recipes that are scored again, besides the default preset."""
DIVISIONS = 3
"""Times the rows are divided anew for them."""
DIVERGED_AUC = 0.5
"""What a recipe gets whose training diverges: it is as bad as a coin."""
_NAME = "cipherscore-classifier"
_INPUTS, _AGAIN = "inputs", "scored-again-"
_PRESENT = {
    "optimizer": DEFAULT.optimizer,
    f"learning_rate_{DEFAULT.optimizer}": DEFAULT.learning_rate,
    "dropout": DEFAULT.dropout,
    "input_dropout": DEFAULT.input_dropout,
    "depth": len(DEFAULT.hidden),
    "width": DEFAULT.hidden[0],
    "deep_decay": DEFAULT.deep_decay,
    "wide_decay": DEFAULT.wide_decay,
    "members": DEFAULT.members,
}
"""The default preset, tried first."""
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Finalist:
    """A recipe that was scored again.

    Args:
        number: Its trial.
        auc: Mean AUC over all folds of `DIVISIONS` new divisions.
        sd: Their standard deviation.
    """

    number: int
    auc: float
    sd: float


@dataclass(frozen=True)
class Sweep:
    """A finished search.

    Args:
        best: The finalist's recipe with the highest AUC.
        finalists: The best of the search and the default preset, the best first.
        trials: All trials that ended by themselves, in order.
        importance: Share of the AUC's variance that each choice explains (fANOVA, Hutter et al.
            2014), highest first; empty with fewer than two whole trials.
    """

    best: ClassifierPreset
    finalists: Sequence[Finalist]
    trials: Sequence[FrozenTrial]
    importance: dict[str, float]


def sweep_classifier(
    dataset: TokenDataset,
    out: Path,
    *,
    trials: int = 100,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> Sweep:
    """Try recipes until ``trials`` of them have ended, those of earlier calls included.

    Args:
        dataset: An encrypted table with labels.
        out: Folder of the journal.
        trials: Recipes to try.
        folds: Folds that each is scored on.
        seed: Same table, folds and seed, same trials.
        progress: Told the best AUC so far after each trial.

    Raises:
        ConfigurationError: ``out`` holds a search of another table, or with other folds or seed.
        TrainingError: No recipe was scored on all folds.
    """
    out.mkdir(parents=True, exist_ok=True)
    study = _open(out / JOURNAL, {"dataset": dataset.digest, "folds": folds, "seed": seed})
    parts = list(_folds(dataset, folds, seed))
    while (done := len(_ended(study))) < trials:
        # A sampler of its own for each trial: what it proposes depends on the trials before it
        # alone, not on whether there was an interruption in between.
        study.sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + done)
        study.optimize(lambda trial: _score(trial, parts, seed), n_trials=1)
        progress(done + 1, trials + FINALISTS + 1, {"best_auc": _best_value(study)})
    finalists = []
    for number, trial in enumerate(chosen := _finalists(study)):
        finalists.append(_again(study, trial, dataset, folds, seed))
        best = max(one.auc for one in finalists)
        progress(trials + number + 1, trials + len(chosen), {"best_auc": best})
    return _result(study, finalists)


def recipe(trial: Trial | FrozenTrial) -> ClassifierPreset:
    """Return the recipe of a trial: what it proposes, or what a frozen one proposed."""
    optimizer = trial.suggest_categorical("optimizer", sorted(OPTIMIZERS))
    low, high = (0.05, 10.0) if optimizer == "adadelta" else (1e-3, 1.0)
    rate = trial.suggest_float(f"learning_rate_{optimizer}", low, high, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    input_dropout = trial.suggest_float("input_dropout", 0.0, 0.6)
    # Decoupled decay (Loshchilov and Hutter 2019) is of another scale than a penalty's gradient.
    decoupled = optimizer == "adamw"
    limits = (1e-3, 1.0) if decoupled else (1e-6, 1e-2)
    kind = "decay" if decoupled else "penalty"
    depth = trial.suggest_int("depth", 1, 4)
    width = trial.suggest_categorical("width", [8, 16, 32, 64, 128])
    deep_decay = trial.suggest_float(f"deep_{kind}", *limits, log=True)
    chosen: dict[str, Any] = {
        "optimizer": optimizer, "learning_rate": rate, "dropout": dropout,
        "input_dropout": input_dropout, "deep_decay": deep_decay,
        "name": "swept", "source": f"cipherscore sweep, trial {trial.number}",
    }  # fmt: skip
    if depth > 1:
        layers = replace(CAPSTONE, steps=DEFAULT.steps, patience=DEFAULT.patience)
        return replace(layers, hidden=(width,) * depth, check_every=DEFAULT.check_every, **chosen)
    wide_decay = trial.suggest_float(f"wide_{kind}", *limits, log=True)
    members = trial.suggest_categorical("members", [5, 10, 20])
    return replace(DEFAULT, hidden=(width,), members=members, wide_decay=wide_decay, **chosen)


def _finalists(study: optuna.Study) -> list[FrozenTrial]:
    """Return the default preset's trial and the `FINALISTS` best of the others."""
    whole = [trial for trial in _ended(study) if trial.state == TrialState.COMPLETE]
    if not whole:
        raise TrainingError("no recipe was scored on all folds; try more trials")
    first, *others = sorted(whole, key=lambda trial: trial.number)
    best = sorted(others, key=lambda trial: -(trial.value or 0.0))[:FINALISTS]
    return [first, *best]


def _again(
    study: optuna.Study, trial: FrozenTrial, dataset: TokenDataset, folds: int, seed: int
) -> Finalist:
    """Score a recipe on new divisions, or return what an earlier call found."""
    name = f"{_AGAIN}{trial.number}"
    values: list[float] = study.user_attrs.get(name, [])
    for number in range(len(values) // folds, DIVISIONS):
        division = 1_000 * seed + number + 1
        try:
            parts = _folds(dataset, folds, division)
            values = values + [_fold_auc(fold, recipe(trial), division) for fold in parts]
        except TrainingError:
            values = values + [DIVERGED_AUC] * folds
        study.set_user_attr(name, values)
    return Finalist(trial.number, float(np.mean(values)), float(np.std(values)))


def _fold_auc(fold: TokenDataset, preset: ClassifierPreset, seed: int) -> float:
    """Train on a fold's other rows and return the AUC on its own.

    Raises:
        TrainingError: The training diverged.
    """
    vocabulary = fold.build_vocabulary(fold.split != TEST)
    fitted = fit_classifier(fold, vocabulary, preset, seed=seed)
    tests = fold.split == TEST
    return auc(fold.label[tests], predict(fitted.network, fold.indices(vocabulary)[tests]))


def _score(trial: Trial, folds: Sequence[TokenDataset], seed: int) -> float:
    preset = recipe(trial)
    values: list[float] = []
    begun = time.perf_counter()
    for number, fold in enumerate(folds):
        try:
            values.append(_fold_auc(fold, preset, seed))
        except TrainingError as error:
            trial.set_user_attr("failed", str(error))
            return DIVERGED_AUC
        trial.report(float(np.mean(values)), number)
        if number + 1 < len(folds) and trial.should_prune():
            raise optuna.TrialPruned
    trial.set_user_attr("sd", float(np.std(values)))
    trial.set_user_attr("seconds_per_fold", (time.perf_counter() - begun) / len(folds))
    return float(np.mean(values))


def _folds(dataset: TokenDataset, count: int, seed: int) -> list[TokenDataset]:
    """Return the learning rows, once for each fold, the fold's rows marked as tests.

    Where training rows have copies, the folds divide the validation rows, which have none.

    Raises:
        TrainingError: A class has too few validation rows for that.
    """
    learning = dataset.split != TEST
    columns = {
        name: TokenColumn(column.dictionary, column.indices[learning])
        for name, column in dataset.columns.items()
    }
    label, split = dataset.label[learning], dataset.split[learning]
    if dataset.draws > 1:
        parts = np.full(len(label), count)
        alone = split == VALIDATION
        least = int(np.bincount(label[alone], minlength=2).min())
        if least < count:
            raise TrainingError(
                f"the encrypted table has {dataset.draws} draws of each training row, so that "
                f"folds are made of validation rows, and {least} of the rarer class, too few for "
                f"{count} folds; give --folds {max(2, least)}, or encrypt with one draw"
            )
        parts[alone] = stratified_parts(label[alone], count, seed)
    else:
        parts = stratified_parts(label, count, seed)
    return [
        replace(
            dataset,
            columns=columns,
            label=label,
            split=np.where(parts == number, TEST, split).astype(np.int8),
        )
        for number in range(count)
    ]


def _open(journal: Path, inputs: dict[str, Any]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=_NAME,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER),
    )
    before = study.user_attrs.get(_INPUTS)
    if before is None:
        study.set_user_attr(_INPUTS, inputs)
    elif before != inputs:
        changed = ", ".join(name for name in inputs if before.get(name) != inputs[name])
        raise ConfigurationError(
            f"{journal} holds a search with another {changed}; give another folder, or remove it"
        )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # by a process that was killed
    if not study.get_trials(deepcopy=False, states=(*_DONE, TrialState.WAITING)):
        study.enqueue_trial(_PRESENT)
    return study


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=_DONE)


def _best_value(study: optuna.Study) -> float:
    return max((t.value or 0.0 for t in _ended(study) if t.state == TrialState.COMPLETE), default=0)


def _result(study: optuna.Study, finalists: list[Finalist]) -> Sweep:
    ranked = sorted(finalists, key=lambda one: (-one.auc, one.number))
    best = next(trial for trial in _ended(study) if trial.number == ranked[0].number)
    importance = {}
    with suppress(RuntimeError):  # all trials have the same AUC
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        importance = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Sweep(recipe(best), ranked, _ended(study), importance)
