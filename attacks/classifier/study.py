"""All attacks on the classifier: who was in its training, and what its answers tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from attacks.classifier.answers import FORMS
from attacks.classifier.cuts import INFERENCE, RECONSTRUCTION, SETTINGS, Scene, attacked_answers
from attacks.classifier.given import GivenClassifier
from attacks.classifier.pools import Pool
from attacks.classifier.shadows import (
    ATTACKS,
    LEAST_MODELS,
    ClassifierShadows,
    classifier_membership,
    mean_of,
)
from attacks.cuts import Cut
from attacks.recovery import SAMPLES, estimates
from attacks.request import Request
from cipherscore.errors import ConfigurationError
from evaluation.code_digest import code_digest
from evaluation.folds import RawData
from evaluation.store import Entry, Store, Task
from training.presets import DEFAULT

Content = dict[str, Any]

LARGE_ROWS = 5_000
"""From here on fewer models are trained, on a part of the rows, and fewer cuts made."""
MOST_POOL = 10_000
SHADOWS, LARGE_SHADOWS = 64, 24
CUTS, LARGE_CUTS = 20, 5
MEMBERSHIP = "membership"

SCORE_ONLY = {
    "mode": "nothing: most frequent level",
    "label": "the label",
    "score": "the score",
    "score_label": "the score and the label",
}


class ClassifierStudy:
    """The attacks on classifiers of one table.

    Args:
        raw: The table.
        shadows: Classifiers for the membership attacks; None for as many as the size asks for.
        cuts: Times the table is cut for the attacks on answers; None likewise.
        seed: Of everything random.
        store: Where results are kept.
        given: A training the owner has, to be attacked too; None for none.

    Raises:
        ConfigurationError: There are too few shadows.
    """

    def __init__(
        self,
        raw: RawData,
        shadows: int | None,
        cuts: int | None,
        seed: int,
        store: Store,
        given: GivenClassifier | None = None,
    ) -> None:
        large = raw.rows >= LARGE_ROWS
        self.raw, self.seed, self.given = raw, seed, given
        self.cuts = cuts or (LARGE_CUTS if large else CUTS)
        count = shadows or (LARGE_SHADOWS if large else SHADOWS)
        if count < LEAST_MODELS:
            raise ConfigurationError(
                f"shadows {count} are too few to attack one with the others; give "
                f"{LEAST_MODELS} or more"
            )
        facts = {"data": raw.digest, "seed": seed, "preset": asdict(DEFAULT)}
        trained = {**facts, "code": code_digest("attacks.classifier.shadows")}
        answered = {**facts, "code": code_digest("attacks.classifier.cuts")}
        target = raw.schema.target
        self.costs = (target.cost_false_good, target.cost_false_bad)
        kept = store.part("classifier: shadows", trained)
        pool = Pool.of(raw, MOST_POOL, seed)
        self.shadows = ClassifierShadows(pool, count, DEFAULT, self.costs, seed, kept)
        self._ranked = store.part("classifier: membership", {**trained, "shadows": count})
        self._cut = store.part("classifier: answers", answered)

    def tasks(self) -> Iterator[Task]:
        """Yield trainings and attacks; membership is attacked once all shadows are trained."""
        yield from self.shadows.tasks()
        yield Task(self._ranked, MEMBERSHIP, partial(classifier_membership, self.shadows))
        for number in range(self.cuts):
            yield Task(self._cut, str(number), partial(self._answers, number))
        if self.given:
            yield from self.given.tasks()

    def membership(self) -> Content:
        """Return the finished membership attacks."""
        found = self._ranked[MEMBERSHIP]
        return {name: found[name] for name in FORMS}

    def answers(self) -> list[Entry]:
        """Return the finished attacks on answers, cut by cut."""
        return [self._cut[str(number)] for number in range(self.cuts)]

    def _answers(self, number: int) -> Entry:
        return attacked_answers(Scene.of(Cut.of(self.raw, number, self.seed), DEFAULT, self.costs))


def classifier_study(request: Request, raw: RawData, store: Store) -> ClassifierStudy:
    """Return the study of a request.

    Raises:
        ConfigurationError: There are too few shadows, or the given training is of another table.
        DataError: The token table cannot be read.
        TrainingError: The given training cannot be read.
    """
    given = None
    if request.given and request.given.model:
        given = GivenClassifier.of(request.given.model, request.given.tokens, request.shadows,
                                   request.seed, store)  # fmt: skip
    return ClassifierStudy(raw, request.shadows, request.cuts, request.seed, store, given)


def classifier_figures(study: ClassifierStudy) -> Content:
    """Return what the attacks found, as it goes into the report."""
    entries = study.answers()
    models = study.shadows.entries()
    return {
        "preset": study.shadows.preset.name,
        "shadows": study.shadows.models,
        "pool_rows": len(study.shadows.pool.rows.label),
        "learned_auc": mean_of(models, "learned_auc"),
        "other_auc": mean_of(models, "other_auc"),
        "forms": _titles({name: form.title for name, form in FORMS.items()}),
        "membership_attacks": _titles(ATTACKS),
        "membership": study.membership(),
        "cuts": study.cuts,
        "samples_drawn": SAMPLES,
        "learned_rows": entries[0]["learned"],
        "sample_rows": entries[0]["sample"],
        "applicants": entries[0]["applicants"],
        "fields": [field.name for field in study.raw.schema.fields],
        "score_only_attacks": _titles(SCORE_ONLY),
        "score_only": _shares([entry["score_only"] for entry in entries], study.seed),
        "inference_attacks": _titles(INFERENCE),
        "inference": {
            name: _shares([entry["inference"][name] for entry in entries], study.seed)
            for name in FORMS
        },
        "attackers": _titles(RECONSTRUCTION),
        "settings_told": _titles({setting.name: setting.title for setting in SETTINGS}),
        "reconstruction": {
            setting.name: _shares(
                [entry["reconstruction"][setting.name] for entry in entries], study.seed
            )
            for setting in SETTINGS
        },
        **({"given": study.given.figures()} if study.given else {}),
    }


def _titles(names: Mapping[str, str]) -> list[Content]:
    return [{"name": name, "title": title} for name, title in names.items()]


def _shares(entries: Sequence[Mapping[str, Sequence[float]]], seed: int) -> Content:
    """Return per attack the mean share of fields named correctly, its interval, and each field."""
    found = {name: np.array([entry[name] for entry in entries]) for name in entries[0]}
    cells = estimates({name: shares.mean(axis=1).tolist() for name, shares in found.items()}, seed)
    return {
        name: {"cells": cells[name], "fields": shares.mean(axis=0).tolist()}
        for name, shares in found.items()
    }
