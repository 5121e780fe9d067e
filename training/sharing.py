"""Sharing of weights between tokens of a field that seem to stand for one level.

On a smoothed table a level has several tokens, and the trainer is not told which.  But they occur
with the same values of the other fields and with the same labels, up to chance.  So each token's
weights become a mean over the tokens of its field, the more of another token the less its rows
differ from its own by Pearson's chi-square statistic of homogeneity: a Nadaraya-Watson smoother
over tokens.  Two levels that the rows cannot tell apart share too, which is one more restraint.

It uses what the host has, and finds what an attacker can find: see docs/smoothing.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SOFTNESS = 3.0
"""Standard deviations of the statistic, above its mean, at which a token's part falls to 1/e."""

MOST_TOKENS = 2048
"""Tokens of a field up to which they share; it bounds memory and time, which grow as the square."""


def token_sharing(
    columns: np.ndarray, labels: np.ndarray, sizes: Sequence[int]
) -> tuple[Tensor, ...]:
    """Return per field how its tokens share, float32 [tokens, tokens], rows of sum 1.

    A field of more than `MOST_TOKENS` tokens does not share: its entry is empty.

    Copies of a row with homophones drawn anew count as rows: given the row, the draws of different
    fields are independent, which is all that the statistic asks for.

    Args:
        columns: int [rows, fields], see `training.table.table_columns`; the columns of the fields
            follow each other, ``sum(sizes)`` stands for no token.
        labels: int8 [rows], 0 or 1.
        sizes: Tokens of each field.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])
    cells = [columns[:, field] - starts[field] for field in range(len(sizes))]
    cells = [np.where(cell < size, cell, size) for cell, size in zip(cells, sizes, strict=True)]
    groups = [*zip(cells, sizes, strict=True), (labels.astype(np.int64), 2)]
    return tuple(
        _mixing(*_homogeneity(groups, field)) if size <= MOST_TOKENS else torch.empty(0)
        for field, size in enumerate(sizes)
    )


def _homogeneity(
    groups: Sequence[tuple[np.ndarray, int]], field: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the rows of each two tokens of a field by all other fields and by the label.

    Returns:
        float64 [tokens, tokens]: by how many standard deviations the chi-square statistic of two
        tokens lies above what chance gives; and float64 [tokens], the rows of each.
    """
    cells, size = groups[field]
    counts = np.bincount(cells, minlength=size + 1)[:size].astype(np.float64)
    rows = np.maximum(counts, 1)
    total, freedom = np.zeros((size, size)), 0
    for other, (others, width) in enumerate(groups):
        if other == field:
            continue
        joint = np.bincount(cells * (width + 1) + others, minlength=(size + 1) * (width + 1))
        shares = joint.reshape(size + 1, width + 1)[:size, :width] / rows[:, None]
        pooled = np.bincount(others, minlength=width + 1)[:width] / len(others)
        shares = shares[:, pooled > 0] / np.sqrt(pooled[pooled > 0])
        squares = (shares**2).sum(axis=1)
        total += squares[:, None] + squares - 2 * shares @ shares.T
        freedom += max(0, shares.shape[1] - 1)
    statistic = np.maximum(total, 0) / (1 / rows[:, None] + 1 / rows)
    return (statistic - freedom) / np.sqrt(2 * max(1, freedom)), counts


def _mixing(distance: np.ndarray, counts: np.ndarray) -> Tensor:
    """Return float32 [tokens, tokens]: the part of each token (column) in each token's mean (row).

    Tokens count by their rows; one without rows takes part in its own mean alone.
    """
    parts = np.exp(-np.maximum(distance, 0) / SOFTNESS) * counts
    parts[counts == 0] = 0
    np.fill_diagonal(parts, np.maximum(counts, 1))
    return torch.from_numpy((parts / parts.sum(axis=1, keepdims=True)).astype(np.float32))
