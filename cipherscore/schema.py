"""Schema: the fields of a credit application, how each is cut into levels, and what errors cost.

A *level* is what gets encrypted: a category code (``"A11"``) or a bin (``"[21, 38)"``).  The data
owner works with `Schema`; the host is only ever given a `PublicSchema`, which has field names and
costs but no category, no bin edge and no level count.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

from cipherscore.errors import RecordError, SchemaError, shorten

MAX_NAME_LENGTH = 52
"""Longest schema name: with ``-classifier`` it is a model name, of which 63 are allowed."""
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")


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
        if min(self.cost_false_good, self.cost_false_bad) <= 0:
            raise SchemaError(f"target {self.name!r}: costs must be above 0")


@dataclass(frozen=True)
class Source:
    """Where a table comes from and how its file is written."""

    path: str = ""
    url: str = ""
    sha256: str = ""
    sample: str = ""
    delimiter: str = ","
    header: bool = True


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
            return cls(fields=fields, **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SchemaError(f"not a public schema: {type(error).__name__}") from error


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
        names = [f.name for f in self.fields] + [self.target.name]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not self.fields:
            raise SchemaError(f"schema {self.name!r}: fields missing or named twice: {twice}")

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
