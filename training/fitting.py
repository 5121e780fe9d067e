"""The training loop of the classifier: resumable, early stopped, deterministic for a seed."""

from __future__ import annotations

import math
import time
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cipherscore.errors import TrainingError
from training.checkpoint import Checkpoint
from training.evaluation import Floats, auc
from training.network import FieldNetwork
from training.presets import ClassifierPreset
from training.progress import Progress
from training.table import TrainingTable

CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints written to disk."""

LEAST_GAIN = 1e-4
"""A validation loss counts as better when it is lower by this much."""


@dataclass
class _Best:
    """Best step so far by validation loss, and its weights."""

    step: int = 0
    loss: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


class Fitter:
    """Trains one network on one table.

    torch's global random state is the training's; call it inside `torch.random.fork_rng`.

    Args:
        network: Freshly built; its columns are the table's.
        table: Rows to learn from and to validate on.
        preset: The recipe.
        progress: Told loss, validation loss and validation AUC at every look.
        checkpoint: Where to keep the state; nothing is kept without one.
    """

    def __init__(
        self,
        network: FieldNetwork,
        table: TrainingTable,
        preset: ClassifierPreset,
        progress: Progress,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.network = network
        self.table = table
        self.preset = preset
        self.progress = progress
        self.checkpoint = checkpoint
        self.optimizer = _optimizer(network, preset)
        self.step = 0
        self.best = _Best()
        learns = ~table.held_out
        used = learns.any(dim=1)
        self._rows = table.rows[used]
        self._targets = table.labels[used, None].expand(-1, network.members)
        self._weights = learns[used] / learns.sum(dim=0)
        self._validates = table.held_out.any(dim=1).numpy()
        self._labels = table.labels.numpy().astype(np.int8)[self._validates]

    def fit(self) -> None:
        """Train to the end; afterwards the network holds the chosen weights.

        An interrupt leaves a checkpoint of the last look, from which the next call goes on to
        exactly the weights that an uninterrupted training gives.

        Raises:
            TrainingError: The loss is no longer finite.
        """
        self._restore()
        written, state = time.monotonic(), self._state() if self.checkpoint else {}
        try:
            while self.step < self.preset.steps and not self._out_of_patience():
                loss = self._train_step()
                if self.step % self.preset.check_every and self.step < self.preset.steps:
                    continue
                self._look(loss)
                if self.checkpoint:
                    state = self._state()
                    if time.monotonic() - written > CHECKPOINT_SECONDS:
                        self.checkpoint.save(state)
                        written = time.monotonic()
        except KeyboardInterrupt:
            if self.checkpoint:
                self.checkpoint.save(state)
            raise
        if self.preset.patience:
            self.network.load_state_dict(self.best.weights)
        self.network.eval()

    def validation(self) -> tuple[np.ndarray, Floats]:
        """Return labels (int8) and probabilities (float64) of the rows held out from training.

        A row's logit is the mean over the members that did not learn from it.
        """
        self.network.eval()
        with torch.no_grad():
            logits = self.network.member_logits(self.table.rows)
        held_out = self.table.held_out
        mean = (logits * held_out).sum(dim=1) / held_out.sum(dim=1).clamp(min=1)
        chances = torch.sigmoid(mean.double()).numpy()[self._validates]
        return self._labels, chances

    def _train_step(self) -> float:
        self.network.train()
        logits = self.network.member_logits(self._hide_fields(self._rows))
        losses = functional.binary_cross_entropy_with_logits(
            logits, self._targets, reduction="none"
        )
        total = (losses * self._weights).sum()
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        loss = float(total.detach()) / self.network.members
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} after {self.step} steps; try another seed")
        return loss

    def _hide_fields(self, rows: Tensor) -> Tensor:
        share = self.preset.input_dropout
        if not share:
            return rows
        fields = int(self.table.field_of_column[-1]) + 1
        kept = (torch.rand(len(rows), fields) >= share) / (1 - share)
        return rows * kept[:, self.table.field_of_column]

    def _look(self, loss: float) -> None:
        labels, chances = self.validation()
        right = np.where(labels == 1, chances, 1 - chances)
        validation_loss = float(-np.log(np.clip(right, 1e-12, 1)).mean())
        if self.preset.patience and validation_loss < self.best.loss - LEAST_GAIN:
            self.best = _Best(self.step, validation_loss, _copy(self.network))
        figures = {
            "loss": loss,
            "validation_loss": validation_loss,
            "validation_auc": auc(labels, chances),
        }
        self.progress(self.step, self.preset.steps, figures)

    def _out_of_patience(self) -> bool:
        patience = self.preset.patience
        return bool(patience and self.best.weights and self.step - self.best.step >= patience)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "network": _copy(self.network),
            "optimizer": deepcopy(self.optimizer.state_dict()),
            "random": torch.get_rng_state(),
            "best": dict(vars(self.best)),
        }

    def _restore(self) -> None:
        state = self.checkpoint.load() if self.checkpoint else None
        if state is None:
            return
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.best = _Best(**state["best"])


def _copy(network: FieldNetwork) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _optimizer(network: FieldNetwork, preset: ClassifierPreset) -> torch.optim.Optimizer:
    groups = [
        {"params": network.wide_parameters(), "weight_decay": preset.wide_decay},
        {"params": network.deep_parameters(), "weight_decay": preset.deep_decay},
        {"params": network.plain_parameters(), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if preset.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=preset.learning_rate)
    return torch.optim.AdamW(groups, lr=preset.learning_rate)
