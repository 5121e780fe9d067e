"""Named parameter sets of the classifier, frozen and with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cipherscore.errors import ConfigurationError


@dataclass(frozen=True)
class ClassifierPreset:
    """Network and training recipe of a classifier.

    Args:
        name: What ``--preset`` calls it.
        network: ``wide_deep`` (an ensemble of small networks, each beside a linear part) or
            ``layers`` (one chain of dense layers).
        hidden: Units of the hidden layers; ``wide_deep`` has one hidden layer.
        members: Networks in the ensemble, inside one module and one ONNX graph.
        cross_fit: Whether each member keeps another part of the rows for validation, so that every
            row serves both training and validation; otherwise the file's validation rows do.
        steps: Optimiser steps at most; each sees all training rows at once.
        patience: Steps without a better validation loss after which training stops; 0 never stops
            early and keeps the last weights.
        check_every: Steps between two looks at the validation rows, and between two checkpoints.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: Constant over the training.
        wide_decay: Decoupled weight decay of the linear part.
        deep_decay: Decoupled weight decay of all other weights; biases have none.
        input_dropout: Probability with which a whole field of a row is hidden in a training step.
        dropout: Probability with which a hidden unit is dropped in a training step.
        source: Where the numbers come from.
    """

    name: str
    network: Literal["wide_deep", "layers"]
    hidden: tuple[int, ...]
    members: int
    cross_fit: bool
    steps: int
    patience: int
    check_every: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    wide_decay: float
    deep_decay: float
    input_dropout: float
    dropout: float
    source: str


DEFAULT = ClassifierPreset(
    name="default",
    network="wide_deep",
    hidden=(16,),
    members=10,
    cross_fit=True,
    steps=300,
    patience=60,
    check_every=5,
    optimizer="adamw",
    learning_rate=0.01,
    wide_decay=0.1,
    deep_decay=0.3,
    input_dropout=0.4,
    dropout=0.5,
    source="benchmarks/cross_validation.py: best of the recipes tried on German Credit",
)

CAPSTONE = ClassifierPreset(
    name="capstone",
    network="layers",
    hidden=(256, 1024, 512, 256),
    members=1,
    cross_fit=False,
    steps=1000,
    patience=0,
    check_every=20,
    optimizer="sgd",
    learning_rate=0.05,
    wide_decay=0.0,
    deep_decay=0.0,
    input_dropout=0.0,
    dropout=0.1,
    source="the capstone's notebook: 80-256-1024-512-256-1, SGD 0.05, BCE, 1000 epochs",
)

CLASSIFIER_PRESETS: Mapping[str, ClassifierPreset] = MappingProxyType(
    {preset.name: preset for preset in (DEFAULT, CAPSTONE)}
)


def classifier_preset(name: str) -> ClassifierPreset:
    """Return the classifier's parameter set called ``name``.

    Raises:
        ConfigurationError: There is none; the message names those there are.
    """
    try:
        return CLASSIFIER_PRESETS[name]
    except KeyError:
        known = ", ".join(CLASSIFIER_PRESETS)
        raise ConfigurationError(f"no classifier preset {name!r}; there are: {known}") from None
