"""Nonces and draws of whole tables: which homophone each row gets, and in which order rows lie."""

from __future__ import annotations

import hashlib
import secrets

import numpy as np

from cipherscore.client.encryption import FieldCipher
from cipherscore.client.homophones import DRAW_MASK, NONCE_LENGTH, HomophonePrf
from cipherscore.dataset import TRAIN

_PREFIX_LENGTH = 4
_DRAW_SHIFT = 40
"""A table's nonce counts its rows in 40 bits and the draws of a row in 24."""


def random_nonces(rows: int) -> np.ndarray:
    """Return fresh nonces, uint8 [rows, `NONCE_LENGTH`]."""
    fresh = np.frombuffer(secrets.token_bytes(rows * NONCE_LENGTH), np.uint8)
    return fresh.reshape(rows, NONCE_LENGTH)


def table_nonces(seed: int, rows: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Return the nonces of rows of a training table, uint8 [rows, `NONCE_LENGTH`].

    Args:
        seed: Same seed, row and draw, same nonce.
        rows: int64 [rows], the number of each row in its table.
        draw: int64 [rows], which of the row's copies it is, from 0.
    """
    counter = draw.astype(np.uint64) << np.uint64(_DRAW_SHIFT) | rows.astype(np.uint64)
    nonces = np.empty((len(rows), NONCE_LENGTH), np.uint8)
    prefix = hashlib.sha256(b"cipherscore table nonces %d" % seed).digest()[:_PREFIX_LENGTH]
    nonces[:, :_PREFIX_LENGTH] = np.frombuffer(prefix, np.uint8)
    nonces[:, _PREFIX_LENGTH:] = counter.astype(">u8").view(np.uint8).reshape(-1, 8)
    return nonces


def column_draws(prf: HomophonePrf, nonces: np.ndarray, field: int) -> np.ndarray:
    """Return uint64 [rows]: each row's draw for the n-th field, as `HomophonePrf.draws` has it."""
    blocks = np.empty((len(nonces), 16), np.uint8)
    blocks[:, :NONCE_LENGTH] = nonces
    blocks[:, NONCE_LENGTH:] = np.frombuffer(field.to_bytes(4, "big"), np.uint8)
    sealed = np.frombuffer(prf.seal(blocks.reshape(-1).data), "<u8")[::2]
    return np.asarray(sealed & np.uint64(DRAW_MASK), np.uint64)


class Copies:
    """How often, under which nonces and in which order rows of a training table are written.

    Args:
        cipher: Its keys decide the order, so that nobody without them can undo it.
        split: int8 [rows], as of `cipherscore.client.splits`.
        seed: Of the nonces.
        draws: Copies of each training row; other rows, which measure, are written once.
        shuffle: Whether rows of one draw are written in another order, too; those of several
            always are.
    """

    def __init__(
        self,
        cipher: FieldCipher,
        split: np.ndarray,
        seed: int,
        draws: int = 1,
        *,
        shuffle: bool = False,
    ) -> None:
        self.draws = draws
        self.shuffled = shuffle or draws > 1
        self._order = cipher.smoothing_prf("order")
        self._split = split
        self._seed = seed

    def of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to be written of those with these ``numbers`` (int64) in the table.

        Returns:
            The number of each, int64 [copies], and its nonce, uint8 [copies, `NONCE_LENGTH`].
        """
        train = numbers[self._split[numbers] == TRAIN]
        rows = np.concatenate([numbers, np.tile(train, self.draws - 1)])
        draw = np.zeros(len(rows), np.int64)
        draw[len(numbers) :] = np.repeat(np.arange(1, self.draws), len(train))
        nonces = table_nonces(self._seed, rows, draw)
        if not self.shuffled:
            return rows, nonces
        order = np.argsort(column_draws(self._order, nonces, 0), kind="stable")
        return rows[order], nonces[order]
