"""Named parameter sets of the classifier, frozen and with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from cipherscore.errors import ConfigurationError

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta"]
"""Names of `training.optimizers.OPTIMIZERS`."""


@dataclass(frozen=True)
class ClassifierPreset:
    """Network and training recipe of a classifier.

    One preset serves tables of every size: `for_table` says what it means for one of them.

    Args:
        name: What ``--preset`` calls it.
        network: ``wide_deep`` (an ensemble of small networks, each beside a linear part) or
            ``layers`` (one chain of dense layers).
        hidden: Units of the hidden layers; ``wide_deep`` has one hidden layer.
        members: Networks in the ensemble, inside one module and one ONNX graph.
        cross_fit: Whether each member keeps another part of the rows for validation, so that every
            row serves both training and validation; otherwise the file's validation rows do.
        steps: Optimiser steps at most.
        patience: Steps without a better validation loss after which training stops; 0 never stops
            early and keeps the last weights.
        check_every: Steps between two looks at the validation rows, and between two checkpoints.
        optimizer: What `training.optimizers.build_optimizer` knows.
        learning_rate: Constant over the training.
        wide_decay: Decoupled weight decay of the linear part.
        deep_decay: Decoupled weight decay of all other weights; biases have none.
        input_dropout: Probability with which a whole field of a row is hidden in a training step.
        dropout: Probability with which a hidden unit is dropped in a training step.
        source: Where the numbers come from.
        batch_rows: Rows of a step at most.  A table of more rows is cut into batches, dealt anew in
            each pass; 0 shows every step the whole table.
        epochs: Passes over a table of several batches at most, where that is more than ``steps``.
            Copies of a row that have other homophones do not make a pass longer.
        patience_epochs: Likewise for ``patience``.
        averaging: Decay per step of the moving average of the weights, which is what is looked at
            and kept; 0 keeps the weights themselves.
        full_strength_rows: Rows of the rarer class up to which learning rate, decay and dropout
            have the values above.
        strength_exponent: With ``n`` rows of the rarer class, more than that, they are multiplied
            by ``(full_strength_rows / n) ** strength_exponent``.
        class_weighting: Whether both classes weigh as much in the training loss, however rare one
            is.  Probabilities then no longer fit the table's share of bad.
    """

    name: str
    network: Literal["wide_deep", "layers"]
    hidden: tuple[int, ...]
    members: int
    cross_fit: bool
    steps: int
    patience: int
    check_every: int
    optimizer: OptimizerName
    learning_rate: float
    wide_decay: float
    deep_decay: float
    input_dropout: float
    dropout: float
    source: str
    batch_rows: int = 0
    epochs: int = 0
    patience_epochs: int = 0
    averaging: float = 0.0
    full_strength_rows: int = 0
    strength_exponent: float = 0.0
    class_weighting: bool = False

    def for_table(self, rows: int, rare_rows: float, draws: int = 1) -> ClassifierPreset:
        """Return the numbers that hold for a table; of the result it returns the result itself.

        Args:
            rows: Rows to learn from.
            rare_rows: Those of the rarer class among them, copies of a row counted as one; how
                much can be learned without overfitting depends on these.
            draws: Copies of a row.  A *lap* is the number of steps that show as many rows as
                there are without copies; without copies it is a pass.  Copies bring no knowledge
                of their own, so steps, patience and looks are counted in laps.
        """
        lap = -(-rows // (self.batch_rows * draws)) if self.batch_rows else 1
        strength = 1.0
        if self.full_strength_rows and rare_rows > self.full_strength_rows:
            strength = (self.full_strength_rows / rare_rows) ** self.strength_exponent
        return replace(
            self,
            steps=max(self.steps, self.epochs * lap),
            patience=max(self.patience, self.patience_epochs * lap) if self.patience else 0,
            # Looks fall on ends of passes, so that a checkpoint need not hold the order of rows;
            # where rows have copies it does.
            check_every=-(-self.check_every // lap) * lap,
            learning_rate=self.learning_rate * strength,
            wide_decay=self.wide_decay * strength,
            deep_decay=self.deep_decay * strength,
            input_dropout=self.input_dropout * strength,
            dropout=self.dropout * strength,
            full_strength_rows=0,
        )


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
    source="docs/decisions/0007-one-preset-for-all-sizes.md",
    batch_rows=1024,
    epochs=30,
    patience_epochs=3,
    averaging=0.98,
    full_strength_rows=300,
    strength_exponent=1 / 3,
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
