"""What a model's answers tell about new applicants, on one cut of a table.

Half of the table teaches the model.  Of the other half, some rows are *applicants*, whom the model
answers; the rest is the attacker's sample.  Neither model nor attacker has seen an applicant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.classifier.answers import (
    DECISION,
    FORMS,
    FULL,
    ONE,
    TWO,
    AnswerForm,
    Floats,
    ScoringModel,
)
from attacks.classifier.inference import (
    AnswerTable,
    Expectation,
    Imputer,
    halves,
    infer_field,
    likeliest,
    marginals,
    spread_between,
)
from attacks.classifier.level_models import LevelModel, fit_level_model
from attacks.classifier.reason_log import ReasonLog
from attacks.classifier.reconstruction import (
    ContributionTable,
    Reasons,
    Told,
    evidence,
    reconstruct,
    refine,
)
from attacks.cuts import Cut
from attacks.view import Auxiliary, Indices
from evaluation.store import Entry
from training.presets import ClassifierPreset

APPLICANT_SHARE = 0.2
MOST_APPLICANTS = 300
MOST_SAMPLE = 5_000
"""Rows of the attacker's sample at most: what it learns hardly depends on more."""
OWN_MODELS = 2
"""Models that an attacker who cannot ask trains on its whole sample."""

ALL = 255
"""As many reasons as there are fields."""


@dataclass(frozen=True)
class Setting:
    """What a service tells with an answer.

    Args:
        name: Key in results.
        title: What the report calls it.
        form: Of the score; None for no score.
        reasons: How many.
        decimals: Contributions are rounded to these; None for not at all.
    """

    name: str
    title: str
    form: AnswerForm | None
    reasons: int = 0
    decimals: int | None = None


SETTINGS = (
    Setting("decision", "decision only", DECISION),
    Setting("one", "score, 1 decimal", ONE),
    Setting("two", "score, 2 decimals", TWO),
    Setting("score", "score", FULL),
    Setting("score_1", "score and 1 reason", FULL, 1),
    Setting("one_4_rounded", "score and 4 reasons, both 1 decimal", ONE, 4, 1),
    Setting("one_4", "score, 1 decimal, and 4 reasons", ONE, 4),
    Setting("score_4", "score and 4 reasons", FULL, 4),
    Setting("all_rounded", "all reasons, 1 decimal", None, ALL, 1),
    Setting("all", "all reasons", None, ALL),
)
INFERENCE = {
    "mode": "most frequent level",
    "imputation": "from the other fields and the label",
    "own": "and the answer, with own models",
    "query": "and the answer, asking the model",
}
RECONSTRUCTION = {
    "own": "own models",
    "log": "own models, all answers together",
    "query": "asking the model",
    "exact": "with the model and what tokens mean",
}


@dataclass(frozen=True)
class Scene:
    """One cut's model, people and attacker.

    Args:
        model: The owner's.
        learned: Rows it learned from.
        people: int32 [applicants, fields], their true levels.
        label: int8 [applicants].
        sample: The attacker's rows.
        own: Models that the attacker trained on all its rows.
        own_halves: Two that it trained on separate halves of them.
    """

    model: LevelModel
    learned: int
    people: Indices
    label: NDArray[np.int8]
    sample: Auxiliary
    own: tuple[LevelModel, ...]
    own_halves: tuple[LevelModel, LevelModel]

    @classmethod
    def of(cls, cut: Cut, preset: ClassifierPreset, costs: tuple[float, float]) -> Scene:
        """Train the owner's model and the attacker's on a cut."""
        pool, count = cut.pool, len(cut.pool.label)
        people = slice(0, min(MOST_APPLICANTS, round(APPLICANT_SHARE * count)))
        rest = slice(people.stop, people.stop + MOST_SAMPLE)
        sample = Auxiliary(pool.levels[rest], pool.label[rest], pool.sizes)
        learned = Auxiliary(cut.truth, cut.table.label, pool.sizes)
        seed = 1_000_000 + 1_000 * cut.seed + 10 * cut.number

        def fit(rows: Auxiliary, number: int) -> LevelModel:
            return fit_level_model(rows, seed + number, preset, costs)

        first, second = halves(sample)
        return cls(
            model=fit(learned, 0),
            learned=len(learned.label),
            people=pool.levels[people],
            label=pool.label[people],
            sample=sample,
            own=tuple(fit(sample, 1 + number) for number in range(OWN_MODELS)),
            own_halves=(fit(first, 5), fit(second, 6)),
        )


def attacked_answers(scene: Scene) -> Entry:
    """Return per attack the share of applicants of whom each field is named correctly."""
    told = scene.model.probability(scene.people)
    return {
        "learned": scene.learned,
        "applicants": len(scene.people),
        "sample": len(scene.sample.label),
        "inference": _inference(scene, told),
        "score_only": _score_only(scene, told),
        "reconstruction": _reconstruction(scene, told),
    }


