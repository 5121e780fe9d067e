"""How densely rows lie around a row of categories: what an attacker makes of synthetic rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp  # type: ignore[import-untyped]

from attacks.classifier.answers import Floats
from attacks.classifier.inference import one_hot
from attacks.view import Indices

WIDTHS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Smoothing widths that are tried: the share of a field's weight that other levels get."""
CHUNK = 2_000
"""Rows compared at a time; it bounds memory."""


def log_density(
    rows: Indices, around: Indices, sizes: Sequence[int], width: float, *, leave_out: bool = False
) -> Floats:
    """Return the logarithm of a kernel estimate of the density at each row, float64 [rows].

    The kernel is that of Aitchison and Aitken (Biometrika 63, 1976), a product over fields: the
    same level counts ``1 - width``, each other one an equal part of ``width``.

    Args:
        rows: int32 [rows, fields], where the density is wanted.
        around: int32 [others, fields], the rows that it is of.
        sizes: Levels of each field.
        width: Above 0 and below 1.
        leave_out: Whether ``rows`` are ``around``, and a row does not count for itself.
    """
    others = np.array([width / max(1, size - 1) for size in sizes])
    gain = np.repeat(np.log(1 - width) - np.log(others), sizes)
    hot = one_hot(around, sizes).astype(np.float32).T
    found = []
    for start in range(0, len(rows), CHUNK):
        part = (one_hot(rows[start : start + CHUNK], sizes) * gain).astype(np.float32) @ hot
        if leave_out:
            part[np.arange(len(part)), start + np.arange(len(part))] = -np.inf
        found.append(logsumexp(part.astype(np.float64), axis=1))
    count = len(around) - leave_out
    density: Floats = np.concatenate(found) + np.log(others).sum() - np.log(count)
    return density


def best_width(sample: Indices, sizes: Sequence[int]) -> float:
    """Return the width of `WIDTHS` under which a sample's rows make each other likeliest."""
    likely = [log_density(sample, sample, sizes, w, leave_out=True).mean() for w in WIDTHS]
    return WIDTHS[int(np.argmax(likely))]


def closeness(rows: Indices, around: Indices, sizes: Sequence[int]) -> Floats:
    """Return the fields in which each row agrees with the closest other row, float64 [rows]."""
    hot = one_hot(around, sizes).astype(np.float32).T
    found = [
        (one_hot(rows[start : start + CHUNK], sizes).astype(np.float32) @ hot).max(axis=1)
        for start in range(0, len(rows), CHUNK)
    ]
    return np.concatenate(found).astype(np.float64)
