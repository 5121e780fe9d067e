"""Training rows as tensors, in an order of columns that encryption cannot change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cipherscore.dataset import TRAIN, VALIDATION, TokenDataset
from cipherscore.errors import TrainingError
from cipherscore.vocabulary import UNSEEN, Vocabulary
from training.network import TokenRows
from training.presets import ClassifierPreset
from training.sharing import token_sharing

HELD_OUT_PARTS = 5
"""Parts the training rows are cut into for validation where the table has no validation rows."""

NOBODY = -1
"""In the place of a member's number: no member validates on the row."""


@dataclass(frozen=True)
class TrainingTable:
    """What a network learns from.

    Args:
        columns: int32 [rows, fields], the table column of each cell, columns in order of first
            appearance; ``width`` where a cell sets none.
        labels: float32 [rows], 1 = bad credit.
        held_out: bool [rows, members]; true where the member validates on the row.
        order: ``order[i]`` is the vocabulary's flat column of table column ``i``.
        draws: Copies of each of the file's training rows.
        weights: float32 [rows], how much each row counts; None where all count alike.  An
            applicant's rows count ``draws`` together.
        sharing: How tokens share weights, see `training.sharing`; empty where they do not.
    """

    columns: Tensor
    labels: Tensor
    held_out: Tensor
    order: tuple[int, ...]
    draws: int = 1
    weights: Tensor | None = None
    sharing: tuple[Tensor, ...] = ()

    @property
    def width(self) -> int:
        """Number of columns of all fields together."""
        return len(self.order)

    @property
    def teaching(self) -> Tensor:
        """int64, the rows that some member learns from."""
        return (~self.held_out).any(dim=1).nonzero().flatten()

    def rare_rows(self, made: int) -> float:
        """Return the rows of the rarer class that some member learns from, copies counted as one.

        The last ``made`` rows are left out.
        """
        chosen = self.teaching
        chosen = chosen[: len(chosen) - made]
        labels = self.labels[chosen].double()
        weights = torch.ones_like(labels) if self.weights is None else self.weights[chosen].double()
        bad, total = float((labels * weights).sum()), float(weights.sum())
        return min(bad, total - bad) / self.draws

    def token_rows(self, chosen: Tensor | slice) -> TokenRows:
        """Return some of the rows as a network takes them."""
        columns = self.columns[chosen].to(torch.int64)
        known = columns < self.width
        return TokenRows(torch.where(known, columns, 0), known.to(torch.float32))


def build_table(
    dataset: TokenDataset,
    vocabulary: Vocabulary,
    preset: ClassifierPreset,
    seed: int,
    learn_only: TokenDataset | None = None,
) -> TrainingTable:
    """Return the training and validation rows of ``dataset`` as ``preset`` uses them.

    All rows of ``learn_only``, whatever their split, come after them and are held out by no member.

    Where training rows have copies (``dataset.draws`` of two or more), which are not marked, every
    member learns from all of them, and the members divide the validation rows, which have none.  On
    a smoothed table tokens share weights.

    Raises:
        TrainingError: There are no labels, a class is missing in the training rows, or these have
            copies and there are no validation rows.
        DataError: ``learn_only`` is encrypted under another key, or lacks a field.
    """
    check_labels(dataset)
    chosen = np.isin(dataset.split, (TRAIN, VALIDATION))
    indices = dataset.indices(vocabulary)
    order = first_seen_order(indices[dataset.split == TRAIN], vocabulary.sizes)
    columns = table_columns(indices[chosen], vocabulary.sizes, order)
    labels, split = dataset.label[chosen], dataset.split[chosen]
    held_out = _held_out(dataset.draws, labels, split == VALIDATION, preset, seed)
    weights = np.where(split == VALIDATION, dataset.draws, 1)
    train = split == TRAIN
    sharing: tuple[Tensor, ...] = ()
    if dataset.draws:
        sharing = token_sharing(columns[train], labels[train], vocabulary.sizes)
    if learn_only is not None:
        made = table_columns(learn_only.indices(vocabulary), vocabulary.sizes, order)
        columns = np.concatenate([columns, made])
        labels = np.concatenate([labels, learn_only.label])
        held_out = np.pad(held_out, ((0, learn_only.rows), (0, 0)))
        weights = np.append(weights, np.full(learn_only.rows, dataset.draws))
    return TrainingTable(
        columns=torch.from_numpy(columns),
        labels=torch.from_numpy(labels.astype(np.float32)),
        held_out=torch.from_numpy(held_out),
        order=tuple(int(column) for column in order),
        draws=max(1, dataset.draws),
        weights=torch.from_numpy(weights.astype(np.float32)) if dataset.draws > 1 else None,
        sharing=sharing,
    )


