"""Schema: the fields of a credit application, how each is cut into levels, and what errors cost.

A *level* is what gets encrypted: a category code (``"red"``) or a bin (``"[0, 10)"``).  The data
owner works with `Schema`; the host is only ever given a `PublicSchema`, which has field names and
costs but no category, no bin edge and no level count.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

from cipherscore.errors import SchemaError, shorten
from cipherscore.field import (
    MAX_LEVELS,
    MISSING_LEVEL,
    OTHER_LEVEL,
    Binning,
    Field,
    Grouping,
    Kind,
)
from cipherscore.public_schema import PublicField, PublicSchema
from cipherscore.scorecards import Scorecards
from cipherscore.smoothing import Homophones, Smoothing

__all__ = [
    "MAX_LEVELS", "MISSING_LEVEL", "OTHER_LEVEL", "Binning", "Field", "Grouping", "Kind",
    "PublicField", "PublicSchema", "Schema", "Scorecards", "Smoothing", "Source", "Target",
]  # fmt: skip

MAX_NAME_LENGTH = 52
"""Longest schema name: with ``-classifier`` it is a model name, of which 63 are allowed."""
RESERVED_NAMES = ("label", "split")
"""Columns that an encrypted table has besides its fields."""
ENCODINGS = ("utf-8", "latin-1")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Target:
    """What is predicted: ``bad`` is the positive class.

    ``good`` and ``bad`` are values of the column ``name``; more values may stand for the same class
    (``also_good``, ``also_bad``).  Where the column is a number, ``bad_below`` (this or less is
    bad) or ``bad_above`` (this or more) decides instead, and the two are only the classes' names.
    ``cost_false_good`` is the cost of calling a bad applicant good, ``cost_false_bad`` of calling a
    good one bad, in the same unit.
    """

    name: str
    good: str
    bad: str
    cost_false_good: float = 1.0
    cost_false_bad: float = 1.0
    description: str = ""
    also_good: tuple[str, ...] = ()
    also_bad: tuple[str, ...] = ()
    bad_below: float | None = None
    bad_above: float | None = None

    def __post_init__(self) -> None:
        if self.good == self.bad:
            raise SchemaError(f"target {self.name!r}: good and bad must be two different values")
        values = [self.good, *self.also_good, self.bad, *self.also_bad]
        if len(set(values)) < len(values):
            raise SchemaError(f"target {self.name!r}: a value is named twice in good and bad")
        bounds = [bound for bound in (self.bad_below, self.bad_above) if bound is not None]
        if not all(math.isfinite(bound) for bound in bounds):
            raise SchemaError(f"target {self.name!r}: bad_below and bad_above are finite numbers")
        if len(bounds) == 2 or (bounds and len(values) > 2):
            raise SchemaError(
                f"target {self.name!r}: give one of bad_below, bad_above and lists of values"
            )
        if not all(0 < cost < math.inf for cost in (self.cost_false_good, self.cost_false_bad)):
            raise SchemaError(f"target {self.name!r}: costs must be finite and above 0")

    @property
    def numeric(self) -> bool:
        """Whether the classes are cut from a number."""
        return self.bad_below is not None or self.bad_above is not None

    @property
    def rule(self) -> tuple[Any, ...]:
        """What decides which class a value stands for, beyond ``good`` and ``bad``, if any."""
        rule = (list(self.also_good), list(self.also_bad), self.bad_below, self.bad_above)
        return rule if self.numeric or self.also_good or self.also_bad else ()


@dataclass(frozen=True)
class Source:
    """Where a table comes from and how its file is written.

    ``path`` is relative to a data folder or the user's cache; ``sample`` names a file that ships
    with the package.  ``columns`` names the columns of a file without a header; without it they
    are the schema's fields in order, the target last.  With ``decimal = ","`` the numbers of a text
    file are written like 0,5.  Texts are UTF-8 unless ``encoding`` is ``latin-1``.

    Raises:
        SchemaError: A path leads elsewhere, a download has no digest, or the delimiter is not one
            character.
    """

    path: str = ""
    url: str = ""
    sha256: str = ""
    sample: str = ""
    delimiter: str = ","
    header: bool = True
    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    decimal: str = "."

    def __post_init__(self) -> None:
        if PurePath(self.path).is_absolute() or ".." in PurePath(self.path).parts:
            raise SchemaError(f"source: path {shorten(self.path)} must stay inside its folder")
        if self.sample != PurePath(self.sample).name:
            raise SchemaError(f"source: sample {shorten(self.sample)} must be a plain file name")
        if (self.url or self.sha256) and not _SHA256.match(self.sha256):
            raise SchemaError(
                "source: sha256 must be 64 lower-case hexadecimal digits; an url needs one"
            )
        if len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\r\n':
            raise SchemaError(f"source: delimiter {shorten(self.delimiter)} is no single character")
        if self.encoding not in ENCODINGS:
            raise SchemaError(
                f"source: encoding {shorten(self.encoding)} is unknown; known: "
                f"{', '.join(ENCODINGS)}"
            )
        if self.decimal not in (".", ","):
            raise SchemaError(f"source: decimal {shorten(self.decimal)} must be '.' or ','")
        if len(set(self.columns)) < len(self.columns):
            raise SchemaError("source: a name occurs twice in columns")


@dataclass(frozen=True)
class Schema:
    """The data owner's full description of a table.

    Rows that agree in the raw column ``group`` fall into one part of the split; it is no field.
    ``dropped`` names raw columns that are no fields either; records may hold them.

    With ``scorecards`` the ``fields`` are the sums of points of their attributes, and only the
    attributes are read from records and raw tables; see `cipherscore.scorecards`.

    Raises:
        SchemaError: Bad name, no field, a field twice, or a field named like the target.
    """

    name: str
    fields: tuple[Field, ...]
    target: Target
    version: int = 1
    title: str = ""
    source: Source = field(default_factory=Source)
    group: str = ""
    dropped: tuple[str, ...] = ()
    scorecards: Scorecards | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or len(self.name) > MAX_NAME_LENGTH:
            raise SchemaError(
                f"schema name {shorten(self.name)}: use up to {MAX_NAME_LENGTH} small letters, "
                "digits and single dashes"
            )
        if self.version < 1:
            raise SchemaError(f"schema {self.name!r}: version must be 1 or more")
        attributes = self.scorecards.attributes if self.scorecards else ()
        names = [f.name for f in (*self.fields, *attributes)] + [self.target.name]
        if not self.fields:
            raise SchemaError(f"schema {self.name!r} has no field")
        if self.scorecards:
            self.scorecards.check_fields(self.fields)
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise SchemaError(f"schema {self.name!r}: {shorten(twice[0])} is named twice")
        reserved = sorted(set(self.by_name).intersection(RESERVED_NAMES))
        if reserved:
            raise SchemaError(
                f"schema {self.name!r}: a field cannot be named {reserved[0]!r}, which is a column "
                "of encrypted tables; rename it, its column in the table may keep that name"
            )
        self._check_columns()

    def _check_columns(self) -> None:
        """Check that no raw column is two things, so that a record's value has one meaning."""
        names = {f.name: f for f in self.inputs}
        for f in self.inputs:
            reader = names.get(f.source, f)
            if f.source in (self.target.name, self.group) or f.name == self.group:
                raise SchemaError(
                    f"schema {self.name!r}: field {f.name!r} reads the column of the target or "
                    "the group"
                )
            if reader is not f and reader.source != f.source:
                raise SchemaError(
                    f"schema {self.name!r}: field {f.name!r} reads column {f.source!r}, which is "
                    "the name of a field that reads another column; rename one"
                )
        if self.group == self.target.name:
            raise SchemaError(f"schema {self.name!r}: the target cannot be the group")

    @property
    def identity(self) -> str:
        """Name and version, bound into every token as associated data."""
        return f"{self.name}/{self.version}"

    @property
    def fitted(self) -> bool:
        """Whether every field's levels are known, and their homophones where it asks for some."""
        return (self.scorecards is None or self.scorecards.fitted) and all(
            f.fitted and (f.smoothing is None or f.homophones) for f in self.fields
        )

    @property
    def inputs(self) -> tuple[Field, ...]:
        """What is read from records and raw tables: the scorecards' attributes, else the fields."""
        return self.fields if self.scorecards is None else self.scorecards.attributes

    @property
    def smoothed(self) -> bool:
        """Whether some level of some field has several tokens."""
        return any(f.smoothed for f in self.fields)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Field by name."""
        return {f.name: f for f in self.fields}

    @cached_property
    def unread(self) -> frozenset[str]:
        """Names that a record may hold besides those of the fields; they are not read."""
        return frozenset((self.target.name, *self.dropped, *[self.group] * bool(self.group)))

    @cached_property
    def raw_names(self) -> tuple[str, ...]:
        """The raw columns that are read, each once, in the order of the inputs; the target last."""
        names = [f.source for f in self.inputs] + [self.group] * bool(self.group)
        return tuple(dict.fromkeys([*names, self.target.name]))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides what a token stands for, 64 hexadecimal digits."""
        content = {
            "identity": self.identity,
            "fields": [_meaning_of(f) for f in self.fields],
            "target": [self.target.name, self.target.good, self.target.bad, *self.target.rule],
        }
        if self.scorecards is not None:
            cards = self.scorecards
            content["scorecards"] = [
                [_meaning_of(f), cards.members.get(f.name), cards.points.get(f.name)]
                for f in cards.attributes
            ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def public(self) -> PublicSchema:
        """Return the part the host may see."""
        return PublicSchema(
            name=self.name,
            digest=self.digest,
            fields=tuple(PublicField(f.name, f.kind) for f in self.fields),
            target=self.target.name,
            cost_false_good=self.target.cost_false_good,
            cost_false_bad=self.target.cost_false_bad,
        )

    def with_edges(self, edges: Mapping[str, tuple[float, ...]]) -> Schema:
        """Return a copy in which the named numeric fields or attributes have these bin edges."""
        return self._with("edges", edges)

    def with_categories(self, categories: Mapping[str, dict[str, str]]) -> Schema:
        """Return a copy in which these fields or attributes have these categories, by name."""
        return self._with("categories", categories)

    def with_homophones(self, homophones: Mapping[str, Homophones]) -> Schema:
        """Return a copy in which the levels of the named fields have these homophones."""
        return self._with("homophones", homophones)

    def with_scorecards(self, scorecards: Scorecards) -> Schema:
        """Return a copy with these scorecards."""
        return replace(self, scorecards=scorecards)

    def _with(self, entry: str, values: Mapping[str, Any]) -> Schema:
        """Return a copy with other values of one entry, by field name."""

        def renewed(fields: tuple[Field, ...]) -> tuple[Field, ...]:
            return tuple(
                replace(f, **{entry: values[f.name]}) if f.name in values else f for f in fields
            )

        cards = self.scorecards
        if cards is not None and values.keys() & cards.by_name.keys():
            cards = Scorecards(renewed(cards.attributes))  # points are of the levels that were
        return replace(self, fields=renewed(self.fields), scorecards=cards)


def _meaning_of(f: Field) -> list[Any]:
    """Return what decides which token a value of the field gets; the raw column's name does not."""
    part = [[f.part, f.date, f.reference]] if f.part else []
    # Weights are left out: they decide how often a token is used, not what it stands for.
    tokens = [[len(f.weights_of(level)) for level in f.levels]] if f.smoothed else []
    return [f.name, f.kind, f.missing, list(f.levels), *part, *tokens]
