"""One field of an application: what values it takes and how they are cut into levels."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Literal, get_args

from cipherscore.errors import RecordError, SchemaError, shorten

Kind = Literal["categorical", "numeric"]
Missing = Literal["error", "level"]
BinningMethod = Literal["uniform", "quantile", "tree"]

MISSING_LEVEL = "<missing>"
"""Level of an absent value where the field's policy is ``missing = "level"``."""

_NUMBER_TYPES = (Real, Decimal)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
"""What Arrow reads as a number too: no ``1_000``, no digits of other scripts, no ``inf``."""
_SURROGATE = re.compile("[\ud800-\udfff]")

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
class Field:
    """One attribute of an application.

    Args:
        name: Its name in records and tables.
        kind: ``categorical`` (``categories`` holds code -> meaning) or ``numeric``.
        edges: Ascending bin edges in ``unit``; bins are ``[a, b)``, the last one ``[a, b]``.
            Empty until `cipherscore.client.binning.fit` has seen training rows.
        valid_range: Lowest and highest value accepted, in ``unit``; outside the outer edges but
            inside this range a value falls into the first or last bin.
        missing: ``error`` refuses an absent value, ``level`` gives it a level of its own.
        missing_values: Texts that mean "absent" besides the empty one.
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

    def _check_categories(self) -> None:
        if not 1 <= len(self.categories) <= MAX_LEVELS:
            raise SchemaError(
                f"field {self.name!r} has {len(self.categories)} categories; allowed: 1 to "
                f"{MAX_LEVELS}. Group rare ones"
            )
        for code in self.categories:
            size = 0 if _SURROGATE.search(code) else len(code.encode())
            if code == MISSING_LEVEL or not code.strip() or not 0 < size <= MAX_LEVEL_LENGTH:
                raise SchemaError(
                    f"field {self.name!r}: category code {shorten(code)}: a code has 1 to "
                    f"{MAX_LEVEL_LENGTH} bytes, not only blanks, and is not {MISSING_LEVEL!r}"
                )
            if code.strip() in self.absent_texts:
                raise SchemaError(
                    f"field {self.name!r}: {code!r} is a category and in missing_values; drop one"
                )

    def _check_edges(self) -> None:
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
    def fitted(self) -> bool:
        """Whether the levels are known; a numeric field without edges must be fitted first."""
        return self.kind == "categorical" or bool(self.edges)

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """All levels of the field in schema order; a missing level comes last.

        Raises:
            SchemaError: The field is numeric and has no edges yet.
        """
        if not self.fitted:
            raise SchemaError(
                f"field {self.name!r} has no bin edges yet; they are fitted on training rows by "
                "`cipherscore encrypt`"
            )
        if self.kind == "categorical":
            names = list(self.categories)
        else:
            pairs = list(zip(self.edges, self.edges[1:], strict=False))
            names = [f"[{_number(low)}, {_number(high)})" for low, high in pairs]
            names[-1] = names[-1][:-1] + "]"
        return tuple(names + [MISSING_LEVEL] * (self.missing == "level"))

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
        found = (number_of(text) for text in self.absent_texts if self.kind == "numeric")
        return frozenset(number for number in found if math.isfinite(number))

    @property
    def allowed(self) -> str:
        """The allowed values in words, for error messages."""
        if self.kind == "categorical":
            codes = list(self.categories)
            shown = ", ".join(codes[:12]) + (f", … ({len(codes)} codes)" if codes[12:] else "")
        elif self.valid_range is None:
            shown = "any finite number"
        else:
            low, high = self.valid_range
            shown = f"a number from {_number(low)} to {_number(high)}"
        unit = f" {self.unit}" if self.unit else ""
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
        if self.missing == "level" and self._is_absent(value):
            return MISSING_LEVEL
        code = self._code_of(value)
        if code is None:
            raise RecordError(self.name, value, self.allowed, row)
        return code

    def check_number(self, value: object, row: int | None = None) -> float | None:
        """Return one raw value of a numeric field as a number in its range; None where absent.

        Raises:
            RecordError: As for `level_of`.
        """
        number = math.nan if isinstance(value, bool) else number_of(value)
        low, high = self.valid_range or (-math.inf, math.inf)
        if self._is_absent(value) or number in self.absent_numbers:
            if self.missing == "level":
                return None
        elif math.isfinite(number) and low <= number <= high:
            return number
        raise RecordError(self.name, value, self.allowed, row)

    def _is_absent(self, value: object) -> bool:
        if isinstance(value, str):
            return value.strip() in self.absent_texts
        return value is None or (isinstance(value, _NUMBER_TYPES) and math.isnan(number_of(value)))

    def _code_of(self, value: object) -> str | None:
        """Return the category code a value stands for; a number stands for its digits."""
        if isinstance(value, str):
            code = value if value in self.categories else value.strip()
        elif isinstance(value, _NUMBER_TYPES):
            try:
                code = str(value)
            except ValueError:  # an int of more digits than Python prints
                return None
            code = code if code in self.categories else code.removesuffix(".0")
        else:
            return None
        return code if code in self.categories else None


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
