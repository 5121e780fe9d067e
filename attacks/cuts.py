"""Cuts of a raw table: one half is encrypted, the attacker's samples come from the other.

Bins and grouped categories are fitted on the half that is encrypted, as `cipherscore encrypt` does,
and the attacker is taken to know them: edges of bins are no secret of the cipher.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from attacks.view import Auxiliary, Indices, KnownRows, TokenTable
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.fitting import fit_homophones
from cipherscore.client.homophones import HomophonePrf
from cipherscore.client.keys import Keyset
from cipherscore.client.nonces import table_nonces
from cipherscore.client.records import RecordCodec
from cipherscore.client.sources import from_arrow
from cipherscore.client.tables import encode_batch, field_column, level_indices
from cipherscore.dataset import TRAIN
from cipherscore.errors import DataError
from evaluation.folds import RawData, Rows

SHIFT = 3.0
"""How many times more often a shifted sample draws a bad row, and at most a level of one field."""
LEAST_ROWS = 20


@dataclass(frozen=True)
class Cut:
    """One division of a table.

    Args:
        number: Of the cut; with the seed it decides all that is drawn.
        seed: Of the audit.
        rows: Of the encrypted half.
        table: The encrypted half, as the host holds it; a row that was drawn several times is in it
            as often.
        truth: int32 [rows of the table, fields], the levels of the encrypted half.
        pool: The other half, in random order.
        origin: Which row of the raw table each row of the encrypted table is.
        pool_origin: Which row of the raw table each row of the pool is.
    """

    number: int
    seed: int
    rows: int
    table: TokenTable
    truth: Indices
    pool: Auxiliary
    origin: Rows
    pool_origin: Rows

    @classmethod
    def of(cls, raw: RawData, number: int, seed: int, draws: int = 1) -> Cut:
        """Divide a table and encrypt one half under a fresh key.

        Rows of one group stay together where the schema names a group column.

        Args:
            raw: The table.
            number: Of the cut.
            seed: Of the audit.
            draws: How often each row is written, for a schema with smoothing.

        Raises:
            DataError: The table is too small to divide.
        """
        if raw.rows < LEAST_ROWS:
            raise DataError(f"{raw.rows} rows are too few to audit; give {LEAST_ROWS} or more")
        encrypted, others = halves(raw, np.random.default_rng([seed, number]))
        half, label = raw.table.take(pa.array(encrypted)), raw.label[encrypted]
        randomness = HomophonePrf(hashlib.sha256(b"audit %d %d" % (seed, number)).digest())
        codec = _codec(raw, encrypted, half, randomness)
        draws = draws if codec.schema.smoothed else 1
        copies = np.arange(draws * len(label))
        if draws > 1:
            copies = np.random.default_rng([seed, number, 3]).permutation(copies)
        draw, written = np.divmod(copies, len(label))
        nonces = table_nonces(seed, written, draw)
        columns = encode_batch(half, codec, nonces, written).values()
        asked = [f.smoothing for f in codec.schema.fields if f.smoothing]
        table = TokenTable.numbered(
            [column.indices for column in columns],
            label[written],
            draws=draws,
            most_share=min((one.most_share for one in asked), default=1.0),
            even=all(one.method == "proportional" for one in asked),
        )
        pool = _levels(raw.table.take(pa.array(others)), codec)
        sizes = tuple(len(field.levels) for field in codec.schema.fields)
        truth = _levels(half, codec)[written]
        sample = Auxiliary(pool, raw.label[others], sizes)
        origin = encrypted[written]
        return cls(number, seed, len(label), table, truth, sample, origin, others)

    def sample(self, share: float, *, shifted: bool) -> Auxiliary:
        """Return the attacker's sample, ``share`` times as many rows as are encrypted.

        A shifted one is drawn with replacement.  Bad rows are `SHIFT` times as likely as good ones,
        and each level of one field, which the cut decides, up to `SHIFT` times more or less likely
        than it should be, so that these shares, and those of all that depends on them, are wrong.
        """
        rows = len(self.pool.label)
        wanted = max(1, min(rows, round(share * self.rows)))
        chosen = np.arange(wanted)
        if shifted:
            generator = np.random.default_rng([self.seed, self.number, 1])
            field = generator.integers(len(self.pool.sizes))
            factor = SHIFT ** generator.uniform(-1, 1, self.pool.sizes[field])
            weight = factor[self.pool.levels[:, field]] * np.where(self.pool.label == 1, SHIFT, 1)
            chosen = generator.choice(rows, wanted, p=weight / weight.sum())
        return Auxiliary(self.pool.levels[chosen], self.pool.label[chosen], self.pool.sizes)

    def known(self, count: int) -> KnownRows:
        """Return ``count`` rows of the table as known, fewer in a small one."""
        generator = np.random.default_rng([self.seed, self.number, 2])
        rows = generator.permutation(len(self.truth))[: min(count, self.rows // 2)]
        return KnownRows(rows, self.truth[rows])


def halves(raw: RawData, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Return the rows to encrypt and the others, both in random order."""
    order = generator.permutation(raw.rows)
    if raw.group is None:
        return order[: raw.rows // 2], order[raw.rows // 2 :]
    _, member = np.unique(raw.group, return_inverse=True)
    place = generator.permutation(int(member.max()) + 1)[member]
    first = place < len(np.unique(member)) // 2
    return order[first[order]], order[~first[order]]


def _codec(raw: RawData, rows: Rows, half: pa.Table, randomness: HomophonePrf) -> RecordCodec:
    """Return the codec of a fresh key, with levels and homophones fitted on some rows.

    Homophones come from ``randomness`` and not from the key, so that figures depend on the seed.
    """
    split = np.full(len(rows), TRAIN, np.int8)
    schema = fit_homophones(from_arrow(half), raw.fitted(rows), split, randomness)
    codec = RecordCodec(FieldCipher(Keyset.create(), schema))
    codec.prf = randomness if schema.smoothed else None
    return codec


def _levels(table: pa.Table, codec: RecordCodec) -> Indices:
    fields = codec.schema.fields
    columns = [level_indices(field_column(table, field), field) for field in fields]
    return np.stack(columns, axis=1).astype(np.int32)
