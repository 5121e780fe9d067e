"""Models trained on random halves of one pool of rows, for the membership attacks on classifiers.

Each model is attacked in turn, with the others as the attacker's shadows.  Two models are left out
of the shadows: the one attacked and the *control*, another model of which it is asked which rows
the control learned.  Neither the answers nor the shadows know that, so that an attack must find
nothing there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.classifier.answers import FORMS, AnswerForm, Floats
from attacks.classifier.level_models import fit_level_model
from attacks.classifier.membership import (
    Shadows,
    by_rightness,
    by_signal,
    lira_offline,
    lira_online,
)
from attacks.classifier.pools import Members, Pool
from attacks.ranking import membership_figures
from evaluation.store import Entry, Task
from training.evaluation import auc
from training.presets import ClassifierPreset

Content = dict[str, Any]

ATTACKS = {
    "loss": "loss, one threshold",
    "offline": "LiRA, offline",
    "online": "LiRA, online",
    "control": "control: LiRA, online, on rows of another model",
}
LEAST_MODELS = 4
DIGITS = 6


@dataclass(frozen=True)
class ClassifierShadows:
    """The trainings of one pool.

    Args:
        pool: The rows.
        models: How many are trained.
        preset: Their recipe.
        costs: For their thresholds.
        seed: Of halves and trainings.
        kept: Where results are kept.
        share: Of the pool that each model learns from.
    """

    pool: Pool
    models: int
    preset: ClassifierPreset
    costs: tuple[float, float]
    seed: int
    kept: dict[str, Entry]
    share: float = 0.5

    def tasks(self) -> Iterator[Task]:
        """Yield the trainings."""
        for number in range(self.models):
            yield Task(self.kept, f"model/{number}", partial(self._trained, number))

    @property
    def inside(self) -> Members:
        """Which model learned from which row, bool [models, rows]."""
        both = [self.pool.members(self.seed, n, self.share) for n in range(self.models)]
        return np.stack(both)

    def entries(self) -> list[Entry]:
        """Return the finished trainings."""
        return [self.kept[f"model/{number}"] for number in range(self.models)]

    def confidence(self, form: AnswerForm) -> Floats:
        """Return each model's signal for each row's true class, float64 [models, rows]."""
        label = self.pool.rows.label
        return np.stack([
            confidence_in(entry["logits"], entry["threshold"], label, form)
            for entry in self.entries()
        ])  # fmt: skip

    def _trained(self, number: int) -> Entry:
        learned = self.pool.members(self.seed, number, self.share)
        model = fit_level_model(
            self.pool.take(learned), 1_000 * self.seed + number, self.preset, self.costs
        )
        chance = model.probability(self.pool.rows.levels)
        label = self.pool.rows.label
        return {
            "logits": [round(float(value), DIGITS) for value in logits_of(chance)],
            "threshold": model.threshold,
            "learned_auc": auc(label[learned], chance[learned]),
            "other_auc": auc(label[~learned], chance[~learned]),
        }


def confidence_in(
    logits: list[float] | Floats, threshold: float, label: NDArray[np.int8], form: AnswerForm
) -> Floats:
    """Return a model's signal for each row's true class when it answers in a form."""
    chance = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return form.confidence(form.of(chance, threshold), label, threshold)


def classifier_membership(found: ClassifierShadows) -> Content:
    """Return per form of answer and attack how well members are told from others."""
    inside = found.inside
    return {
        name: _figures(found.confidence(form), inside, found.seed, decision=form.decision)
        for name, form in FORMS.items()
    }


def _figures(signal: Floats, inside: Members, seed: int, *, decision: bool) -> Content:
    scores: dict[str, list[Floats]] = {name: [] for name in ATTACKS}
    control = []
    for target in range(len(signal)):
        other = (target + 1) % len(signal)
        shadows = Shadows(signal, inside).without(target, other)
        online, offline = lira_scores(signal[target], shadows, decision=decision)
        found = {"loss": by_signal(signal[target]), "offline": offline, "online": online,
                 "control": online}  # fmt: skip
        for name, score in found.items():
            scores[name].append(score)
        control.append(inside[other])
    return {
        name: membership_figures(
            np.stack(score), np.stack(control) if name == "control" else inside, seed
        )
        for name, score in scores.items()
    }


def lira_scores(signal: Floats, shadows: Shadows, *, decision: bool) -> tuple[Floats, Floats]:
    """Return online and offline scores by the attack that fits the form of answer."""
    if decision:
        return by_rightness(signal, shadows)
    return lira_online(signal, shadows), lira_offline(signal, shadows)


def logits_of(chance: Floats) -> Floats:
    """Return log-odds, float64 [rows], of probabilities as networks answer them in float32."""
    inside = np.clip(chance, 1e-9, 1 - 1e-9)
    found: Floats = np.log(inside / (1 - inside))
    return found


def mean_of(entries: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the mean of a figure over trainings."""
    return float(np.mean([entry[name] for entry in entries]))
