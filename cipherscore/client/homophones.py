"""Which of a level's tokens a record gets: a keyed function of the record's nonce.

The draw of a record's n-th field is the first six bytes, a little-endian number, of AES-256 under a
key of its own over ``nonce (12 bytes) || n (4 bytes, big-endian)``: without the key a random number
for each new nonce, with it the same one every time.  Needs no numpy.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import chain

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cipherscore.errors import ConfigurationError

NONCE_LENGTH = 12
DRAW_BITS = 48
"""Bits of a draw: 64 less those for the position of a level."""
DRAW_MASK = (1 << DRAW_BITS) - 1


class HomophonePrf:
    """The keyed function.

    Args:
        key: 32 bytes, see `cipherscore.client.keys.Keyset.smoothing_key`.
    """

    def __init__(self, key: bytes) -> None:
        # ECB of single blocks is the block cipher itself, which is the function meant here.
        self._cipher = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305

    def seal(self, blocks: bytes | memoryview) -> bytes:
        """Return AES of each 16-byte block."""
        return self._cipher.encryptor().update(blocks)

    def draws(self, nonce: bytes, fields: int) -> list[int]:
        """Return the draw of each of the first ``fields`` fields of one record, `DRAW_BITS` each.

        Raises:
            ConfigurationError: The nonce has another length than `NONCE_LENGTH`.
        """
        if len(nonce) != NONCE_LENGTH:
            raise ConfigurationError(f"a nonce has {NONCE_LENGTH} bytes, not {len(nonce)}")
        sealed = self.seal(b"".join(nonce + n.to_bytes(4, "big") for n in range(fields)))
        return [draw & DRAW_MASK for draw in struct.unpack("<" + "Q8x" * fields, sealed)]


class FieldTokens:
    """All tokens of one field; those of a level stand together, in the order of its homophones.

    Args:
        tokens: Level to its tokens, in schema order.
        weights: Level to the weights of its tokens.

    ``starts`` holds, for each token, the smallest ``position of its level << DRAW_BITS | draw``
    that chooses it, in rising order; the share of a level's draws that a token gets differs from
    its weight's by less than ``2 ** -DRAW_BITS``.
    """

    def __init__(
        self, tokens: Mapping[str, Sequence[bytes]], weights: Mapping[str, Sequence[int]]
    ) -> None:
        self.tokens: tuple[bytes, ...] = tuple(chain.from_iterable(tokens.values()))
        self.starts: list[int] = []
        self._position = {level: position for position, level in enumerate(tokens)}
        for position, level in enumerate(tokens):
            total, passed = sum(weights[level]), 0
            for weight in weights[level]:
                self.starts.append((position << DRAW_BITS) + -(-(passed << DRAW_BITS) // total))
                passed += weight

    def choose(self, level: str, draw: int) -> bytes:
        """Return the token of ``level`` that ``draw`` chooses."""
        key = self._position[level] << DRAW_BITS | draw
        return self.tokens[bisect_right(self.starts, key) - 1]
