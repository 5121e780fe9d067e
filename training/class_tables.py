"""One-way and two-way tables of rows per class: what the default generator is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.fidelity import multi_hot

CLASSES = 2


@dataclass(frozen=True)
class ClassTables:
    """Tables as shares of the rows of each class; ``width`` is that of the vocabulary.

    Args:
        marginals: float32 [2, width]: how often each column occurs in good and in bad rows.
        pairs: float32 [2, width, width]: how often two columns occur together.
    """

    marginals: NDArray[np.float32]
    pairs: NDArray[np.float32]


def class_tables(
    indices: NDArray[np.int32], label: NDArray[np.int8], sizes: Sequence[int]
) -> ClassTables:
    """Count the tables of rows of both classes."""
    rows = multi_hot(indices, sizes)
    parts = [rows[label == value] for value in range(CLASSES)]
    return ClassTables(
        np.stack([part.mean(axis=0) for part in parts]),
        np.stack([part.T @ part / len(part) for part in parts]),
    )
