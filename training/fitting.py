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
from training.network import FieldNetwork, TokenRows
from training.optimizers import build_optimizer
from training.presets import ClassifierPreset
from training.progress import Progress
from training.table import TrainingTable

CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints written to disk."""

LEAST_GAIN = 1e-4
"""A validation loss counts as better when it is lower by this much."""

AVERAGE_START = 9
"""At first the average spans the last ninth of the steps, not a fixed number of them.

Otherwise it would long remember the untrained weights."""

LOOK_ROWS = 8192
"""Rows looked at together; it bounds memory."""


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
        preset: The recipe, made fit for the table by `ClassifierPreset.for_table`.
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
        self.shown = deepcopy(network) if preset.averaging else network
        self.step = 0
        self.best = _Best()
        self._used = table.teaching
        self._weights = _weights(table, balanced=preset.class_weighting)
        self._shares = 1 / _taught(table)
        self._passes = -(-len(self._used) // preset.batch_rows) if preset.batch_rows else 1
        self._whole = table.token_rows(self._used) if self._passes == 1 else None
        self._order = self._used
        self._validated = table.held_out.any(dim=1).nonzero().flatten()
        self._labels = table.labels[self._validated].numpy().astype(np.int8)

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
        chosen = self.best.weights if self.preset.patience else self.shown.state_dict()
        self.network.load_state_dict(chosen)
        self.shown = self.network.eval()

    def validation(self) -> tuple[np.ndarray, Floats]:
        """Return labels (int8) and probabilities (float64) of the rows held out from training.

        A row's logit is the mean over the members that did not learn from it.
        """
        self.shown.eval()
        chances = [np.empty(0, np.float64)]
        with torch.no_grad():
            for rows in torch.split(self._validated, LOOK_ROWS):
                logits = self.shown.member_logits(self.table.token_rows(rows))
                held_out = self.table.held_out[rows]
                mean = (logits * held_out).sum(dim=1) / held_out.sum(dim=1)
                chances.append(torch.sigmoid(mean.double()).numpy())
        return self._labels, np.concatenate(chances)

    def _train_step(self) -> float:
        self.network.train()
        chosen, rows = self._batch()
        logits = self.network.member_logits(self._hide_fields(rows))
        targets = self.table.labels[chosen, None].expand(-1, self.network.members)
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        weights = ~self.table.held_out[chosen] * self._shares
        if self._weights is not None:
            weights = weights * self._weights[chosen, None]
        # A batch stands for the whole table: its losses count for those of the other batches too.
        total = (losses * weights).sum() * (len(self._used) / len(chosen))
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self._average()
        loss = float(total.detach()) / self.network.members
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} after {self.step} steps; try another seed")
        return loss

    def _batch(self) -> tuple[Tensor, TokenRows]:
        """Return the rows of the next step; at the start of a pass they are dealt anew."""
        if self._whole is not None:
            return self._used, self._whole
        position, rows = self.step % self._passes, len(self._used)
        if position == 0:
            self._order = self._used[torch.randperm(rows)]
        first, last = (rows * part // self._passes for part in (position, position + 1))
        chosen = self._order[first:last]
        return chosen, self.table.token_rows(chosen)

    def _hide_fields(self, rows: TokenRows) -> TokenRows:
        share = self.preset.input_dropout
        if not share:
            return rows
        kept = (torch.rand(rows.weights.shape) >= share) / (1 - share)
        return TokenRows(rows.columns, rows.weights * kept)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the present ones, faster in the first steps."""
        if not self.preset.averaging:
            return
        kept = min(self.preset.averaging, self.step / (self.step + AVERAGE_START))
        pairs = zip(self.shown.parameters(), self.network.parameters(), strict=True)
        for average, present in pairs:
            average.lerp_(present, 1 - kept)

    def _look(self, loss: float) -> None:
        labels, chances = self.validation()
        right = np.where(labels == 1, chances, 1 - chances)
        validation_loss = float(-np.log(np.clip(right, 1e-12, 1)).mean())
        if self.preset.patience and validation_loss < self.best.loss - LEAST_GAIN:
            self.best = _Best(self.step, validation_loss, _copy(self.shown))
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
            "shown": _copy(self.shown),
            "optimizer": deepcopy(self.optimizer.state_dict()),
            "random": torch.get_rng_state(),
            "best": dict(vars(self.best)),
            "order": self._order if self.step % self._passes else None,
        }

    def _restore(self) -> None:
        state = self.checkpoint.load() if self.checkpoint else None
        if state is None:
            return
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.shown.load_state_dict(state["shown"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.best = _Best(**state["best"])
        order = state.get("order")
        self._order = self._order if order is None else order


def _copy(network: FieldNetwork) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _weights(table: TrainingTable, *, balanced: bool) -> Tensor | None:
    """Return float32 [rows], how much each row counts, or None where all count alike.

    ``balanced`` makes both classes of the taught rows weigh the same, 1 on the average.
    """
    if not balanced:
        return table.weights
    labels = table.labels[table.teaching]
    if table.weights is None:
        share = labels.mean()
    else:
        weights = table.weights[table.teaching]
        share = (labels * weights).sum() / weights.sum()
    classes = 0.5 / torch.where(table.labels == 1, share, 1 - share)
    return classes if table.weights is None else classes * table.weights


def _taught(table: TrainingTable) -> Tensor:
    """Return [members]: the rows that each learns from, or their weight."""
    if table.weights is None:
        return (~table.held_out).sum(dim=0)
    return (~table.held_out * table.weights[:, None]).sum(dim=0)


def _optimizer(network: FieldNetwork, preset: ClassifierPreset) -> torch.optim.Optimizer:
    groups = [
        {"params": network.wide_parameters(), "weight_decay": preset.wide_decay},
        {"params": network.deep_parameters(), "weight_decay": preset.deep_decay},
        {"params": network.plain_parameters(), "weight_decay": 0.0},
    ]
    return build_optimizer(preset.optimizer, groups, preset.learning_rate)
