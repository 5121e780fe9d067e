"""Ensembles with random weights, and rows for them, for tests of contributions."""

from __future__ import annotations

import numpy as np
import torch

from training.attribution import OneHiddenLayer
from training.network import WideDeepEnsemble

SIZES = (3, 2, 4)


def made(seed: int, sizes=SIZES, members=3, hidden=5, scale=1.0):
    """Return an ensemble with weights that all matter, a mean row, and both put together."""
    generator = np.random.default_rng(seed)
    network = WideDeepEnsemble(sizes, members, hidden, 0.5).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.from_numpy(generator.normal(size=weight.shape) * scale))
    mean = np.concatenate([generator.dirichlet(np.ones(size)) for size in sizes])
    return network, OneHiddenLayer.of(network, sizes, mean)


def drawn(seed: int, rows: int, sizes=SIZES) -> np.ndarray:
    generator = np.random.default_rng(seed)
    columns = [generator.integers(-1, size, rows) for size in sizes]
    return np.stack(columns, axis=1).astype(np.int32)
