"""Classifiers trained on plain levels: an attacker's own, and stand-ins for the owner's.

A training cannot tell levels from tokens (`training.network`), so that a model trained on levels
answers as one trained on the tokens of the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attacks.classifier.answers import Floats
from attacks.view import Auxiliary, Indices
from cipherscore.dataset import TRAIN, TokenColumn, TokenDataset
from cipherscore.schema import PublicField, PublicSchema
from training.attribution import OneHiddenLayer, has_closed_form, mean_row
from training.classifier import fit_classifier, predict
from training.evaluation import cost_threshold
from training.network import FieldNetwork
from training.presets import DEFAULT, ClassifierPreset

NO_KEY = "00000000"
"""Key id of levels, which no key made."""


@dataclass(frozen=True)
class LevelModel:
    """A trained classifier that is asked with plain levels.

    Args:
        network: The trained network.
        columns: Per field the network's column of each level, `UNSEEN` where it learned none.
        threshold: Lowest probability that is decided "bad".
        layer: For contributions; None where the network has none in closed form.
    """

    network: FieldNetwork
    columns: tuple[Indices, ...]
    threshold: float
    layer: OneHiddenLayer | None

    def probability(self, levels: Indices) -> Floats:
        """Return the probability of bad credit, float64 [rows], of int32 [rows, fields]."""
        return predict(self.network, self._indices(levels))

    def contributions(self, levels: Indices) -> Floats:
        """Return what each field contributes to the logit, float64 [rows, fields].

        Raises:
            ValueError: The preset's network has no reason codes.
        """
        if self.layer is None:
            raise ValueError("this network has no contributions; train the default preset")
        return self.layer.contributions(self._indices(levels))

    def _indices(self, levels: Indices) -> Indices:
        both = zip(self.columns, levels.T, strict=True)
        return np.stack([columns[level] for columns, level in both], axis=1).astype(np.int32)


def fit_level_model(
    sample: Auxiliary,
    seed: int,
    preset: ClassifierPreset = DEFAULT,
    costs: tuple[float, float] = (1.0, 1.0),
) -> LevelModel:
    """Train on all rows of a sample, as `cipherscore train` does on tokens.

    Args:
        sample: The rows.
        seed: Same rows, preset and seed: same model.
        preset: Network and recipe.
        costs: Of calling a bad applicant good, and of calling a good one bad; they set the
            threshold.

    Raises:
        TrainingError: A class has too few rows, or training diverged.
    """
    dataset = level_dataset(sample)
    vocabulary = dataset.build_vocabulary()
    fitted = fit_classifier(dataset, vocabulary, preset, seed=seed)
    threshold = cost_threshold(fitted.validation_labels, fitted.validation_probabilities, *costs)
    layer = None
    if has_closed_form(fitted.network):
        mean = mean_row(dataset, vocabulary)
        layer = OneHiddenLayer.of(fitted.network, vocabulary.sizes, mean)
    columns = tuple(
        np.asarray(vocabulary.encode(name, [_spelled(level) for level in range(size)]), np.int32)
        for name, size in zip(vocabulary.fields, sample.sizes, strict=True)
    )
    return LevelModel(fitted.network, columns, threshold, layer)


def level_dataset(sample: Auxiliary) -> TokenDataset:
    """Return the rows as a table to train on, each level's number in the place of its token."""
    names = [f"field{number}" for number in range(len(sample.sizes))]
    columns = {}
    for name, column in zip(names, sample.levels.T, strict=True):
        seen, indices = np.unique(column, return_inverse=True)
        columns[name] = TokenColumn(
            tuple(_spelled(int(level)) for level in seen), indices.astype(np.int32)
        )
    fields = tuple(PublicField(name, "categorical") for name in names)
    return TokenDataset(
        schema=PublicSchema("levels", "-", fields, "label", 1.0, 1.0),
        key_id=NO_KEY,
        seed=0,
        digest="",
        columns=columns,
        label=sample.label,
        split=np.full(len(sample.label), TRAIN, np.int8),
    )


def _spelled(level: int) -> bytes:
    return level.to_bytes(2, "big")
