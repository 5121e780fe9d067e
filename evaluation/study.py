"""Run every training an evaluation needs, one after the other, each kept on disk when it is done.

The file holds figures per fold and, for the method evaluated in depth, the probability of each
test row: no value, no label, no key.  It is the place from which an interrupted study goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import cipherscore.client
import training
from cipherscore.errors import ConfigurationError
from cipherscore.files import write_bytes
from evaluation.contestants import MAIN, Contestant, Scores
from evaluation.curves import Ranking, average_precision, gini, kolmogorov_smirnov
from evaluation.folds import Fold, RawData, folds
from evaluation.plan import Plan
from training.evaluation import auc, figures
from training.progress import Progress, silent

FORMAT = 1
DIGITS = 9
"""Decimal places of a kept probability."""

Entry = dict[str, Any]
"""Result of one training."""


class Store:
    """Results by part and key in one JSON file, written atomically after every result.

    A part whose ``identity`` has changed is computed again.

    Raises:
        ConfigurationError: The file is there and is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                known, parts = content["format"] == FORMAT, content["parts"]
            except (OSError, ValueError, KeyError, TypeError):
                known, parts = False, None
            if not known or not isinstance(parts, dict):
                raise ConfigurationError(
                    f"{path}: no results file of this version; remove it or give another --out"
                )
            self._parts = parts

    def part(self, name: str, identity: Mapping[str, Any]) -> dict[str, Entry]:
        """Return the results of a part by key, empty if they came from anything else."""
        wanted = json.loads(json.dumps(identity))
        part = self._parts.get(name)
        if part is None or part["identity"] != wanted:
            part = self._parts[name] = {"identity": wanted, "results": {}}
        results: dict[str, Entry] = part["results"]
        return results

    def save(self) -> None:
        """Write the file, readable by its owner only."""
        content = json.dumps({"format": FORMAT, "parts": self._parts}, sort_keys=True)
        write_bytes(self.path, content.encode() + b"\n", 0o600)


@dataclass(frozen=True)
class Task:
    """One training: where its result is kept and how it is made."""

    results: dict[str, Entry]
    key: str
    compute: Callable[[], Entry]


