"""How much of a table an attack names correctly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.view import Guess, Indices, TokenTable

SAMPLES = 2000
INTERVAL = (2.5, 97.5)


def recovered(guess: Guess, table: TokenTable, truth: Indices, *, apart: np.ndarray) -> list[float]:
    """Return per field the share of rows whose level a guess names correctly.

    Args:
        guess: Per field the level of each token.
        table: The table that was attacked.
        truth: int32 [rows, fields], its levels.
        apart: Rows that do not count, because the attacker was told their values.
    """
    counted = np.ones(len(truth), bool)
    counted[apart] = False
    return [
        float(np.mean(named[table.tokens[counted, field]] == truth[counted, field]))
        for field, named in enumerate(guess)
    ]


def ideal(table: TokenTable, truth: Indices) -> Guess:
    """Return the best guess there is: each token's most frequent true level."""
    guess = []
    for tokens, levels in zip(table.tokens.T, truth.T, strict=True):
        counts = np.zeros((int(tokens.max()) + 1, int(levels.max()) + 1), np.int64)
        np.add.at(counts, (tokens, levels), 1)
        guess.append(counts.argmax(axis=1).astype(np.int32))
    return guess


def estimates(cuts: Mapping[str, Sequence[float]], seed: int) -> dict[str, dict[str, float | int]]:
    """Return mean and 95 % bootstrap interval over cuts of each named figure.

    All figures share the drawn cuts, so that they can be compared.
    """
    count = len(next(iter(cuts.values())))
    drawn = np.random.default_rng(seed).integers(count, size=(SAMPLES, count))
    return {name: _estimate(np.asarray(values), drawn) for name, values in cuts.items()}


def _estimate(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> dict[str, Any]:
    low, high = np.percentile(values[drawn].mean(axis=1), INTERVAL)
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
