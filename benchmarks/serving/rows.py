"""Fields, tokens and rows of the benchmark: German Credit's shape, made up contents."""

from __future__ import annotations

import hashlib

import numpy as np

from cipherscore.tokens import BLOCK_LENGTH, SIV_LENGTH, header
from cipherscore.vocabulary import Vocabulary

KEY_ID = "0aab8d7c"
NAME = "credit"
SIZES = {
    "existingchecking": 4, "duration": 4, "credithistory": 5, "purpose": 10, "creditamount": 4,
    "savings": 5, "employmentsince": 5, "installmentrate": 4, "statussex": 4, "otherdebtors": 3,
    "residencesince": 4, "property": 4, "age": 4, "otherinstallmentplans": 3, "housing": 3,
    "existingcredits": 4, "job": 4, "peopleliable": 2, "telephone": 2, "foreignworker": 2,
}  # fmt: skip
"""German Credit's fields and how many levels each has in the data: 80 columns in all."""


def token(field: str, level: int) -> bytes:
    """Return a well-formed token; it encrypts nothing, which no server can tell."""
    body = hashlib.sha256(f"{field}/{level}".encode()).digest()
    return header(KEY_ID) + (body * 2)[: SIV_LENGTH + BLOCK_LENGTH]


def vocabulary() -> Vocabulary:
    """Return the tokens of all fields."""
    columns = {f: [token(f, level) for level in range(size)] for f, size in SIZES.items()}
    return Vocabulary.build(KEY_ID, columns)


def random_indices(rows: int, seed: int) -> np.ndarray:
    """Return int32 [rows, fields] of known tokens."""
    generator = np.random.default_rng(seed)
    columns = [generator.integers(0, size, rows) for size in SIZES.values()]
    return np.stack(columns, axis=1).astype(np.int32)
