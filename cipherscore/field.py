"""One field of an application: what values it takes and how they are cut into levels."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Literal, cast

from cipherscore import dates
from cipherscore.errors import RecordError, SchemaError, shorten
from cipherscore.levels import (
    MAX_LEVEL_LENGTH,
    MAX_LEVELS,
    MISSING_LEVEL,
    OTHER_LEVEL,
    Binning,
    BinningMethod,
    Grouping,
)
from cipherscore.smoothing import Homophones, Smoothing, check_homophones

__all__ = [
    "MAX_LEVELS", "MAX_LEVEL_LENGTH", "MISSING_LEVEL", "OTHER_LEVEL", "Binning", "BinningMethod",
    "Field", "Grouping", "Kind", "Missing", "number_of",
]  # fmt: skip

Kind = Literal["categorical", "numeric"]
Missing = Literal["error", "level"]

_NUMBER_TYPES = (Real, Decimal)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
"""What Arrow reads as a number too: no ``1_000``, no digits of other scripts, no ``inf``."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Field:
    """One attribute of an application.

    Args:
        name: Its name in token tables and models, and in records unless ``column`` is given.
        kind: ``categorical`` (``categories`` holds code -> meaning) or ``numeric``.
        edges: Ascending bin edges in ``unit``; bins are ``[a, b)``, the last one ``[a, b]``.
            Empty until `cipherscore.client.binning.fit` has seen training rows.
        valid_range: Lowest and highest value accepted, in ``unit``; outside the outer edges but
            inside this range a value falls into the first or last bin.
        missing: ``error`` refuses an absent value, ``level`` gives it a level of its own.
        missing_values: Texts that mean "absent" besides the empty one.
        column: Name of the raw table's column where it is not ``name``.
        other: Whether a category without a level of its own has `OTHER_LEVEL`; else it is refused.
        grouping: Chooses ``categories`` by count; they are empty until training rows were seen.
        part: The part of a date that is this numeric field's value (`cipherscore.dates.PARTS`).
        date: How the dates are written, a key of `cipherscore.dates.FORMS`.
        reference: The day that ``part = "days"`` counts to, as ``2024-12-31``.
        protected: Whether decisions are compared between the groups of this field.
        smoothing: Gives frequent levels several tokens; each level has one without it.
        homophones: Weights of each level's tokens; with ``smoothing`` they are empty until
            training rows were seen.
    """

    name: str
    kind: Kind
    description: str = ""
    categories: dict[str, str] = field(default_factory=dict)
    edges: tuple[float, ...] = ()
    binning: Binning | None = None
    unit: str = ""
    valid_range: tuple[float, float] | None = None
    missing: Missing = "error"
    missing_values: tuple[str, ...] = ()
    column: str = ""
    other: bool = False
    grouping: Grouping | None = None
    part: str = ""
    date: str = ""
    reference: str = ""
    protected: bool = False
    smoothing: Smoothing | None = None
    homophones: Homophones = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise SchemaError("a field needs a name")
        if self.kind == "categorical":
            self._check_categories()
        elif self.kind == "numeric":
            self._check_edges()
        else:
            raise SchemaError(
                f"field {self.name!r}: kind {self.kind!r} is unknown; use categorical or numeric"
            )
        if self.missing not in ("error", "level"):
            raise SchemaError(f"field {self.name!r}: missing must be 'error' or 'level'")
        try:
            if self.part or self.date or self.reference:
                dates.check(self.part, self.date, self.reference)
            if self.homophones:
                check_homophones(self.levels, self.homophones)
        except SchemaError as error:
            raise SchemaError(f"field {self.name!r}: {error}") from None

    def _check_categories(self) -> None:
        if self.part or self.date or self.reference:
            raise SchemaError(f"field {self.name!r}: part of a date is a numeric field")
        if self.grouping is not None and not self.other:
            raise SchemaError(f"field {self.name!r}: a grouping needs other = true")
        if not self.fitted:
            return
        if not 1 <= len(self.categories) <= MAX_LEVELS:
            raise SchemaError(
                f"field {self.name!r} has {len(self.categories)} categories; allowed: 1 to "
                f"{MAX_LEVELS}. Group rare ones"
            )
        for code in self.categories:
            size = 0 if _SURROGATE.search(code) else len(code.encode())
            taken = (MISSING_LEVEL, OTHER_LEVEL) if self.other else (MISSING_LEVEL,)
            if code in taken or not code.strip() or not 0 < size <= MAX_LEVEL_LENGTH:
                raise SchemaError(
                    f"field {self.name!r}: category code {shorten(code)}: a code has 1 to "
                    f"{MAX_LEVEL_LENGTH} bytes, not only blanks, and is not "
                    f"{' or '.join(map(repr, taken))}"
                )
            if code.strip() in self.absent_texts:
                raise SchemaError(
                    f"field {self.name!r}: {code!r} is a category and in missing_values; drop one"
                )

    def _check_edges(self) -> None:
        if self.other or self.grouping is not None:
            raise SchemaError(f"field {self.name!r}: other and grouping are for categorical fields")
        if self.edges and (
            len(self.edges) < 2
            or any(not math.isfinite(edge) for edge in self.edges)
            or any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False))
        ):
            raise SchemaError(f"field {self.name!r}: edges must be two or more rising numbers")
        if not self.edges and self.binning is None:
            raise SchemaError(f"field {self.name!r}: a numeric field needs edges or a binning")
        if len(self.edges) > MAX_LEVELS:
            raise SchemaError(f"field {self.name!r}: at most {MAX_LEVELS} bins are allowed")
        if self.valid_range is not None and not self.valid_range[0] <= self.valid_range[1]:
            raise SchemaError(f"field {self.name!r}: range must be the lowest and highest value")

    @property
    def source(self) -> str:
        """Name of the raw table's column."""
        return self.column or self.name

    @property
    def fitted(self) -> bool:
        """Whether the levels are known; edges and grouped categories come from training rows."""
        if self.kind == "categorical":
            return bool(self.categories) or self.grouping is None
        return bool(self.edges)

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """All levels of the field in schema order; those of other and missing values come last.

        Raises:
            SchemaError: The field has no edges, or no grouped categories, yet.
        """
        if not self.fitted:
            lacking = "categories" if self.kind == "categorical" else "bin edges"
            raise SchemaError(
                f"field {self.name!r} has no {lacking} yet; they are fitted on training rows by "
                "`cipherscore encrypt`"
            )
        if self.kind == "categorical":
            names = [*self.categories, *[OTHER_LEVEL] * self.other]
        else:
            pairs = list(zip(self.edges, self.edges[1:], strict=False))
            names = [f"[{_number(low)}, {_number(high)})" for low, high in pairs]
            names[-1] = names[-1][:-1] + "]"
        return tuple(names + [MISSING_LEVEL] * (self.missing == "level"))

    @cached_property
    def smoothed(self) -> bool:
        """Whether some level has several tokens."""
        return any(len(weights) > 1 for weights in self.homophones.values())

    def weights_of(self, level: str) -> tuple[int, ...]:
        """Return the weights of a level's homophones; one where the field is not smoothed."""
        return self.homophones.get(level, (1,))

    @cached_property
    def inner_edges(self) -> tuple[float, ...]:
        """Edges between bins, for `bisect_right`."""
        return self.edges[1:-1]

    @cached_property
    def absent_texts(self) -> frozenset[str]:
        """Texts that mean "absent", without blanks around them."""
        return frozenset(("", *(text.strip() for text in self.missing_values)))

    @cached_property
    def absent_numbers(self) -> frozenset[float]:
        """Numbers that mean "absent" in a numeric field, such as 999 where "999" does."""
        if self.kind != "numeric" or self.part:
            return frozenset()
        found = (number_of(text) for text in self.absent_texts)
        return frozenset(number for number in found if math.isfinite(number))

    @property
    def allowed(self) -> str:
        """The allowed values in words, for error messages."""
        if self.kind == "categorical":
            codes = list(self.categories)
            shown = ", ".join(codes[:12]) + (f", … ({len(codes)} codes)" if codes[12:] else "")
            shown += " or any other text" if self.other else ""
        elif self.part:
            shown = f"a date like {self.date}"
        elif self.valid_range is None:
            shown = "any finite number"
        else:
            low, high = self.valid_range
            shown = f"a number from {_number(low)} to {_number(high)}"
        unit = f" {self.unit}" if self.unit and not self.part else ""
        return shown + unit + (" (or absent)" if self.missing == "level" else "")

    def level_of(self, value: object, row: int | None = None) -> str:
        """Return the level of one raw ``value``.

        Raises:
            RecordError: The value is absent, of the wrong type, or outside what is allowed.
        """
        if self.kind == "numeric":
            number = self.check_number(value, row)
            if number is None:
                return MISSING_LEVEL
            return self.levels[bisect_right(self.inner_edges, number)]
        if self.missing == "level" and self.is_absent(value):
            return MISSING_LEVEL
        code = self.text_of(value)
        if code in self.categories:
            return code
        if self.other and code is not None and not self.is_absent(value):
            return OTHER_LEVEL
        raise RecordError(self.source, value, self.allowed, row)

    def check_number(self, value: object, row: int | None = None) -> float | None:
        """Return one raw value of a numeric field as a number in its range; None where absent.

        Raises:
            RecordError: As for `level_of`.
        """
        number = self.number_of(value)
        low, high = self.valid_range or (-math.inf, math.inf)
        if self.is_absent(value) or number in self.absent_numbers:
            if self.missing == "level":
                return None
        elif math.isfinite(number) and low <= number <= high:
            return number
        raise RecordError(self.source, value, self.allowed, row)

    def number_of(self, value: object) -> float:
        """Return a raw value of a numeric field as a number, a date as its part; NaN if it is none.

        Absent values and the range are not looked at.
        """
        if isinstance(value, bool):
            return math.nan
        if not self.part:
            return number_of(value)
        when = dates.parse(self.date, value)
        if when is None:
            return math.nan
        return dates.number(cast("dates.Part", self.part), when, self.reference)

    def is_absent(self, value: object) -> bool:
        """Return whether a raw value is null, NaN or a text that means "absent"."""
        if isinstance(value, str):
            return value.strip() in self.absent_texts
        return value is None or (isinstance(value, _NUMBER_TYPES) and math.isnan(number_of(value)))

    def text_of(self, value: object) -> str | None:
        """Return the text a value of a categorical field stands for: a number's are its digits.

        It is a category's code where the field has such a category.  None if the value is neither
        a text nor a number.
        """
        if isinstance(value, str):
            return value if value in self.categories else value.strip()
        if not isinstance(value, _NUMBER_TYPES):
            return None
        try:
            code = str(value)
        except ValueError:  # an int of more digits than Python prints
            return None
        return code if code in self.categories else code.removesuffix(".0")


def number_of(value: object) -> float:
    """Return a number, or a text that spells one in ASCII digits, as a float; else NaN."""
    if isinstance(value, str):
        text = value.strip()
        return float(text) if _DECIMAL.match(text) else math.nan
    if not isinstance(value, _NUMBER_TYPES):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:  # a signalling NaN
        return math.nan


def _number(value: float) -> str:
    """Return the shortest text that reads back as ``value``, without a trailing ``.0``."""
    text = repr(float(value))
    return text.removesuffix(".0")
