"""Versions served to who asks for them by name: set by the operator, or loaded on request."""

from __future__ import annotations

from contextlib import suppress

from cipherscore.errors import (
    CipherScoreError,
    InvalidRequest,
    ModelUnavailable,
    RegistryError,
    UnknownModel,
)
from registry.version import KINDS, Version
from serving import selection
from serving.live import Problem
from serving.requested import Requested
from serving.roster import Roster
from serving.tables import printable

_PINNED = "pinned"


class Pins:
    """Pinned versions.  One that cannot be served is tried again when the list changes.

    Args:
        roster: Where versions are loaded.
        requested: Those that clients asked to load.
        extra: Tags of those the operator set.
    """

    def __init__(self, roster: Roster, requested: Requested, extra: frozenset[str]) -> None:
        self._roster = roster
        self._requested = requested
        self._extra = extra
        self._tried: frozenset[str] | None = None
        """What clients asked for when that was last carried out; None: look again."""

    async def heed(self) -> None:
        """Serve what is set and what clients, of any worker, asked for; no more what they ended."""
        with suppress(OSError, ValueError):
            wanted = await self._roster.in_thread(self._requested.tags)
            if wanted != self._tried:
                self._tried = wanted
                await self._pin(self._extra | wanted)

    async def add(self, version: Version) -> None:
        """Serve ``version``.

        Raises:
            ModelUnavailable: It cannot be served.
        """
        try:
            await self._roster.obtain(version)
            await self._roster.in_thread(self._requested.add, version.tag)
        except (CipherScoreError, OSError, ValueError) as error:
            selection.logger.error("cannot load %s: %s", version.tag, error)
            self._roster.pin(self._roster.pinned)  # lets it go
            raise ModelUnavailable(f"{version.tag} cannot be loaded") from error
        self._tried = None
        self._roster.pin(self._roster.pinned | {version.tag})

    async def remove(self, tag: str) -> None:
        """Serve a version, or all of a name, that `add` added no more.

        Raises:
            UnknownModel: It is not served.
            InvalidRequest: It was not added.
            ModelUnavailable: The list cannot be changed.
        """
        try:
            added = await self._roster.in_thread(self._requested.tags)
            chosen = {one for one in added if _is(one, tag)}
            for one in chosen:
                await self._roster.in_thread(self._requested.remove, one)
        except (OSError, ValueError, RegistryError) as error:
            raise ModelUnavailable("the list of loaded versions cannot be changed") from error
        if not chosen:
            raise self._refusal(tag)
        self._tried = None
        self._roster.pin(self._roster.pinned - (chosen - self._extra))

    def _refusal(self, tag: str) -> InvalidRequest | UnknownModel:
        for kind in KINDS:
            for live, stage, _ in self._roster.crew(kind):
                if _is(live, tag):
                    how = f"the {stage} version" if stage != _PINNED else "set by extra_models"
                    return InvalidRequest(f"{live} is {how}; it cannot be unloaded", field="model")
        return UnknownModel(f"{printable(tag)!r} is not loaded", field="model")

    async def _pin(self, tags: frozenset[str]) -> None:
        """Load and pin those of ``tags`` that can be served; the others become problems."""
        self._roster.solved("", _PINNED)
        good = set()
        for tag in sorted(tags):
            try:
                good.add(await self._obtain(tag))
            except CipherScoreError as error:
                text = f"{tag} was asked for but is not served: {error}"
                self._roster.fail(Problem("", _PINNED, tag, text))
        self._roster.pin(frozenset(good))

    async def _obtain(self, tag: str) -> str:
        if self._roster.model(tag) is not None:
            return tag
        version = await self._roster.in_thread(selection.reopen, tag)
        await self._roster.obtain(version)
        return version.tag


def _is(live: str, tag: str) -> bool:
    """Return whether ``tag`` means the version ``live``, by its tag or its name alone."""
    return tag in (live, live.partition(":")[0])
