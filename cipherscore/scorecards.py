"""Scorecards: the owner sums points of the attributes, and only the sums, in bins, are encrypted.

In credit scoring each level of an *attribute* (an applicant's age, purpose, ...) has *points*, and
a *scorecard* adds those of its attributes up.  A schema with ``[scorecards]`` deals its attributes
over a few scorecards.  Its fields, which the host sees, are the scorecards' sums; the attributes
stay with the owner.  docs/scorecards.md says what that hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from string import ascii_lowercase

from cipherscore.errors import SchemaError, shorten
from cipherscore.field import Field
from cipherscore.levels import MAX_LEVELS, Binning
from cipherscore.smoothing import Smoothing

POINTS_PER_LOG_ODDS = 100
"""Points are whole numbers, so that sums do not depend on their order: 0.01 log-odds each."""
MAX_POINTS = 1_000_000
MAX_COUNT = 64
MAX_VIEWS = 8
DEFAULT_LEVELS, DEFAULT_VIEWS = 8, 2
"""Of a scorecard where nothing else is asked for."""

Points = dict[str, int]
"""Level of an attribute to its points: log-odds towards bad credit times `POINTS_PER_LOG_ODDS`,
against the mean training row."""


def scorecard_name(number: int, view: int = 0, views: int = 1) -> str:
    """Return the name of a field of a scorecard; numbers count from 1, views from 0."""
    return f"scorecard_{number}" + (ascii_lowercase[view] if views > 1 else "")


def number_in(name: str) -> int:
    """Return the number of the scorecard that a field is of."""
    return int(name.removeprefix("scorecard_").rstrip(ascii_lowercase))


def field_names(count: int, views: int) -> list[str]:
    """Return the names of all fields of ``count`` scorecards, in order."""
    return [scorecard_name(n, view, views) for n in range(1, count + 1) for view in range(views)]


def shape_of(fields: tuple[Field, ...]) -> tuple[int, int]:
    """Return count and views of the scorecards that ``fields`` are of.

    Raises:
        SchemaError: They are not called as `field_names` says.
    """
    names = [f.name for f in fields]
    for views in range(1, MAX_VIEWS + 1):
        if names == field_names(len(names) // views, views):
            return len(names) // views, views
    raise SchemaError(
        f"scorecards: fields are called scorecard_1, scorecard_2, ..., with several views "
        f"scorecard_1a, scorecard_1b, ...; not {shorten(', '.join(names))}"
    )


def planned_fields(
    count: int, levels: int, views: int = 1, smoothing: Smoothing | None = None
) -> tuple[Field, ...]:
    """Return the fields of ``count`` scorecards whose ``levels`` bins are not fitted yet.

    With several ``views`` each scorecard has as many fields, whose bins are staggered.

    Raises:
        SchemaError: A number is outside its range.
    """
    allowed = {"count": (count, 1, MAX_COUNT), "levels": (levels, 2, MAX_LEVELS),
               "views": (views, 1, MAX_VIEWS)}  # fmt: skip
    for name, (value, least, most) in allowed.items():
        if not least <= value <= most:
            raise SchemaError(f"scorecards: {name} must be {least} to {most}, not {value}")
    binning = Binning("quantile", levels)
    return tuple(
        Field(name, "numeric", unit="points", smoothing=smoothing, binning=binning)
        for name in field_names(count, views)
    )


def format_scorecards(fields: tuple[Field, ...]) -> dict[str, int]:
    """Return count, levels and views of scorecards as a schema file has them."""
    planned = [f.binning.bins for f in fields if f.binning is not None]
    count, views = shape_of(fields)
    found = {"count": count, "levels": max(planned, default=2)}
    return found | ({"views": views} if views > 1 else {})


def is_planned(fields: tuple[Field, ...]) -> bool:
    """Return whether scorecards' fields are just as count, levels and views make them."""
    plan = format_scorecards(fields)
    return fields == planned_fields(plan["count"], plan["levels"], plan.get("views", 1))


@dataclass(frozen=True)
class Scorecards:
    """What a schema's scorecards are made of.

    Args:
        attributes: What is read of a record.  They are cut into levels like fields, but never
            encrypted one by one.
        members: Attribute's name to the number of its scorecard, from 1; empty until training rows
            were seen.
        points: Attribute's name to the points of its levels; empty until training rows were seen.

    Raises:
        SchemaError: An attribute is named twice, or smoothed, or points do not fit the levels.
    """

    attributes: tuple[Field, ...]
    members: Mapping[str, int] = field(default_factory=dict)
    points: Mapping[str, Points] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.by_name) < len(self.attributes):
            raise SchemaError("scorecards: an attribute is named twice")
        for attribute in self.attributes:
            if attribute.smoothing is not None or attribute.homophones:
                raise SchemaError(
                    f"field {attribute.name!r}: an attribute of scorecards has no token that could "
                    "be smoothed; put [smoothing] above the first [[field]], for the scorecards"
                )
        if self.members.keys() != self.points.keys():
            raise SchemaError("scorecards: give an attribute both scorecard and points, or neither")
        if self.points and self.points.keys() != self.by_name.keys():
            lacking = min(self.by_name.keys() ^ self.points.keys())
            raise SchemaError(
                f"field {lacking!r}: some attributes have points, this one has none; take all out, "
                "and `cipherscore encrypt` fits them anew"
            )
        for name, points in self.points.items():
            self._check_points(self.by_name[name], points)

    @staticmethod
    def _check_points(attribute: Field, points: Points) -> None:
        odd = sorted(set(attribute.levels) ^ points.keys())
        if odd:
            raise SchemaError(
                f"field {attribute.name!r}: points must name each level once; {shorten(odd[0])} is "
                "missing or no level. Where levels changed, take all points out, and `cipherscore "
                "encrypt` fits them anew"
            )
        for level, value in points.items():
            if type(value) is not int or not -MAX_POINTS <= value <= MAX_POINTS:
                raise SchemaError(
                    f"field {attribute.name!r}: points of {shorten(level)} must be a whole number "
                    f"from {-MAX_POINTS} to {MAX_POINTS}, not {shorten(value)}"
                )

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Attribute by name."""
        return {attribute.name: attribute for attribute in self.attributes}

    @property
    def fitted(self) -> bool:
        """Whether all levels have points."""
        return bool(self.points)

    def check_fields(self, fields: tuple[Field, ...]) -> None:
        """Check that each scorecard that ``fields`` are of has an attribute.

        Raises:
            SchemaError: One has none, an attribute's scorecard is none of them, or the fields are
                not called like scorecards or no numbers.
        """
        count, _ = shape_of(fields)
        if odd := [f.name for f in fields if f.kind != "numeric" or f.missing != "error" or f.part]:
            raise SchemaError(f"field {odd[0]!r}: a scorecard is a number and never missing")
        if count > len(self.attributes):
            raise SchemaError(
                f"scorecards: {count} of them need as many attributes; there are "
                f"{len(self.attributes)}"
            )
        if self.fitted and set(self.members.values()) != set(range(1, count + 1)):
            raise SchemaError(
                f"scorecards: each of 1 to {count} needs an attribute, and no other number is one"
            )

    def with_points(self, members: Mapping[str, int], points: Mapping[str, Points]) -> Scorecards:
        """Return a copy with these points."""
        return replace(self, members=members, points=points)
