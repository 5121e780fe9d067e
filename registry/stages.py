"""Stages: which version of a model is in production, and which one was before.

Each model name has one small file that is replaced as a whole, so promote and rollback are one
rename: a process killed at any moment leaves the old state or the new one.  BentoML's labels are
not used for this; they are written in place and one version at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from cipherscore import files
from cipherscore.errors import IntegrityError
from registry.names import is_version

_FORMAT = "cipherscore-stages"
_FORMAT_VERSION = 1
CHANGES_KEPT = 200
"""How many past changes a stage file keeps."""


class Stage(str, Enum):
    """Where a version stands."""

    CANDIDATE = "candidate"
    PRODUCTION = "production"
    ARCHIVED = "archived"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Change:
    """One past change: UTC time (ISO 8601), "promote", "rollback" or "remove", and versions."""

    at: str
    action: str
    version: str
    replaced: str | None

    @classmethod
    def now(cls, action: str, version: str, replaced: str | None) -> Change:
        """Return a change that happens now."""
        return cls(datetime.now(timezone.utc).isoformat(), action, version, replaced)


@dataclass(frozen=True)
class Stages:
    """The state of one model name.

    Args:
        production: Version in production, if any.
        previous: Versions that were in production before and can be rolled back to, the most
            recent last.  Distinct, and never the production version.
        retired: Versions that were rolled back.
        digests: Version to its digest at registration.
        changes: Past changes, the most recent last.
        removing: Version whose folder is about to be removed.  If it is gone, it was removed.
    """

    production: str | None = None
    previous: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    removing: str | None = None

    def stage_of(self, version: str) -> Stage:
        """Return the stage of ``version``."""
        if version == self.production:
            return Stage.PRODUCTION
        if version in self.previous or version in self.retired:
            return Stage.ARCHIVED
        return Stage.CANDIDATE

    def pinned(self, version: str, digest: str) -> Stages:
        """Return the state with the digest of ``version`` recorded."""
        return replace(self, digests={**self.digests, version: digest})

    def promoted(self, version: str) -> Stages:
        """Return the state with ``version`` in production; the version before becomes previous."""
        previous = [p for p in self.previous if p != version]
        if self.production is not None:
            previous.append(self.production)
        return replace(
            self,
            production=version,
            previous=tuple(previous),
            retired=tuple(r for r in self.retired if r != version),
            changes=self._with_change(Change.now("promote", version, self.production)),
        )

    def rolled_back(self) -> Stages:
        """Return the state with the last previous version in production; there must be one."""
        *previous, version = self.previous
        retired = () if self.production is None else (self.production,)
        return replace(
            self,
            production=version,
            previous=tuple(previous),
            retired=self.retired + retired,
            changes=self._with_change(Change.now("rollback", version, self.production)),
        )

    def marked(self, version: str | None) -> Stages:
        """Return the state with ``version`` about to be removed, or with none."""
        return replace(self, removing=version)

    def without(self, version: str) -> Stages:
        """Return the state after ``version``, not in production, was removed."""
        return replace(
            self,
            removing=None,
            previous=tuple(p for p in self.previous if p != version),
            retired=tuple(r for r in self.retired if r != version),
            changes=self._with_change(Change.now("remove", version, None)),
        )

    def pruned(self, existing: frozenset[str]) -> Stages:
        """Return the state without the digests of versions that are gone."""
        return replace(self, digests={v: d for v, d in self.digests.items() if v in existing})

    def _with_change(self, change: Change) -> tuple[Change, ...]:
        return (*self.changes, change)[-CHANGES_KEPT:]

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON content."""
        return {"format": _FORMAT, "format_version": _FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Stages:
        """Read what `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: It is no valid state.
        """
        if (content["format"], content["format_version"]) != (_FORMAT, _FORMAT_VERSION):
            raise ValueError("unknown format")
        found = cls(
            content["production"],
            tuple(content["previous"]),
            tuple(content["retired"]),
            {str(version): str(digest) for version, digest in content["digests"].items()},
            tuple(Change(**change) for change in content["changes"]),
            content["removing"],
        )
        staged = [*found.previous, *found.retired]
        if found.production is not None:
            staged.append(found.production)
        if len(set(staged)) != len(staged) or not all(is_version(v) for v in staged):
            raise ValueError("a version stands in two stages, or is none")
        return found


class StageFile:
    """The stage file of one model; writers must hold the model's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Stages:
        """Return the state; a model never staged has the empty one.

        Raises:
            IntegrityError: The file is damaged.
        """
        try:
            return Stages.from_json(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return Stages()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"the stage file {self.path} is damaged ({error}); restore it from a backup, or "
                "delete it and promote a version"
            ) from error

    def save(self, stages: Stages) -> None:
        """Replace the state: one rename, durable on return.  Raises: OSError."""
        # A killed writer leaves its temporary file; the lock says that none is in use now.
        for leftover in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        files.write_json(self.path, stages.to_json())
