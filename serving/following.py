"""Keeping the live versions of one kind as the registry's stage file has them."""

from __future__ import annotations

from collections.abc import Sequence

from cipherscore.errors import CipherScoreError
from registry.reader import Staged
from registry.store import Registry
from registry.version import Version
from serving import selection
from serving.live import Problem, Roles, mismatch
from serving.roster import Roster
from serving.settings import Settings

_NEVER = object()
_STAGES, _PRODUCTION, _CANARY, _SHADOW = "stages", "production", "canary", "shadow"


class Follower:
    """Follows one model name.

    A version that cannot be served is tried again when the stage file changes.  Until then the
    production version before it goes on; a canary or shadow is not replaced by the one before,
    which nobody wants any more.

    Args:
        kind: Kind of the model.
        name: Its name; empty to follow the first that comes into production.
        roster: Where versions are loaded and placed.
        settings: The server's settings.
    """

    def __init__(self, kind: str, name: str, roster: Roster, settings: Settings) -> None:
        self.kind = kind
        self.name = name
        self._roster = roster
        self._settings = settings
        self._registry = Registry()
        self._stamp: object = _NEVER
        self._seen: Staged | None = None

    async def step(self, planned: str = "") -> None:
        """Look for a change and carry it out.

        Args:
            planned: At the start: a version that was found to run.
        """
        try:
            staged = await self._roster.in_thread(self._news)
        except CipherScoreError as error:
            self._stamp = _NEVER
            self._note(_STAGES, self.name or self.kind, str(error))
            return
        self._roster.solved(self.kind, _STAGES)
        if staged is not None:
            await self._apply(staged, planned)

    def _news(self) -> Staged | None:
        """Return the stages if they changed since the last call; in the thread."""
        if not self.name:
            stamp = self._registry.stamp_of_all()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            self.name = selection.name_of(self._settings, self._registry, self.kind)
            if not self.name:
                return None
        # Looked at before it is read: a change in between is seen at the next look.
        stamp = self._registry.stamp(self.name)
        if stamp == self._stamp:
            return None
        staged = self._registry.staged(self.name)
        self._stamp = stamp
        if staged == self._seen:
            return None
        self._seen = staged
        return staged

    async def _apply(self, staged: Staged, planned: str) -> None:
        self._roster.solved(self.kind, _PRODUCTION, _CANARY, _SHADOW)
        production = await self._production(staged, planned)
        # What is loaded already, a canary that was promoted for one, does not wait for the rest.
        self._place(production, staged)
        for stage, version in ((_CANARY, staged.canary), (_SHADOW, staged.shadow)):
            if version is None or self._roster.model(version.tag) is not None:
                continue
            if await self._obtained(stage, version):
                self._place(production, staged)

    async def _production(self, staged: Staged, planned: str) -> str | None:
        """Return the tag of the version to have in production from now on."""
        serving = self._roster.crew(self.kind).roles.production
        if staged.production is None:
            self._note(
                _PRODUCTION, self.name, f"no version of {self.name!r} is in production any more"
            )
        elif await self._obtained(_PRODUCTION, staged.production):
            self._remark(serving, staged.production.tag)
            return staged.production.tag
        if serving is not None:
            return serving
        for version in await self._before(planned):
            if await self._obtained("", version):
                return version.tag
        return None

    def _remark(self, before: str | None, now: str) -> None:
        """Say that requests under the old version's key will be refused, if so it is."""
        old, new = self._roster.model(before or ""), self._roster.model(now)
        if old is None or new is None or old is new or not mismatch(new, old):
            return
        text = f"{now} replaced {before}: {mismatch(new, old)}"
        self._roster.notices[now] = text
        selection.logger.warning("%s", text)

    async def _before(self, planned: str) -> Sequence[Version]:
        """Return what may be served in place of the version in production, the best first."""
        found: list[Version] = []
        try:
            found += await self._roster.in_thread(self._registry.previous, self.name)
            if planned:
                found.append(await self._roster.in_thread(selection.reopen, planned))
        except CipherScoreError as error:
            selection.logger.error("%s", error)
        return found

    async def _obtained(self, stage: str, version: Version) -> bool:
        """Load ``version`` and return whether that went well; if not, note it for its stage."""
        try:
            await self._roster.obtain(version, self.kind)
        except CipherScoreError as error:
            selection.log_refusal(version, error)
            if stage:
                self._refuse(stage, version, str(error))
            return False
        return True

    def _place(self, production: str | None, staged: Staged) -> None:
        canary = self._beside(production, _CANARY, staged.canary)
        self._roster.place(
            self.kind,
            Roles(
                production=production,
                canary=canary,
                percent=staged.percent if canary else 0.0,
                shadow=self._beside(production, _SHADOW, staged.shadow),
            ),
        )

    def _beside(self, production: str | None, stage: str, version: Version | None) -> str | None:
        """Return the tag of a canary or shadow that is loaded and can take production's requests.

        One under another key would refuse its share of them.
        """
        if version is None or production in (None, version.tag):
            return None
        model, steady = self._roster.model(version.tag), self._roster.model(str(production))
        if model is None or steady is None:
            return None
        why = mismatch(model, steady)
        if why:
            self._refuse(stage, version, why)
            return None
        return version.tag

    def _refuse(self, stage: str, version: Version, why: str) -> None:
        where = "in production" if stage == _PRODUCTION else f"the {stage}"
        self._note(stage, version.tag, f"{version.tag} is {where} but not served: {why}")

    def _note(self, stage: str, model: str, text: str) -> None:
        self._roster.fail(Problem(self.kind, stage, model, text))
