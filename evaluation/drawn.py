"""Folds of a smoothed table with several draws of each row, as `cipherscore encrypt` makes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from cipherscore.client.encryption import FieldCipher
from cipherscore.client.fitting import fit_homophones, weights_prf, without_unused
from cipherscore.client.keys import Keyset
from cipherscore.client.nonces import Copies, table_nonces
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import from_arrow
from cipherscore.client.splits import FRACTIONS
from cipherscore.client.tables import encode_batch
from cipherscore.dataset import TEST, TRAIN, VALIDATION, TokenColumn, TokenDataset
from evaluation.folds import Fold, RawData

REQUEST_SEED = 1_000_000
"""Added to a repeat's number: the nonces of its requests are not those of its training rows."""


@dataclass(frozen=True)
class DrawnFold:
    """A fold's rows under fresh homophones.

    Args:
        dataset: Training and validation rows, no test rows.
        rows: int64 [rows of ``dataset``], which row of the raw table each is.  The trainer does not
            know it.
        requests: The test rows, in the fold's order, as often as asked for; each with the tokens
            that a client with the fitted schema sends.
        codec: Of the fitted schema.
    """

    dataset: TokenDataset
    rows: np.ndarray
    requests: list[TokenDataset]
    codec: RecordCodec


def drawn_fold(raw: RawData, fold: Fold, keyset: Keyset, *, draws: int, requests: int) -> DrawnFold:
    """Return the fold encrypted with ``draws`` draws of each training row.

    Bins are fitted on all rows outside the test part.  With several draws as many of these as
    `cipherscore encrypt` takes are marked as validation rows and written once; with one draw, or
    without smoothing, all of them are training rows.

    Args:
        raw: The whole table; its schema may ask for smoothing.
        fold: Rows to learn from and to test on.
        keyset: The owner's keys.
        draws: Copies of each training row.
        requests: How often the test rows are drawn; 1 where nothing is smoothed.
    """
    split = np.full(raw.rows, TEST, np.int8)
    split[fold.train] = TRAIN
    schema = raw.fitted(fold.train)
    if draws > 1:
        split[_validation(raw.label, fold)] = VALIDATION
    prf = weights_prf(keyset, raw.schema)
    schema = fit_homophones(from_arrow(raw.table), schema, split, prf)
    cipher = FieldCipher(keyset, schema)
    codec = RecordCodec(cipher)
    rows, nonces = Copies(cipher, split, fold.repeat, draws).of(np.sort(fold.train))
    columns = encode_batch(raw.table, codec, nonces, rows)
    dataset = TokenDataset(
        schema=schema.public(),
        key_id=codec.key_id,
        seed=fold.repeat,
        digest=hashlib.sha256(split.tobytes() + bytes([draws % 256])).hexdigest(),
        columns=columns,
        label=raw.label[rows],
        split=split[rows],
        draws=draws if schema.smoothed else 0,
    )
    used = {f.name: _tokens(columns[f.name], dataset.split) for f in schema.fields if f.smoothed}
    client = RecordCodec(FieldCipher(keyset, without_unused(schema, codec, used)))
    asked = [_request(raw, fold, client, dataset, number) for number in range(requests)]
    return DrawnFold(dataset, rows, asked, client)


def _validation(label: np.ndarray, fold: Fold) -> np.ndarray:
    """Return the rows of each class that `encrypt` would keep for validation."""
    share = FRACTIONS[VALIDATION] / (1 - FRACTIONS[TEST])
    generator = np.random.default_rng([fold.repeat, fold.number])
    kept = []
    for value in (0, 1):
        rows = fold.train[label[fold.train] == value]
        kept.append(generator.choice(rows, round(share * len(rows)), replace=False))
    return np.concatenate(kept)


def _tokens(column: TokenColumn, split: np.ndarray) -> set[bytes]:
    return {column.dictionary[at] for at in np.unique(column.indices[split == TRAIN])}


def _request(
    raw: RawData, fold: Fold, codec: RecordCodec, dataset: TokenDataset, number: int
) -> TokenDataset:
    seed = REQUEST_SEED + fold.repeat
    nonces = table_nonces(seed, fold.test, np.full(len(fold.test), number))
    return TokenDataset(
        schema=dataset.schema,
        key_id=dataset.key_id,
        seed=seed,
        digest=dataset.digest,
        columns=encode_batch(raw.table, codec, nonces, fold.test),
        label=raw.label[fold.test],
        split=np.full(len(fold.test), TEST, np.int8),
    )
