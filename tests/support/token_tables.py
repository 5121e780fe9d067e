"""Small encrypted-looking tables with a pattern to learn, for tests of training and export."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from cipherscore.dataset import TEST, TRAIN, VALIDATION, TokenColumn, TokenDataset
from cipherscore.schema import PublicField, PublicSchema

KEY_ID = "0aab8d7c"
SIZES = {"alpha": 4, "beta": 3, "gamma": 6, "delta": 2}


def public_schema() -> PublicSchema:
    fields = tuple(PublicField(name, "categorical") for name in SIZES)
    return PublicSchema("toy-credit", hashlib.sha256(b"toy").hexdigest(), fields, "risk", 5.0, 1.0)


def table(rows: int = 300, seed: int = 0, *, validation: bool = True) -> TokenDataset:
    """Return rows whose label depends on two fields and noise; a third is a test row."""
    generator = np.random.default_rng(seed)
    levels = {name: generator.integers(0, size, rows) for name, size in SIZES.items()}
    logit = 1.5 * (levels["alpha"] - 1.5) - 1.2 * (levels["beta"] - 1) - 0.8
    label = (generator.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    split = np.full(rows, TRAIN, np.int8)
    split[::3] = TEST
    if validation:
        split[1::6] = VALIDATION
    columns = {
        name: TokenColumn(
            tuple(f"{name}-{level}".encode() for level in range(SIZES[name])),
            chosen.astype(np.int32),
        )
        for name, chosen in levels.items()
    }
    digest = hashlib.sha256(f"{rows}/{seed}/{validation}".encode()).hexdigest()
    return TokenDataset(public_schema(), KEY_ID, seed, digest, columns, label, split)


def renamed(dataset: TokenDataset, salt: str) -> TokenDataset:
    """Return the table with every token replaced, so that tokens sort in another order."""
    columns = {
        name: TokenColumn(
            tuple(hashlib.sha256(salt.encode() + token).digest() for token in column.dictionary),
            column.indices,
        )
        for name, column in dataset.columns.items()
    }
    return replace(dataset, columns=columns)


def drawn(dataset: TokenDataset, homophones: int, draws: int, seed: int = 0) -> TokenDataset:
    """Return the table with ``homophones`` tokens a level and ``draws`` copies of training rows."""
    generator = np.random.default_rng(seed)
    train = np.flatnonzero(dataset.split == TRAIN)
    rows = generator.permutation(
        np.concatenate([np.arange(dataset.rows), np.tile(train, draws - 1)])
    )
    columns = {}
    for name, column in dataset.columns.items():
        tokens = [b"%s/%d" % (t, n) for t in column.dictionary for n in range(homophones)]
        chosen = column.indices[rows] * homophones + generator.integers(0, homophones, len(rows))
        columns[name] = TokenColumn(tuple(tokens), chosen.astype(np.int32))
    return replace(
        dataset, columns=columns, label=dataset.label[rows], split=dataset.split[rows], draws=draws
    )
