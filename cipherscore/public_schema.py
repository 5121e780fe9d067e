"""What a host may know of a schema: names, kinds and costs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, get_args

from cipherscore.errors import SchemaError
from cipherscore.field import Kind


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
