"""What readers of the host's answers share: packed indices, and the error for nonsense."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from cipherscore.errors import ServiceError

BYTE_DICTIONARY = 256
"""Indices are one byte wide up to this many dictionary entries, else two (see the .proto)."""


def unpacked(content: bytes, size: int, count: int) -> Sequence[int]:
    """Return indices that came as bytes.

    Args:
        content: Unsigned little-endian integers.
        size: Entries of what they index; tells their width.
        count: How many there must be.

    Raises:
        ServiceError: There are more or fewer, or one is out of range.
    """
    indices: Sequence[int] = content
    if size > BYTE_DICTIONARY:
        wide = array("H")
        wide.frombytes(content[: len(content) // 2 * 2])
        if sys.byteorder == "big":
            wide.byteswap()
        indices = wide if len(content) == 2 * count else ()
    if len(indices) != count or (count and max(indices) >= size):
        raise malformed("indices do not fit what they index")
    return indices


def malformed(what: str) -> ServiceError:
    """Return the error for an answer that makes no sense."""
    return ServiceError(f"the host's answer is malformed: {what}", status="DATA_LOSS")
