"""A small encrypted-looking table with structure, for tests of the generator.

The tokens are of the right form but encrypt nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from cipherscore.dataset import TEST, TRAIN, VALIDATION, TokenColumn, TokenDataset
from tests.support.models import KEY_ID, public_schema, token
from training.generator_presets import CAPSTONE, DEFAULT

SIZES = {"alpha": 3, "beta": 2, "gamma": 5}

SMALL_PRESETS = {
    "default": dataclasses.replace(
        DEFAULT, latent=4, generator_hidden=(16,), critic_hidden=(16,), steps=12, check_every=4,
        batch=16, generator_rate=5e-3,
    ),
    "capstone": dataclasses.replace(
        CAPSTONE, generator_hidden=(8, 16), critic_hidden=(16, 8), steps=12, check_every=4, batch=16
    ),
}  # fmt: skip
"""The presets, cut down to a training of milliseconds."""


def structured_rows(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return int32 [rows, 3] and int8 [rows]: ``beta`` follows ``alpha``, the class follows both."""
    random = np.random.default_rng(seed)
    alpha = random.choice(3, rows, p=[0.6, 0.3, 0.1])
    beta = (random.random(rows) < np.array([0.1, 0.5, 0.9])[alpha]).astype(int)
    gamma = random.choice(5, rows)
    label = (random.random(rows) < 0.1 + 0.5 * beta + 0.2 * (gamma == 0)).astype(np.int8)
    return np.stack([alpha, beta, gamma], axis=1).astype(np.int32), label


def token_dataset(rows: int = 400, seed: int = 0) -> TokenDataset:
    """Return a table of `structured_rows`, split 64 / 16 / 20."""
    indices, label = structured_rows(rows, seed)
    columns = {
        name: TokenColumn(tuple(token(name, i) for i in range(size)), indices[:, position])
        for position, (name, size) in enumerate(SIZES.items())
    }
    split = np.full(rows, TRAIN, np.int8)
    split[np.arange(rows) % 25 < 4] = VALIDATION
    split[np.arange(rows) % 25 >= 20] = TEST
    return TokenDataset(public_schema(), KEY_ID, seed, f"{seed:064x}", columns, label, split)


def without_bad(dataset: TokenDataset) -> TokenDataset:
    """Return the table with good credits only."""
    return dataclasses.replace(dataset, label=np.zeros_like(dataset.label))