def _held_out(
    draws: int, labels: np.ndarray, validation: np.ndarray, preset: ClassifierPreset, seed: int
) -> np.ndarray:
    """Return bool [rows, members]: true where the member validates on the row.

    Rows with copies are held out by nobody: a member would learn from their copies.

    Raises:
        TrainingError: Rows have copies, and there are no validation rows.
    """
    if draws > 1 and not validation.any():
        raise TrainingError(
            f"the encrypted table has {draws} draws of each training row and no validation rows; "
            "encrypt it with `cipherscore encrypt`, which writes some, or with one draw"
        )
    if not preset.cross_fit:
        if not validation.any():
            validation = stratified_parts(labels, HELD_OUT_PARTS, seed) == 0
        return np.repeat(validation[:, None], preset.members, axis=1)
    parts = np.full(len(labels), NOBODY)
    held = validation if draws > 1 else np.ones(len(labels), bool)
    parts[held] = stratified_parts(labels[held], preset.members, seed)
    return np.asarray(parts[:, None] == np.arange(preset.members))


def first_seen_order(indices: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return the flat columns, field by field, in order of first appearance in the rows.

    The order depends on which rows hold equal tokens, never on the tokens themselves, so a table
    gets the same order before and after encryption.  Columns that no row holds come last.

    Args:
        indices: int32 [rows, fields], `UNSEEN` allowed.
        sizes: Columns of each field.
    """
    order, start = [], 0
    for field, size in enumerate(sizes):
        column = indices[:, field]
        values, first_rows = np.unique(column[column != UNSEEN], return_index=True)
        seen = values[np.argsort(first_rows, kind="stable")]
        rest = np.setdiff1d(np.arange(size), seen)
        order.append(np.concatenate([seen, rest]) + start)
        start += size
    return np.concatenate(order).astype(np.int64)


def table_columns(indices: np.ndarray, sizes: Sequence[int], order: np.ndarray) -> np.ndarray:
    """Return int32 [rows, fields]: the position in ``order`` of each cell's flat column.

    Args:
        indices: int32 [rows, fields]; an `UNSEEN` cell becomes ``sum(sizes)``.
        sizes: Columns of each field.
        order: A permutation of the flat columns.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    position = np.empty(len(order), np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    found = position[np.maximum(indices, 0) + starts]
    return np.where(indices == UNSEEN, np.int32(len(order)), found)


def stratified_parts(labels: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Return int [rows], the part of each row; every class is dealt evenly over the parts."""
    generator = np.random.Generator(np.random.PCG64(seed))
    result = np.zeros(len(labels), np.int64)
    for value in (0, 1):
        rows = generator.permutation(np.flatnonzero(labels == value))
        result[rows] = np.arange(len(rows)) % parts
    return result


def check_labels(dataset: TokenDataset) -> None:
    """Check that there is something to learn.

    Raises:
        TrainingError: There are no labels, or too few training rows of a class.
    """
    if len(dataset.label) != dataset.rows or len(dataset.split) != dataset.rows:
        raise TrainingError(
            "the encrypted table has no labels; encrypt it with a schema that has a target"
        )
    counts = np.bincount(dataset.label[dataset.split == TRAIN], minlength=2)
    for count, name in zip(counts, ("good", "bad"), strict=True):
        if count < HELD_OUT_PARTS:
            raise TrainingError(
                f"{count} training rows of {name} credit; at least {HELD_OUT_PARTS} are needed"
            )
