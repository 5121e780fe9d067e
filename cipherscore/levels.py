"""Levels: what is encrypted.  Their limits, and how those that training rows decide are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cipherscore.errors import SchemaError

BinningMethod = Literal["uniform", "quantile", "tree"]

MISSING_LEVEL = "<missing>"
"""Level of an absent value where the field's policy is ``missing = "level"``."""
OTHER_LEVEL = "(other)"
"""Level of a category that has none of its own where the field says ``other = true``."""

MAX_LEVELS = 4096
MAX_LEVEL_LENGTH = 255


@dataclass(frozen=True)
class Binning:
    """How a numeric field without fixed edges is cut into ``bins`` bins on training rows.

    ``uniform``: bins of equal width over the training rows' range.  ``quantile``: bins of about
    equal count.  ``tree``: at most ``bins`` bins, cut where they tell good from bad best.  With the
    last two a field of at most ``bins`` distinct values gets a bin for each value.

    Raises:
        SchemaError: Unknown method, or fewer than two bins.
    """

    method: BinningMethod
    bins: int

    def __post_init__(self) -> None:
        if self.method not in get_args(BinningMethod):
            raise SchemaError(
                f"binning method {self.method!r} is unknown; known: {get_args(BinningMethod)}"
            )
        if not 2 <= self.bins <= MAX_LEVELS:
            raise SchemaError(f"binning: bins must be 2 to {MAX_LEVELS}, not {self.bins}")


@dataclass(frozen=True)
class Grouping:
    """Which categories of a field without fixed ones get a level, by their count in training rows.

    Those with ``least`` rows or more, at most the ``most`` frequent; others share `OTHER_LEVEL`.

    Raises:
        SchemaError: A number outside its range.
    """

    most: int
    least: int

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MAX_LEVELS:
            raise SchemaError(f"grouping: most must be 1 to {MAX_LEVELS}, not {self.most}")
        if self.least < 1:
            raise SchemaError(f"grouping: least must be 1 row or more, not {self.least}")
