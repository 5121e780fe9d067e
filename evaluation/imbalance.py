"""Does balancing the classes help?  Our classifier on the same folds with and without.

Only the training differs.  The rows that stop the training and choose the threshold are real rows
in every case, and so are the test rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from cipherscore.client.keys import Keyset
from cipherscore.dataset import TokenDataset
from evaluation.code_digest import code_digest
from evaluation.contestants import network_scores
from evaluation.curves import calibration
from evaluation.folds import Fold, RawData, folds, in_plain, token_dataset
from evaluation.oversampling import generated_rows, smote_rows
from evaluation.paired import compare, estimate, holm
from evaluation.plan import Plan
from evaluation.store import Entry, Store, Task
from evaluation.study import CODE, measure
from training.generator_presets import GeneratorPreset
from training.presets import ClassifierPreset

Content = dict[str, Any]

MOST_ROWS = 10_000
"""Training rows at most, drawn in the classes' proportion."""
SIGNIFICANT = 0.05
NONE = "none"
METHODS = {
    NONE: "nothing",
    "weights": "class weights in the loss",
    "smote": "SMOTE-NC on raw values",
    "generator": "rows of our generator",
}
MAKE_ROWS = ("smote", "generator")
OVERSAMPLING = "evaluation.oversampling"
"""Module that the results of `MAKE_ROWS` depend on besides."""

LOWER_IS_BETTER = ("brier", "calibration_error", "cost_at_threshold", "cost_at_ratio")
FIGURES = ("auc", "average_precision", "ks", *LOWER_IS_BETTER)


class ImbalanceStudy:
    """Trainings of one classifier with classes balanced in several ways.

    Args:
        raw: The table.
        plan: How much to compute.
        preset: Of the classifier.
        generator: Of the generator.
        seed: Seed of folds and trainings.
        store: Where results are kept.
    """

    def __init__(
        self, raw: RawData, plan: Plan, preset: ClassifierPreset, generator: GeneratorPreset,
        seed: int, store: Store,
    ) -> None:  # fmt: skip
        self.raw = raw
        self.plan = plan
        self.preset = preset
        self.generator = generator
        self.seed = seed
        self.folds = list(folds(raw, 1, plan.folds, seed))[: plan.imbalance_folds]
        facts = {
            "data": raw.digest, "seed": seed, "folds": plan.folds, "preset": asdict(preset),
        }  # fmt: skip
        made = {"generator": asdict(generator), "code": code_digest(*CODE, OVERSAMPLING)}
        real = {"code": code_digest(*CODE)}
        self._kept = {
            name: store.part(
                f"imbalance: {name}", {**facts, **(made if name in MAKE_ROWS else real)}
            )
            for name in METHODS
        }
        self._keyset = Keyset.create()

    def tasks(self) -> Iterator[Task]:
        """Yield all trainings, fold by fold."""
        for fold in self.folds:
            for name, results in self._kept.items():
                yield Task(results, fold.name, partial(self._trained, name, fold))

    def results(self) -> dict[str, list[Entry]]:
        """Return the finished results of each method, in the folds' order."""
        return {
            name: [results[fold.name] for fold in self.folds]
            for name, results in self._kept.items()
        }

    def _trained(self, name: str, fold: Fold) -> Entry:
        seed = fold.training_seed(self.seed)
        part = fold.learning_from(MOST_ROWS, self.raw.label, seed)
        # Levels stand for their tokens, as in `evaluation.synthetic`.
        dataset = in_plain(*token_dataset(self.raw, part, self._keyset))
        made = self._made(name, part, dataset, seed)
        preset = replace(self.preset, class_weighting=name == "weights")
        scores = network_scores(self.raw, part, dataset, preset, seed, learn_only=made)
        entry = measure(self.raw, part, scores)
        return {
            **{figure: entry[figure] for figure in ("auc", "average_precision", "ks", "brier")},
            "calibration_error": calibration(self.raw.label[part.test], scores.test).error,
            "cost_at_threshold": entry["tuned"]["expected_cost"],
            "cost_at_ratio": entry["expected_cost"],
            "learned_rows": entry["learned_rows"],
            "made_rows": 0 if made is None else made.rows,
        }

    def _made(self, name: str, fold: Fold, dataset: TokenDataset, seed: int) -> TokenDataset | None:
        if name == "smote":
            return smote_rows(self.raw, fold, dataset, seed)
        if name == "generator":
            return generated_rows(fold, dataset, self.generator, seed)
        return None


def imbalance(study: ImbalanceStudy) -> Content:
    """Return a row per method with its paired differences to doing nothing, and what they say.

    p-values are adjusted (Holm) for all methods and figures together.
    """
    results = study.results()
    share = study.plan.test_share
    rows = []
    for name, entries in results.items():
        values = {figure: [entry[figure] for entry in entries] for figure in FIGURES}
        row: Content = {
            "name": name,
            "title": METHODS[name],
            "made_rows": max(entry["made_rows"] for entry in entries),
            "seconds": math.fsum(entry["seconds"] for entry in entries) / len(entries),
            "figures": {
                figure: asdict(estimate(values[figure], share, _limits(figure)))
                for figure in FIGURES
            },
        }
        if name != NONE:
            row["difference"] = {
                figure: _difference(values[figure], [e[figure] for e in results[NONE]], share)
                for figure in FIGURES
            }
        rows.append(row)
    tests = [test for row in rows[1:] for test in row["difference"].values()]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p
    return {
        "preset": study.preset.name,
        "folds": len(study.folds),
        "learned_rows": results[NONE][0]["learned_rows"],
        "most_rows": MOST_ROWS,
        "bad_share": float((study.raw.label == 1).mean()),
        "tests": len(tests),
        "methods": rows,
        "findings": [finding(row) for row in rows[1:]],
    }


def _difference(values: list[float], without: list[float], share: float) -> Content:
    found = compare(values, without, share)
    return {**asdict(found.estimate), "t": found.t, "p": found.p}


def finding(row: Content) -> Content:
    """Return the figures that a method moves beyond chance, the better and the worse ones apart."""
    better: list[Content] = []
    worse: list[Content] = []
    for figure, test in row["difference"].items():
        if math.isnan(test["p_holm"]) or test["p_holm"] >= SIGNIFICANT:
            continue
        gain = -test["mean"] if figure in LOWER_IS_BETTER else test["mean"]
        (better if gain > 0 else worse).append({"figure": figure, "difference": test["mean"]})
    tested = not math.isnan(row["difference"]["auc"]["p_holm"])
    return {"title": row["title"], "tested": tested, "better": better, "worse": worse}


def _limits(figure: str) -> tuple[float, float]:
    return (0.0, math.inf) if figure.startswith("cost") else (0.0, 1.0)
