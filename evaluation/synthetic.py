"""Synthetic rows of our generator, beside two sources that say what their figures are worth.

In each fold the generator learns from the training rows, and its rows are measured against the
test rows.  Real training rows show what is to be reached, and what a copy looks like;
independent columns show what is had without any structure.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np

from cipherscore.client.keys import Keyset
from evaluation.code_digest import code_digest
from evaluation.folds import Fold, RawData, folds, in_plain, token_dataset
from evaluation.paired import estimate
from evaluation.plan import Plan
from evaluation.store import Entry, Store, Task
from training import fidelity, generator
from training.fidelity import Rows
from training.generator_figures import draw, judge, judge_learning
from training.generator_presets import GeneratorPreset
from training.tensorflow_setup import configure

Content = dict[str, Any]

LEAST_DRAWN = 5_000
MOST_ROWS = 50_000
"""Training rows at most, drawn in the classes' proportion."""
UTILITY_FLOOR = 0.97
"""A model trained on synthetic rows is to have this share of a really trained one's AUC."""

REAL, INDEPENDENT, OURS = "real", "independent", "ours"
TITLES = {REAL: "real training rows", INDEPENDENT: "independent columns", OURS: "our generator"}

FIGURES = (
    "tstr_auc", "tstr_boosted_auc", "column_fidelity", "pair_fidelity", "detection_auc",
    "rare_coverage", "validity", "closeness_share", "copy_rate", "membership_auc",
)  # fmt: skip
UTILITY = ("tstr_auc", "tstr_boosted_auc")
LIMITS = {**dict.fromkeys(FIGURES, (0.0, 1.0)), "train_seconds": (0.0, math.inf)}
"""Least and largest value of each figure."""


class SyntheticStudy:
    """Trainings of the generator, and measurements of its rows and of the two other sources.

    Args:
        raw: The table.
        plan: How much to compute.
        preset: Of the generator.
        seed: Seed of folds, trainings and drawn rows.
        store: Where results are kept.
    """

    def __init__(
        self, raw: RawData, plan: Plan, preset: GeneratorPreset, seed: int, store: Store
    ) -> None:
        self.raw = raw
        self.plan = plan
        self.preset = preset
        self.seed = seed
        found = folds(raw, 1, plan.synthetic_parts, seed)
        self.folds = list(islice(found, plan.synthetic_folds))
        facts = {
            "data": raw.digest, "seed": seed, "folds": plan.synthetic_parts,
            "code": code_digest("evaluation.synthetic"),
        }  # fmt: skip
        self._kept = {
            source: store.part(f"synthetic rows: {TITLES[source]}", {**facts, "recipe": recipe})
            for source, recipe in ((REAL, None), (INDEPENDENT, None), (OURS, asdict(preset)))
        }
        self._keyset = Keyset.create()

    def tasks(self) -> Iterator[Task]:
        """Yield all measurements, fold by fold."""
        for fold in self.folds:
            for source, results in self._kept.items():
                yield Task(results, fold.name, self._measured(source, fold))

    def results(self) -> dict[str, list[Entry]]:
        """Return the finished results of each source, in the folds' order."""
        return {
            source: [results[fold.name] for fold in self.folds]
            for source, results in self._kept.items()
        }

    def _measured(self, source: str, fold: Fold) -> Callable[[], Entry]:
        def compute() -> Entry:
            part = fold.learning_from(MOST_ROWS, self.raw.label, self.seed)
            # Levels stand for their tokens, which the trainer cannot tell apart: a key's random
            # order of columns would give other weights in each run.
            dataset = in_plain(*token_dataset(self.raw, part, self._keyset))
            vocabulary = dataset.build_vocabulary()
            rows = Rows(dataset.indices(vocabulary), dataset.label)
            learned, tests = rows.take(part.train), rows.take(part.test)
            return measure_source(source, learned, tests, vocabulary.sizes, self.preset, self.seed)

        return compute


def measure_source(
    source: str, learned: Rows, tests: Rows, sizes: Sequence[int], preset: GeneratorPreset,
    seed: int,
) -> Entry:  # fmt: skip
    """Return the figures of a source's rows; ``train_seconds`` where something was trained."""
    entry: Entry = {"learned_rows": len(learned.label)}
    rows, count = learned, fidelity.tstr_rows(len(learned.label))
    wanted = max(LEAST_DRAWN, count)
    if source == INDEPENDENT:
        rows = independent_columns(learned, wanted, seed)
    elif source == OURS:
        configure(1)
        begun = time.perf_counter()
        fitted = generator.fit_generator(learned, sizes, preset, seed)
        entry["train_seconds"] = round(time.perf_counter() - begun, 3)
        prior = float(learned.label.mean())
        rows = draw(fitted.sampler, wanted, prior, seed + 1)
    judged = judge(rows, tests, sizes, len(learned.label))
    judged |= judge_learning(rows, learned, tests, sizes)
    entry |= {name: judged[name] for name in FIGURES if name in judged}
    entry["tstr_boosted_auc"] = fidelity.tstr_auc(rows, tests, sizes, count, boosted=True)
    entry["fidelity_table"] = fidelity.fidelity_table(tests, rows, sizes).round(6).tolist()
    return entry


def independent_columns(learned: Rows, count: int, seed: int) -> Rows:
    """Draw every column by itself from ``learned``: perfect columns, no structure."""
    random = np.random.default_rng(seed)
    columns = [random.choice(column, count) for column in learned.indices.T]
    return Rows(np.stack(columns, axis=1), random.choice(learned.label, count))


def synthetic_rows(study: SyntheticStudy) -> Content:
    """Return the figures of a finished study: a row per source, shares of real AUC, and tables."""
    results = study.results()
    share = 1 / (study.plan.synthetic_parts - 1)
    target = study.raw.schema.target
    return {
        "preset": study.preset.name,
        "seed": study.seed,
        "folds": len(study.folds),
        "parts": study.plan.synthetic_parts,
        "learned_rows": results[OURS][0]["learned_rows"],
        "tstr_rows": fidelity.tstr_rows(results[OURS][0]["learned_rows"]),
        "sources": [
            {"name": source, "title": TITLES[source], "figures": _estimates(entries, share)}
            for source, entries in results.items()
        ],
        "floor": UTILITY_FLOOR,
        "utility": {name: _utility(results, name, share) for name in UTILITY},
        "fields": [*study.raw.schema.by_name, target.name],
        "fidelity": {
            source: np.mean([entry["fidelity_table"] for entry in entries], axis=0).tolist()
            for source, entries in results.items()
        },
    }


def _estimates(entries: Sequence[Entry], share: float) -> Content:
    return {
        name: asdict(estimate([entry[name] for entry in entries], share, limits))
        for name, limits in LIMITS.items()
        if name in entries[0]
    }


def _utility(results: Mapping[str, Sequence[Entry]], name: str, share: float) -> Content:
    """Return the share of the real rows' figure that our rows give, over the same folds."""
    pairs = zip(results[OURS], results[REAL], strict=True)
    return asdict(estimate([ours[name] / real[name] for ours, real in pairs], share))
