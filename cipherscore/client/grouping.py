"""Choose which categories of a field get a level of their own, by their count in training rows."""

from __future__ import annotations

from collections.abc import Mapping

from cipherscore.errors import DataError
from cipherscore.levels import MAX_LEVEL_LENGTH, MISSING_LEVEL, OTHER_LEVEL
from cipherscore.schema import Field

MOST_GIVEN_UP = 0.02
"""Largest share of the training rows that is moved to `OTHER_LEVEL` so that it is not empty."""


def keep_categories(field: Field, counts: Mapping[str, int], rows: int) -> dict[str, str]:
    """Return the categories of ``field`` that its grouping keeps, sorted, without meanings.

    A model knows only levels that a training row had.  So where every category would be kept, the
    rarest one joins `OTHER_LEVEL`, unless that costs more than `MOST_GIVEN_UP` of the rows: then a
    category that is new later has a token that the host refuses as unknown.

    Args:
        field: A categorical field with a grouping.
        counts: How often each category occurs in the training rows; ties go by its text.
        rows: Number of training rows that were counted.

    Raises:
        DataError: No training row has a category.
    """
    if field.grouping is None:
        raise DataError(f"field {field.name!r} has neither categories nor a grouping")
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    possible = [text for text in ranked if is_code(text)]
    kept = [text for text in possible if counts[text] >= field.grouping.least]
    kept = kept[: field.grouping.most]
    if len(kept) == len(ranked) > 1 and counts[kept[-1]] <= MOST_GIVEN_UP * rows:
        kept.pop()
    kept = kept or possible[:1]
    if not kept:
        raise DataError(
            f"field {field.name!r} has no category in the training rows; remove it from the schema"
        )
    return dict.fromkeys(sorted(kept), "")


def is_code(text: str) -> bool:
    """Return whether ``text`` can be a category's code; others have `OTHER_LEVEL`."""
    size = len(text.encode(errors="replace"))
    return 0 < size <= MAX_LEVEL_LENGTH and text not in (MISSING_LEVEL, OTHER_LEVEL)
