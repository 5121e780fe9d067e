"""Membership attacks on a finished training of the classifier, with the table it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attacks.classifier.answers import FORMS, Floats
from attacks.classifier.membership import Shadows, by_signal
from attacks.classifier.pools import Members, Pool
from attacks.classifier.shadows import ClassifierShadows, confidence_in, lira_scores, logits_of
from attacks.ranking import membership_figures
from attacks.view import Auxiliary
from cipherscore.dataset import TEST, TokenDataset, read_tokens
from cipherscore.errors import ConfigurationError, TrainingError
from cipherscore.vocabulary import UNSEEN, Vocabulary
from evaluation.code_digest import code_digest
from evaluation.store import Entry, Store, Task
from training.checkpoint import read_tensors
from training.classifier import load_network, predict
from training.presets import ClassifierPreset
from training.runs import ModelKind, Run

Content = dict[str, Any]

SHADOWS = 32
LEAST_OUTSIDE = 20
"""Test rows that a table must have, for the attacker to tell learned rows from."""
ATTACKED = "attacked"


@dataclass(frozen=True)
class GivenTable:
    """A training with the table it came from.

    Args:
        run: The training's facts.
        pool: All rows of the table with tokens by number; the last number of a field stands for
            tokens that the training never saw.
        indices: int32 [rows, fields], as the model takes them.
        members: bool [rows], rows the model learned from.
    """

    run: Run
    pool: Pool
    indices: np.ndarray
    members: Members

    @classmethod
    def of(cls, folder: Path, tokens: Path, kind: ModelKind) -> GivenTable:
        """Read a finished training and its table.

        Raises:
            ConfigurationError: The training is of another table or kind, or the table has too few
                test rows.
            DataError: The table cannot be read.
            TrainingError: The training cannot be read.
        """
        run, dataset = Run.load(folder), read_tokens(tokens)
        if run.kind != kind:
            raise ConfigurationError(f"{folder}: a {run.kind}'s training, not a {kind}'s")
        if run.dataset_digest != dataset.digest:
            raise ConfigurationError(
                f"{folder}: not trained on {tokens}; give the token table that it was trained on"
            )
        members = dataset.split != TEST
        if int((~members).sum()) < LEAST_OUTSIDE:
            raise ConfigurationError(
                f"{tokens}: {int((~members).sum())} test rows are too few to attack the model "
                f"with; encrypt the table with {LEAST_OUTSIDE} test rows or more"
            )
        vocabulary = run.vocabulary()
        pool = token_pool(dataset, vocabulary)
        return cls(run, pool, dataset.indices(vocabulary), members)

    @property
    def facts(self) -> Content:
        """What results depend on."""
        return {"run": self.run.dataset_digest, "weights": _digest(self.run.weights_path)}

    @property
    def share(self) -> float:
        """Share of the table's rows that the model learned from."""
        return float(self.members.mean())


@dataclass(frozen=True)
class GivenClassifier:
    """The attacks on one classifier, with shadows trained on random parts of the same table.

    Args:
        table: The training and its rows.
        shadows: As large parts as the model's own, drawn from all rows.
        kept: Where results are kept.
    """

    table: GivenTable
    shadows: ClassifierShadows
    kept: dict[str, Entry]

    @classmethod
    def of(
        cls, folder: Path, tokens: Path, shadows: int | None, seed: int, store: Store
    ) -> GivenClassifier:
        """Read the training; for errors see `GivenTable.of`."""
        table = GivenTable.of(folder, tokens, "classifier")
        schema, count = table.run.schema, shadows or SHADOWS
        facts = {**table.facts, "seed": seed, "code": code_digest("attacks.classifier.given")}
        kept = store.part("given classifier: shadows", facts)
        found = ClassifierShadows(
            table.pool, count, _preset_of(table.run),
            (schema.cost_false_good, schema.cost_false_bad), seed, kept, table.share,
        )  # fmt: skip
        return cls(table, found, store.part("given classifier", {**facts, "shadows": count}))

    def tasks(self) -> Iterator[Task]:
        """Yield the shadows' trainings, and the attacks."""
        yield from self.shadows.tasks()
        yield Task(self.kept, ATTACKED, partial(self._attacked))

    def figures(self) -> Content:
        """Return what the finished attacks found."""
        run, found = self.table.run, self.kept[ATTACKED]
        return {
            "model": run.model_name, "preset": run.preset, "seed": run.seed,
            "members": int(self.table.members.sum()), "others": int((~self.table.members).sum()),
            "shadows": self.shadows.models,
            "membership": {name: found[name] for name in FORMS},
        }  # fmt: skip

    def _attacked(self) -> Entry:
        table, threshold = self.table, self.table.run.threshold
        chance = predict(load_network(table.run), table.indices)
        logits, label = logits_of(chance), table.pool.rows.label
        found = {}
        for name, form in FORMS.items():
            signal = confidence_in(logits, 0.5 if threshold is None else threshold, label, form)
            shadows = Shadows(self.shadows.confidence(form), self.shadows.inside)
            found[name] = self._figures(signal, shadows, decision=form.decision)
        return found

    def _figures(self, signal: Floats, shadows: Shadows, *, decision: bool) -> Content:
        online, offline = lira_scores(signal, shadows, decision=decision)
        control = lira_scores(signal, shadows.without(0), decision=decision)[0]
        found = {
            "loss": (by_signal(signal), self.table.members),
            "offline": (offline, self.table.members),
            "online": (online, self.table.members),
            # Which rows did the first shadow learn?  It is none of the shadows here.
            "control": (control, shadows.inside[0]),
        }
        return {
            name: membership_figures(score[None], members[None], self.shadows.seed)
            for name, (score, members) in found.items()
        }


def token_pool(dataset: TokenDataset, vocabulary: Vocabulary) -> Pool:
    """Return a token table's rows by token number, unseen tokens as one more number."""
    indices = dataset.indices(vocabulary)
    sizes = tuple(size + 1 for size in vocabulary.sizes)
    levels = np.where(indices == UNSEEN, np.array(vocabulary.sizes), indices).astype(np.int32)
    return Pool(Auxiliary(levels, dataset.label.astype(np.int8), sizes))


def _preset_of(run: Run) -> ClassifierPreset:
    """Return the recipe that a run was trained with, from its weights."""
    content = read_tensors(run.weights_path)
    try:
        recipe = {**content["preset"], "hidden": tuple(content["preset"]["hidden"])}
        return ClassifierPreset(**recipe)
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{run.weights_path}: damaged ({type(error).__name__})") from error


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
