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
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any, get_args

from cipherscore.errors import SchemaError, shorten
from cipherscore.field import MAX_LEVELS, MISSING_LEVEL, Binning, Field, Kind

__all__ = [
    "MAX_LEVELS", "MISSING_LEVEL", "Binning", "Field", "Kind", "PublicField", "PublicSchema",
    "Schema", "Source", "Target",
]  # fmt: skip

MAX_NAME_LENGTH = 52
"""Longest schema name: with ``-classifier`` it is a model name, of which 63 are allowed."""
RESERVED_NAMES = ("label", "split")
"""Columns that an encrypted table has besides its fields."""
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Target:
    """What is predicted: ``bad`` is the positive class.

    ``cost_false_good`` is the cost of calling a bad applicant good, ``cost_false_bad`` of calling a
    good one bad, in the same unit.
    """

    name: str
    good: str
    bad: str
    cost_false_good: float = 1.0
    cost_false_bad: float = 1.0
    description: str = ""

    def __post_init__(self) -> None:
        if self.good == self.bad:
            raise SchemaError(f"target {self.name!r}: good and bad must be two different values")
        if not all(0 < cost < math.inf for cost in (self.cost_false_good, self.cost_false_bad)):
            raise SchemaError(f"target {self.name!r}: costs must be finite and above 0")


@dataclass(frozen=True)
class Source:
    """Where a table comes from and how its file is written.

    ``path`` is relative to a data folder or the user's cache; ``sample`` names a file that ships
    with the package.

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


@dataclass(frozen=True)
class PublicField:
    """What the host may know of a field."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class PublicSchema:
    """What the host may know of a schema; ``digest`` ties it to the owner's full one."""

    name: str
    digest: str
    fields: tuple[PublicField, ...]
    target: str
    cost_false_good: float
    cost_false_bad: float

    def to_json(self) -> str:
        """Return canonical JSON."""
        content = {**self.__dict__, "fields": [f.__dict__ for f in self.fields]}
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PublicSchema:
        """Read what `to_json` wrote.

        Raises:
            SchemaError: The text is no public schema.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            fields = tuple(PublicField(**entry) for entry in content.pop("fields"))
            found = cls(fields=fields, **content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SchemaError(f"not a public schema: {type(error).__name__}") from None
        found._check()
        return found

    def _check(self) -> None:
        """Check what a file may have wrong, so that no later code meets a wrong type."""
        names = [f.name for f in self.fields]
        texts: list[Any] = [self.name, self.digest, self.target, *names]
        costs: list[Any] = [self.cost_false_good, self.cost_false_bad]
        if not all(isinstance(text, str) and text for text in texts):
            raise SchemaError("not a public schema: a name is no text or empty")
        if not names or len(set(names)) < len(names):
            raise SchemaError("not a public schema: fields are missing or named twice")
        if any(f.kind not in get_args(Kind) for f in self.fields):
            raise SchemaError("not a public schema: a field's kind is unknown")
        if not all(type(cost) in (int, float) and 0 < cost < math.inf for cost in costs):
            raise SchemaError("not a public schema: a cost is no number above 0")


@dataclass(frozen=True)
class Schema:
    """The data owner's full description of a table.

    Raises:
        SchemaError: Bad name, no field, a field twice, or a field named like the target.
    """

    name: str
    fields: tuple[Field, ...]
    target: Target
    version: int = 1
    title: str = ""
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or len(self.name) > MAX_NAME_LENGTH:
            raise SchemaError(
                f"schema name {shorten(self.name)}: use up to {MAX_NAME_LENGTH} small letters, "
                "digits and single dashes"
            )
        if self.version < 1:
            raise SchemaError(f"schema {self.name!r}: version must be 1 or more")
        names = [f.name for f in self.fields] + [self.target.name]
        if not self.fields:
            raise SchemaError(f"schema {self.name!r} has no field")
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise SchemaError(f"schema {self.name!r}: {shorten(twice[0])} is named twice")
        reserved = sorted(set(self.by_name).intersection(RESERVED_NAMES))
        if reserved:
            raise SchemaError(
                f"schema {self.name!r}: a field cannot be named {reserved[0]!r}, which is a column "
                "of encrypted tables; rename it"
            )

    @property
    def identity(self) -> str:
        """Name and version, bound into every token as associated data."""
        return f"{self.name}/{self.version}"

    @property
    def fitted(self) -> bool:
        """Whether every field's levels are known."""
        return all(f.fitted for f in self.fields)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Field by name."""
        return {f.name: f for f in self.fields}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides what a token stands for, 64 hexadecimal digits."""
        content = {
            "identity": self.identity,
            "fields": [[f.name, f.kind, f.missing, list(f.levels)] for f in self.fields],
            "target": [self.target.name, self.target.good, self.target.bad],
        }
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

    def with_edges(self, edges: dict[str, tuple[float, ...]]) -> Schema:
        """Return a copy in which the named numeric fields have these bin edges."""
        fields = tuple(
            replace(f, edges=edges[f.name]) if f.name in edges else f for f in self.fields
        )
        return replace(self, fields=fields)
