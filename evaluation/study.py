"""Every training behind the classifier's figures: folds, learning curve, seeds, other methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from evaluation.code_digest import code_digest
from evaluation.contestants import MAIN, Contestant, Scores
from evaluation.curves import Ranking, average_precision, gini, kolmogorov_smirnov
from evaluation.folds import Fold, RawData, folds
from evaluation.plan import Plan
from evaluation.store import Entry, Store, Task
from training.evaluation import auc, figures

CODE = ("evaluation.folds", "training.classifier", "training.evaluation")
"""Modules that decide what our networks learn from and how; the generator's are not among them."""
DIGITS = 9
"""Decimal places of a kept probability."""


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
        self._facts = {"data": raw.digest, "seed": seed, "folds": plan.folds}
        self._kept = {
            method.name: store.part(method.name, self._identity(method)) for method in methods
        }
        main = self._identity(methods[0])
        self._learning = store.part("learning curve", main)
        self._seeds = store.part("seeds", main)

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

    def _learning_tasks(self, main: Contestant) -> Iterator[Task]:
        for fold in self.folds[: self.plan.learning_folds]:
            for share in self.plan.shares:
                part = fold.learning_from(
                    round(share * len(fold.train)), self.raw.label, fold.training_seed(self.seed)
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
                first = fold.training_seed(self.seed)
                part = fold.learning_from(method.most_rows, raw.label, first)
            scores = method.scores(raw, part, fold.training_seed(self.seed, seed))
            entry = measure(raw, part, scores)
            if rows and method.name == MAIN:
                entry["probabilities"] = [round(float(p), DIGITS) for p in scores.test]
            return entry

        return compute

    def _identity(self, method: Contestant) -> Mapping[str, Any]:
        facts: dict[str, Any] = {**self._facts, "recipe": method.recipe}
        if method.sees != "raw values":
            facts["code"] = code_digest(*CODE)
        if method.capstone_bins and self.capstone is not None:
            facts["data"] = self.capstone.digest
        return facts


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
