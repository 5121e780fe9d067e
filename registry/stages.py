"""Stages: which version of a model is in production, tried beside it, and which ones were before.

Each model name has one small file that is replaced as a whole, so every change is one rename: a
process killed at any moment leaves the old state or the new one.  BentoML's labels are not used
for this; they are written in place and one version at a time.
"""

from __future__ import annotations

import json
import math
import time
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
_FORMAT_VERSION = 2
_READABLE = (1, 2)
"""Version 1 knew no canary and no shadow."""
CHANGES_KEPT = 200
"""How many past changes a stage file keeps."""
_WHOLE = 100
_CLOCK_TICK = 100_000_000
"""Nanoseconds; longer than the tick of any file system clock that is common."""


class Stage(str, Enum):
    """Where a version stands.

    A canary answers a share of the requests, a shadow gets a copy of them and its answers are only
    compared.
    """

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CANARY = "canary"
    PRODUCTION = "production"
    ARCHIVED = "archived"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Change:
    """One past change.

    Attributes:
        at: UTC time (ISO 8601).
        action: "promote", "rollback", "remove", "canary", "shadow", "unstage-canary" or
            "unstage-shadow".
        version: Version it was about.
        replaced: Version that stood there before, if any.
        percent: Share of the requests a canary got.
    """

    at: str
    action: str
    version: str
    replaced: str | None
    percent: float | None = None

    @classmethod
    def now(
        cls, action: str, version: str, replaced: str | None, percent: float | None = None
    ) -> Change:
        """Return a change that happens now."""
        return cls(datetime.now(timezone.utc).isoformat(), action, version, replaced, percent)


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
        canary: Version that gets a share of the requests, if any.  Like the shadow it may also be
            among the previous or the retired ones, which is what it is again afterwards.
        percent: That share, above 0 and at most 100; None without a canary.
        shadow: Version that gets a copy of the requests, if any.
    """

    production: str | None = None
    previous: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    removing: str | None = None
    canary: str | None = None
    percent: float | None = None
    shadow: str | None = None

    def stage_of(self, version: str) -> Stage:
        """Return the stage of ``version``."""
        if version == self.production:
            return Stage.PRODUCTION
        if version == self.canary:
            return Stage.CANARY
        if version == self.shadow:
            return Stage.SHADOW
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
            self._freed(version),
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
            self._freed(version),
            production=version,
            previous=tuple(previous),
            retired=self.retired + retired,
            changes=self._with_change(Change.now("rollback", version, self.production)),
        )

    def with_canary(self, version: str, percent: float) -> Stages:
        """Return the state with ``version``, not in production, as canary."""
        return replace(
            self._freed(version),
            canary=version,
            percent=percent,
            changes=self._with_change(Change.now("canary", version, self.canary, percent)),
        )

    def with_shadow(self, version: str) -> Stages:
        """Return the state with ``version``, not in production, as shadow."""
        return replace(
            self._freed(version),
            shadow=version,
            changes=self._with_change(Change.now("shadow", version, self.shadow)),
        )

    def unstaged(self, version: str) -> Stages:
        """Return the state after ``version``, the canary or the shadow, has stopped being it."""
        action = f"unstage-{self.stage_of(version)}"
        freed = self._freed(version)
        return replace(freed, changes=self._with_change(Change.now(action, version, None)))

    def _freed(self, version: str) -> Stages:
        """Return the state with ``version`` neither canary nor shadow."""
        if version == self.canary:
            return replace(self, canary=None, percent=None)
        return replace(self, shadow=None) if version == self.shadow else self

    def marked(self, version: str | None) -> Stages:
        """Return the state with ``version`` about to be removed, or with none."""
        return replace(self, removing=version)

    def without(self, version: str) -> Stages:
        """Return the state after ``version``, which was not in use, was removed."""
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
        if content["format"] != _FORMAT or content["format_version"] not in _READABLE:
            raise ValueError("unknown format")
        found = cls(
            content["production"],
            tuple(content["previous"]),
            tuple(content["retired"]),
            {str(version): str(digest) for version, digest in content["digests"].items()},
            tuple(Change(**change) for change in content["changes"]),
            content["removing"],
            content.get("canary"),
            content.get("percent"),
            content.get("shadow"),
        )
        found._check()
        return found

    def _check(self) -> None:
        live = [v for v in (self.production, self.canary, self.shadow) if v is not None]
        ended = [*self.previous, *self.retired]
        staged = [*live, *ended]
        twice = len(set(live)) != len(live) or len({*ended, self.production}) != len(ended) + 1
        if twice or not all(is_version(version) for version in staged):
            raise ValueError("a version stands in two stages, or is none")
        if (self.canary is None) != (self.percent is None):
            raise ValueError("a canary has a share, and nothing else")
        if self.percent is not None and not is_percent(self.percent):
            raise ValueError("a canary's share is no percentage")


def is_percent(share: float) -> bool:
    """Return whether ``share`` is a share of the requests that a canary can have."""
    return math.isfinite(share) and 0 < share <= _WHOLE


class StageFile:
    """The stage file of one model; writers must hold the model's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> tuple[int, ...] | None:
        """Return what changes whenever the file is replaced; None without a file.

        Raises:
            OSError: It cannot be looked at.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        stamp = (found.st_ino, found.st_ctime_ns, found.st_size)
        # A file system's clock ticks slowly: the next change of a file this young may look alike.
        now = time.time_ns()
        return (*stamp, now) if now - found.st_ctime_ns < _CLOCK_TICK else stamp

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