class Study:
    """All trainings of one evaluation.

    Args:
        raw: The table.
        capstone: The same table under the capstone's own bins; None where it has none.
        methods: Methods to compare, the one evaluated in depth first.
        plan: How much to compute.
        seed: Seed of folds and trainings.
        store: Where results are kept.
    """

    def __init__(
        self,
        raw: RawData,
        capstone: RawData | None,
        methods: list[Contestant],
        plan: Plan,
        seed: int,
        store: Store,
    ) -> None:
        self.raw = raw
        self.capstone = capstone
        self.methods = methods
        self.plan = plan
        self.seed = seed
        self.folds = list(folds(raw, plan.repeats, plan.folds, seed))
        self._store = store
        self._facts = {"data": raw.digest, "seed": seed, "folds": plan.folds}
        self._code = sources_digest()
        self._kept = {
            method.name: store.part(method.name, self._identity(method)) for method in methods
        }
        main = self._identity(methods[0])
        self._learning = store.part("learning curve", main)
        self._seeds = store.part("seeds", main)

    def run(self, progress: Progress = silent) -> None:
        """Compute what is missing on one thread; an interrupt loses the training under way only."""
        with _one_thread():
            self._run(progress)

    def _run(self, progress: Progress) -> None:
        tasks = list(self.tasks())
        for done, task in enumerate(tasks):
            if task.key not in task.results:
                begun = time.perf_counter()
                entry = task.compute()
                entry["seconds"] = round(time.perf_counter() - begun, 3)
                task.results[task.key] = entry
                self._store.save()
            found = task.results[task.key]
            progress(done + 1, len(tasks), {"auc": found["auc"]})

    def tasks(self) -> Iterator[Task]:
        """Yield all trainings, the quick ones of the main method first."""
        for method in self.methods:
            for fold in self.folds_of(method):
                yield Task(self._kept[method.name], fold.name, self._fold(method, fold))
            if method.name == MAIN:
                yield from self._learning_tasks(method)
                yield from self._seed_tasks(method)

    def results(self) -> dict[str, dict[str, Entry]]:
        """Return the finished results of each method by fold, in the folds' order."""
        return {
            method.name: {
                fold.name: self._kept[method.name][fold.name] for fold in self.folds_of(method)
            }
            for method in self.methods
        }

    def learning(self) -> dict[str, Entry]:
        """Return the results of the learning curve, keys ``share/repeat/number``."""
        return {task.key: task.results[task.key] for task in self._learning_tasks(self.methods[0])}

    def seeds(self) -> dict[str, Entry]:
        """Return the results of further seeds, keys ``seed/repeat/number``."""
        return {task.key: task.results[task.key] for task in self._seed_tasks(self.methods[0])}

    def folds_of(self, method: Contestant) -> list[Fold]:
        """Return the folds a method runs on."""
        found = [
            fold
            for fold in self.folds
            if method.most_repeats is None or fold.repeat < method.most_repeats
        ]
        return found[: method.most_folds]

    def training_seed(self, fold: Fold, number: int = 0) -> int:
        """Return the seed of a fold's training; ``number`` counts further seeds."""
        return 1_000_000 * number + 10_000 * self.seed + 100 * fold.repeat + fold.number

    def _learning_tasks(self, main: Contestant) -> Iterator[Task]:
        for fold in self.folds[: self.plan.learning_folds]:
            for share in self.plan.shares:
                part = fold.learning_from(
                    round(share * len(fold.train)), self.raw.label, self.training_seed(fold)
                )
                yield Task(
                    self._learning, f"{share}/{fold.name}", self._fold(main, part, rows=False)
                )

    def _seed_tasks(self, main: Contestant) -> Iterator[Task]:
        for number in range(1, self.plan.seeds):
            for fold in self.folds[: self.plan.seed_folds]:
                compute = self._fold(main, fold, seed=number, rows=False)
                yield Task(self._seeds, f"{number}/{fold.name}", compute)

    def _fold(
        self, method: Contestant, fold: Fold, *, seed: int = 0, rows: bool = True
    ) -> Callable[[], Entry]:
        def compute() -> Entry:
            raw = self.capstone if method.capstone_bins and self.capstone else self.raw
            part = fold
            if method.most_rows is not None:
                part = fold.learning_from(method.most_rows, raw.label, self.training_seed(fold))
            scores = method.scores(raw, part, self.training_seed(fold, seed))
            entry = measure(raw, part, scores)
            if rows and method.name == MAIN:
                entry["probabilities"] = [round(float(p), DIGITS) for p in scores.test]
            return entry

        return compute

    def _identity(self, method: Contestant) -> Mapping[str, Any]:
        facts: dict[str, Any] = {**self._facts, "recipe": method.recipe}
        if method.sees != "raw values":
            facts["code"] = self._code
        if method.capstone_bins and self.capstone is not None:
            facts["data"] = self.capstone.digest
        return facts


@cache
def sources_digest() -> str:
    """Return a digest of the code that decides what our networks learn from and how.

    It is taken once in a process, which keeps the code it was started with.
    """
    digest = hashlib.sha256()
    for module in (cipherscore, cipherscore.client, training):
        for source in sorted(Path(str(module.__file__)).parent.glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def measure(raw: RawData, fold: Fold, scores: Scores) -> Entry:
    """Return a fold's figures.

    ``accuracy`` is at probability 0.5 and ``expected_cost`` at the ratio of the costs, thresholds
    known before any row is seen and the same for every method; ``tuned`` holds all figures at the
    threshold from held-out training rows, where the method has one.
    """
    label, target = raw.label[fold.test], raw.schema.target
    costs = target.cost_false_good, target.cost_false_bad
    ranking = Ranking.of(label, scores.test)
    fair = costs[1] / sum(costs)
    half = figures(label, scores.test, 0.5, *costs)
    entry: Entry = {
        "auc": half["auc"],
        "gini": gini(ranking),
        "ks": kolmogorov_smirnov(ranking)[0],
        "average_precision": average_precision(ranking),
        "accuracy": half["accuracy"],
        "log_loss": half["log_loss"],
        "brier": half["brier"],
        "expected_cost": figures(label, scores.test, fair, *costs)["expected_cost"],
        "learned_rows": len(fold.train),
    }
    if scores.threshold is not None:
        entry["threshold"] = scores.threshold
        entry["tuned"] = figures(label, scores.test, scores.threshold, *costs)
    if scores.train is not None:
        entry["train_auc"] = auc(raw.label[fold.train], np.asarray(scores.train, np.float64))
    return entry


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch, BLAS and OpenMP to one thread, so that seconds can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
