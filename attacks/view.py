"""What an attacker holds, and nothing else: tokens and labels, and a sample of the population.

Attacks take these and return a guess.  They never see a value, a key or the owner's schema, only
how many levels each field has, which is public knowledge of any field worth attacking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int32]
"""Tokens or levels by number."""

Guess = list[Indices]
"""Per field: the level named for each token, int32 [tokens]."""


@dataclass(frozen=True)
class TokenTable:
    """An encrypted table as the host holds it.

    Args:
        tokens: int32 [rows, fields], each field's tokens numbered from 0 without a gap.
        label: int8 [rows], 1 = bad credit; labels are not encrypted.
        draws: How often each row was written, with homophones drawn anew; the number of rows says
            it to who knows how many applicants there are.
        most_share: Largest share of the rows that a token was meant to have, 1 without smoothing;
            the most frequent tokens say it.
        even: Whether a level's homophones are used equally often.
    """

    tokens: Indices
    label: NDArray[np.int8]
    draws: int = 1
    most_share: float = 1.0
    even: bool = True

    @classmethod
    def numbered(
        cls,
        columns: Sequence[np.ndarray],
        label: np.ndarray,
        *,
        draws: int = 1,
        most_share: float = 1.0,
        even: bool = True,
    ) -> TokenTable:
        """Return the table with each field's tokens numbered as they first occur.

        The numbers depend on the rows alone, so another key gives the same table.

        Args:
            columns: Per field anything that tells its tokens apart, [rows].
            label: int8 [rows].
            draws: As of the class, like the others.
            most_share: Likewise.
            even: Likewise.
        """
        numbers = [_by_first_row(column) for column in columns]
        tokens = np.stack(numbers, axis=1)
        return cls(tokens, np.asarray(label, np.int8), draws, most_share, even)

    @property
    def counts(self) -> list[NDArray[np.int64]]:
        """Rows of each token, per field int64 [tokens]."""
        return [np.bincount(column) for column in self.tokens.T]


@dataclass(frozen=True)
class Auxiliary:
    """Plain rows that the attacker has from elsewhere, none of them in the encrypted table.

    Args:
        levels: int32 [rows, fields].
        label: int8 [rows], 1 = bad credit.
        sizes: Levels each field has, seen in the sample or not.
    """

    levels: Indices
    label: NDArray[np.int8]
    sizes: tuple[int, ...]

    @property
    def counts(self) -> list[NDArray[np.int64]]:
        """Rows of each level, per field int64 [levels]."""
        both = zip(self.levels.T, self.sizes, strict=True)
        return [np.bincount(column, minlength=size) for column, size in both]


@dataclass(frozen=True)
class KnownRows:
    """Rows of the encrypted table whose values the attacker knows.

    Args:
        rows: Positions in the table, [known].
        levels: int32 [known, fields], their levels.
    """

    rows: NDArray[np.intp]
    levels: Indices


Attack = Callable[[TokenTable, Auxiliary], Guess]
"""An attack.  Guesses of one-to-one attacks name no level twice in a field."""


def _by_first_row(column: np.ndarray) -> Indices:
    _, first, number = np.unique(column, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int32)
    place[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return place[number]
