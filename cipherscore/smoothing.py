"""Frequency smoothing: a frequent level has several tokens, its *homophones*, so that none is.

Each homophone of a level has a weight, a whole number: it is chosen as often as its share in the
sum of its level's weights.  A homophone of weight 0 is never chosen, and still decrypts.

Sources: M.-S. Lacharité and K. G. Paterson, "Frequency-smoothing encryption", IACR ToSC 2018 (1);
D. Pouliot, S. Griffy and C. V. Wright, "The strength of weak randomization", DSN 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cipherscore.errors import SchemaError, shorten

SmoothingMethod = Literal["proportional", "poisson"]
Homophones = dict[str, tuple[int, ...]]
"""Level to the weights of its homophones."""

LEAST_SHARE = 0.0001
MAX_TOKENS = 32_767
"""Most tokens of a field: what the dictionary index of an encrypted table holds (int16)."""
MAX_WEIGHT = 1_000_000_000


@dataclass(frozen=True)
class Smoothing:
    """How many homophones the levels of a field get on training rows.

    ``proportional``: as many as it takes that none of them has more than ``most_share`` of the
    training rows; equally likely within a level.  ``poisson``: a Poisson process of rate
    ``1 / most_share`` cuts each level's share into homophones of unequal weight; ``most_share`` is
    then the mean, and a single token may be more frequent.  With 1, ``proportional`` smooths
    nothing.

    Raises:
        SchemaError: Unknown method, or a share outside `LEAST_SHARE` to 1.
    """

    most_share: float
    method: SmoothingMethod = "proportional"

    def __post_init__(self) -> None:
        if self.method not in get_args(SmoothingMethod):
            raise SchemaError(
                f"smoothing method {shorten(self.method)} is unknown; known: "
                f"{', '.join(get_args(SmoothingMethod))}"
            )
        if not LEAST_SHARE <= self.most_share <= 1:
            raise SchemaError(
                f"smoothing: most_share must be {LEAST_SHARE} to 1, not {self.most_share}"
            )


def check_homophones(levels: Sequence[str], homophones: Homophones) -> None:
    """Check that each of ``levels`` has homophones, and that they fit an encrypted table.

    Raises:
        SchemaError: They do not; the message names no field.
    """
    odd = sorted(set(levels) ^ homophones.keys())
    if odd:
        raise SchemaError(
            f"homophones must name each level once; {shorten(odd[0])} is missing or no level. "
            "Where levels changed, take homophones out, and `cipherscore encrypt` fits them anew"
        )
    for level, weights in homophones.items():
        if not any(weights) or not all(0 <= weight <= MAX_WEIGHT for weight in weights):
            raise SchemaError(
                f"homophones of {shorten(level)}: weights are 0 to {MAX_WEIGHT}, not all 0"
            )
    tokens = sum(map(len, homophones.values()))
    if tokens > MAX_TOKENS:
        raise SchemaError(
            f"{tokens} homophones; at most {MAX_TOKENS} are allowed. Raise most_share"
        )


def parse_homophones(entry: Mapping[str, Any]) -> Homophones:
    """Read homophones from TOML: level to their number, where all weigh the same, or to weights.

    Raises:
        SchemaError: An entry is neither.
    """
    found = {}
    for level, value in entry.items():
        weights = value if isinstance(value, list) else [value]
        if not all(type(weight) is int for weight in weights):
            raise SchemaError(f"homophones of {shorten(level)}: give their number, or weights")
        if not isinstance(value, list):
            if not 1 <= value <= MAX_TOKENS:
                raise SchemaError(f"homophones of {shorten(level)}: give 1 to {MAX_TOKENS}")
            weights = [1] * value
        found[level] = tuple(weights)
    return found


def format_homophones(homophones: Homophones) -> dict[str, int | list[int]]:
    """Return what `parse_homophones` reads back as equal."""
    return {
        level: len(weights) if set(weights) == {1} else list(weights)
        for level, weights in homophones.items()
    }