def _inference(scene: Scene, told: Floats) -> Entry:
    """Return ``{form: {attack: [fields]}}`` where all other fields are known."""
    imputer = Imputer(scene.sample, with_label=True)
    priors = imputer.log_shares(scene.people, scene.label)
    first, second = scene.own_halves
    spread = spread_between(first, second, scene.sample.levels)
    expectations = {
        "own": Expectation(scene.own, spread), "query": Expectation([scene.model], 0.0)
    }  # fmt: skip
    baselines = {"mode": _modes(scene), "imputation": _right(scene, likeliest(priors))}
    found: Entry = {}
    for name, form in FORMS.items():
        answers = form.of(told, scene.model.threshold)
        found[name] = dict(baselines)
        for attack, expectation in expectations.items():
            guess = [
                infer_field(field, scene.people, prior, expectation, answers, form,
                            scene.model.threshold)
                for field, prior in enumerate(priors)
            ]  # fmt: skip
            found[name][attack] = _right(scene, np.stack(guess, axis=1))
    return found


def _score_only(scene: Scene, told: Floats) -> Entry:
    """Return ``{known: [fields]}`` for an attacker that has only a score, only a label, or both.

    It knows which scores people of each level get: it asks the model for its own rows.
    """
    asked = scene.model.probability(scene.sample.levels)
    score = AnswerTable(scene.sample, asked)
    both = AnswerTable(scene.sample, asked, with_label=True)
    label = AnswerTable(scene.sample, np.zeros(len(asked)), with_label=True)
    nothing = np.zeros(len(told))
    return {
        "mode": _modes(scene),
        "label": _right(scene, likeliest(label.log_shares(nothing, scene.label))),
        "score": _right(scene, likeliest(score.log_shares(told))),
        "score_label": _right(scene, likeliest(both.log_shares(told, scene.label))),
    }


def _reconstruction(scene: Scene, told: Floats) -> Entry:
    """Return ``{setting: {attacker: [fields]}}`` where no field is known."""
    imputer = Imputer(scene.sample, with_label=False)
    models: dict[str, tuple[ScoringModel, ...]] = {
        "own": scene.own, "query": (scene.model,)
    }  # fmt: skip
    first, second = (model.contributions(scene.sample.levels) for model in scene.own_halves)
    own = [model.contributions(scene.sample.levels) for model in scene.own]
    asked = scene.model.contributions(scene.sample.levels)
    tables = {
        "own": ContributionTable.estimated(scene.sample, own, (first, second)),
        "query": ContributionTable.asked(scene.sample, asked),
    }
    contributions = scene.model.contributions(scene.people)
    found: Entry = {}
    for setting in SETTINGS:
        seen = _told(setting, scene, told, contributions)
        guesses = {}
        for name, table in tables.items():
            found_in = evidence(seen, table, _answers(setting, scene, models[name][0]))
            guesses[name] = reconstruct(seen, found_in, scene.sample, imputer)
        if setting.reasons:
            # `found_in` is what the model itself was found to say, the last of the tables.
            guesses["exact"] = refine(seen, guesses["query"], found_in, scene.model, imputer)
        if seen.reasons.told.all():
            guesses["log"] = _from_log(
                seen, guesses["own"], tables["own"], _answers(setting, scene, scene.own[0]),
                scene.sample, imputer,
            )  # fmt: skip
        found[setting.name] = {name: _right(scene, guess) for name, guess in guesses.items()}
    return found


def _from_log(
    told: Told,
    guess: Indices,
    table: ContributionTable,
    answers: AnswerTable,
    sample: Auxiliary,
    imputer: Imputer,
) -> Indices:
    """Name the fields by own models and by all answers together."""
    learned = ReasonLog(told.reasons, sample, table, imputer).learned(guess)
    return reconstruct(told, evidence(told, learned, answers), sample, imputer)


def _told(setting: Setting, scene: Scene, told: Floats, contributions: Floats) -> Told:
    form = setting.form or FULL
    score = None if setting.form is None else form.of(told, scene.model.threshold)
    reasons = Reasons.largest(contributions, setting.reasons, setting.decimals)
    return Told(reasons, score, form, scene.model.threshold)


def _answers(setting: Setting, scene: Scene, model: ScoringModel) -> AnswerTable:
    form = setting.form or FULL
    chance = model.probability(scene.sample.levels)
    return AnswerTable(scene.sample, form.of(chance, scene.model.threshold))


def _modes(scene: Scene) -> list[float]:
    shares = marginals(scene.sample)
    return _right(scene, likeliest([np.repeat(s[None], len(scene.people), 0) for s in shares]))


def _right(scene: Scene, guess: Indices) -> list[float]:
    """Return the share of applicants of whom a field is named correctly, field by field."""
    return [float(share) for share in (guess == scene.people).mean(axis=0)]
