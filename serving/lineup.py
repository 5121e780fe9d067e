"""The live versions of a worker: which one answers, and hot swap.

Production, canary and shadow follow the registry's stage files without a dropped request: a new
version is verified, loaded, warmed up and tested beside the old one, then the next request gets it
and the old one ends with its last request.  In a built Bento, and for a model set as
``name:version``, the version is fixed: nothing is followed, and there is neither canary nor shadow.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cipherscore.errors import (
    ModelUnavailable,
    RegistryError,
    UnknownModel,
    Unsupported,
)
from registry import names
from registry.store import Registry
from registry.version import KINDS, Version
from serving import models, selection
from serving.following import Follower
from serving.generation import Generator
from serving.live import Crew, Problem, Roles
from serving.models import LoadedModel
from serving.pinning import Pins
from serving.providers import Provider
from serving.requested import Requested
from serving.roster import Observer, Roster
from serving.scorer import Scorer
from serving.settings import Settings
from serving.tables import printable

_STARTING_LOOKS = 3
"""A version that was in production at a look may be replaced and removed before it is loaded; what
replaced it is found at the next look.  A worker that took no second one would serve without."""


@dataclass(frozen=True)
class Indexed:
    """A version as the repository index of the Open Inference Protocol lists it."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class Lineup:
    """What is live, and how that changes.  Lives on the worker's event loop.

    Args:
        settings: The server's settings.
        provider: What runs the models.
        make_scorer: Makes what answers with a classifier; called on the loop.
        make_generator: Makes what answers with a generator; called on the loop.
        observer: Told about changes.
        requested: Versions that clients asked to load; default: those the parent announced.
        chance: Gives numbers from 0 up to 1; decides who gets the canary.
    """

    def __init__(
        self,
        settings: Settings,
        provider: Provider,
        make_scorer: Callable[[LoadedModel], Scorer],
        make_generator: Callable[[LoadedModel], Generator],
        observer: Observer,
        *,
        requested: Requested | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        def load(version: Version) -> LoadedModel:
            return models.load(
                version,
                provider,
                settings.session_threads,
                precision=settings.precision,
                reasons=settings.max_reasons > 0,
            )

        self.provider = provider
        self._settings = settings
        self._roster = Roster(load, make_scorer, make_generator, observer, chance)
        self._followers: list[Follower] = []
        self._pins = Pins(
            self._roster,
            Requested.shared() if requested is None else requested,
            frozenset(settings.extra_models),
        )
        self._busy = asyncio.Lock()

    # ---- for requests

    def classifier(self, wanted: str = "", *, explained: bool = False) -> Scorer:
        """Return the classifier that answers a request; see `Crew.pick`.

        One that asks for reasons is never left to a canary that has none.

        Raises:
            UnknownModel, ModelUnavailable: There is none.
        """
        crew = self._roster.classifiers
        found = crew.pick(wanted)
        return crew.steady(wanted) if explained and found.model.explainer is None else found

    def generator(self, wanted: str = "") -> Generator:
        """Return the generator that answers a request; see `Crew.pick`.

        Raises:
            UnknownModel, ModelUnavailable: There is none.
        """
        return self._roster.generators.pick(wanted)

    def shadows(self) -> tuple[Scorer, ...]:
        """Return the classifiers that get a copy of the requests."""
        return self._roster.classifiers.shadows

    # ---- for health and facts

    @property
    def ready(self) -> bool:
        """Whether there is anything to answer with."""
        return any(self.crew(kind).production is not None for kind in KINDS)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What should be live and is not."""
        return self._roster.problems

    @property
    def watching(self) -> bool:
        """Whether changes of stages are taken over."""
        return bool(self._followers) and self._settings.watch_seconds > 0

    def notice(self, tag: str) -> str:
        """Return what clients should know about a live version; mostly empty."""
        return self._roster.notices.get(tag, "")

    def crew(self, kind: str) -> Crew[Any]:
        """Return the live versions of a kind as they are now."""
        return self._roster.crew(kind)

    async def index(self) -> list[Indexed]:
        """Return all versions of the registry; those that are live are ready.

        Raises:
            ModelUnavailable: The registry cannot be read.
        """
        reasons = {problem.model: problem.text for problem in self.problems}
        live = {tag: stage for kind in KINDS for tag, stage, _ in self.crew(kind)}
        try:
            known = await self._roster.in_thread(_registered)
        except RegistryError as error:
            raise ModelUnavailable(str(error)) from error
        return [
            Indexed(
                *_split(tag),
                "READY" if tag in live else "UNAVAILABLE",
                live.get(tag) or reasons.get(tag, "not loaded"),
            )
            for tag in sorted({*known, *live})
        ]

    # ---- changing

    async def start(self, tags: Sequence[str]) -> None:
        """Load what is to be served.

        Args:
            tags: A version of each kind that was found to run.  Where its name is followed, what
                is in production by now comes first: a worker may start long after its server.

        Raises:
            CipherScoreError: Nothing can be served, or not what must be.
        """
        async with self._busy:
            for tag in tags:
                kind = await self._roster.in_thread(selection.kind_of, tag)
                if selection.is_fixed(self._settings, kind):
                    await self._roster.obtain(await self._roster.in_thread(selection.reopen, tag))
                    self._roster.place(kind, Roles(production=tag))
                else:
                    await self._follow(kind, tag)
            for kind in KINDS:
                followed = {follower.kind for follower in self._followers}
                if kind not in followed and not selection.is_fixed(self._settings, kind):
                    self._followers.append(Follower(kind, "", self._roster, self._settings))
            if not self.ready:
                told = "; ".join(problem.text for problem in self.problems)
                raise RegistryError(told or "no model can be served")
            if not selection.is_built():
                await self._pins.heed()

    async def _follow(self, kind: str, tag: str) -> None:
        follower = Follower(kind, _split(tag)[0], self._roster, self._settings)
        self._followers.append(follower)
        for _ in range(_STARTING_LOOKS):
            await follower.step(tag)
            if self.crew(kind).production is not None:
                return

    async def watch(self) -> None:
        """Take over changes for ever; one worker of several does not wait for the others."""
        if not self.watching:
            selection.logger.info("the versions served are fixed until the next start")
            return
        while True:
            await asyncio.sleep(self._settings.watch_seconds)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - a watcher that dies would go unnoticed
                selection.logger.error(
                    "looking for changed versions failed: %s", type(error).__name__
                )

    async def look(self) -> None:
        """Take over what changed since the last look."""
        async with self._busy:
            for follower in self._followers:
                await follower.step()
            await self._pins.heed()

    async def load(self, tag: str) -> str:
        """Serve one more version, to who asks for it, in all workers; return its tag.

        Args:
            tag: "name:version".  A name alone means the version in production: where it is
                followed, changes are taken over at once.

        Raises:
            UnknownModel: There is no such version.
            ModelUnavailable: It cannot be served.
            Unsupported: The versions are fixed.
        """
        self._check_changeable()
        async with self._busy:
            for follower in self._followers:
                if follower.name == tag:
                    await follower.step()
                    return self._steady(follower.kind)
            version = await self._found(tag)
            await self._pins.add(version)
            return version.tag

    async def unload(self, tag: str) -> None:
        """Serve a version that `load` added no more, in all workers.

        Args:
            tag: "name:version", or a name for all its versions that were added.

        Raises:
            UnknownModel: It is not served.
            InvalidRequest: It was not added by `load`.
            ModelUnavailable: The other workers cannot be told.
            Unsupported: The versions are fixed.
        """
        self._check_changeable()
        async with self._busy:
            await self._pins.remove(tag)

    def close(self) -> None:
        """Load no more."""
        self._roster.close()

    # ---- inside

    def _check_changeable(self) -> None:
        if selection.is_built():
            raise Unsupported("the versions of a built Bento are fixed")
        if self._settings.workers > 1 and not self._settings.watch_seconds:
            raise Unsupported("several workers that do not watch serve fixed versions")

    def _steady(self, kind: str) -> str:
        """Return the version in production, unless it is one that should not be there any more."""
        for problem in self.problems:
            if (problem.kind, problem.stage) == (kind, "production"):
                raise ModelUnavailable(problem.text)
        return str(self.crew(kind).steady().model.tag)

    async def _found(self, tag: str) -> Version:
        try:
            names.split_tag(tag)
            return await self._roster.in_thread(Registry().get, tag)
        except RegistryError as error:
            raise UnknownModel(
                f"there is no usable {printable(tag)!r} in the registry", field="model"
            ) from error


def _split(tag: str) -> tuple[str, str]:
    name, _, version = tag.partition(":")
    return name, version


def _registered() -> list[str]:
    """Return the tags of all versions in the registry, none in a built Bento."""
    if selection.is_built():
        return []
    registry = Registry()
    return [version.tag for name in registry.names() for version in registry.versions(name)]
