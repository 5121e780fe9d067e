"""The versions a worker has loaded, what each is there for, and how that changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from cipherscore.errors import CipherScoreError, IntegrityError
from registry.version import CLASSIFIER, GENERATOR, KINDS, Version
from serving import selection
from serving.generation import Generator
from serving.live import Crew, Problem, Roles, Served, only
from serving.models import LoadedModel
from serving.scorer import Scorer

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

SWAPPED, LOADED, UNLOADED, FAILED = "swapped", "loaded", "unloaded", "failed"


class Observer(Protocol):
    """Who is told which versions are live."""

    def serving(self, versions: Iterable[tuple[str, str, str, str, str]]) -> None:
        """Take (kind, tag, stage, provider, precision) of every live version."""

    def swap(self, kind: str, model: str, outcome: str) -> None:
        """Take one change: swapped (came into production), loaded, unloaded or failed."""


class Roster:
    """Loaded versions by tag and role.  Lives on one event loop; only loading is done in a thread.

    Args:
        load: Loads, warms up and tests a version.
        make_scorer: Makes what answers with a classifier.
        make_generator: Makes what answers with a generator.
        observer: Told about changes.
        chance: Gives numbers from 0 up to 1; decides who gets the canary.

    Attributes:
        classifiers: The live classifiers.
        generators: The live generators.
        notices: What clients should know about a version, by tag.
    """

    def __init__(
        self,
        load: Callable[[Version], LoadedModel],
        make_scorer: Callable[[LoadedModel], Scorer],
        make_generator: Callable[[LoadedModel], Generator],
        observer: Observer,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._load = load
        self._make: Mapping[str, Callable[[LoadedModel], Any]] = {
            CLASSIFIER: make_scorer,
            GENERATOR: make_generator,
        }
        self._observer = observer
        self._chance = chance
        self._loaded: dict[str, Any] = {}
        self._roles = {kind: Roles() for kind in KINDS}
        self._pinned: frozenset[str] = frozenset()
        self.notices: dict[str, str] = {}
        self._problems: dict[tuple[str, str, str], Problem] = {}
        # One thread: versions are loaded one at a time, and a slow disk holds up no request.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lineup")
        self.classifiers: Crew[Scorer] = self._crew(CLASSIFIER)
        self.generators: Crew[Generator] = self._crew(GENERATOR)

    def crew(self, kind: str) -> Crew[Any]:
        """Return the live versions of a kind."""
        return self.classifiers if kind == CLASSIFIER else self.generators

    def model(self, tag: str) -> LoadedModel | None:
        """Return a version that is loaded."""
        found: Served | None = self._loaded.get(tag)
        return None if found is None else found.model

    @property
    def pinned(self) -> frozenset[str]:
        """Tags that are served to who asks for them, whatever else they are."""
        return self._pinned

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What should be live and is not."""
        return tuple(self._problems.values())

    async def in_thread(
        self,
        task: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """Return ``task(*arguments)``, done in the thread that loads."""
        run = partial(task, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def obtain(self, version: Version, kind: str = "") -> None:
        """Verify, load, warm up and test a version, unless it is loaded; no request gets it yet.

        Without a role, `place` or `pin` will drop it again.

        Args:
            version: The version.
            kind: What it must be; empty if it may be either.

        Raises:
            CipherScoreError: It cannot be served; the message says why.
        """
        found = self._loaded.get(version.tag)
        if found is None:
            model = await self.in_thread(self._open, version, kind)
            with _as_refusal(version):
                self._loaded[version.tag] = self._make[model.kind](model)
        elif kind:
            selection.check_kind(version, kind)

    def _open(self, version: Version, kind: str) -> LoadedModel:
        with _as_refusal(version):
            version.verify()
            if kind:
                selection.check_kind(version, kind)
            return self._load(version)

    def fail(self, problem: Problem) -> None:
        """Note a problem, until `solved`."""
        key = (problem.kind, problem.stage, problem.model)
        if self._problems.get(key) != problem:
            selection.logger.error("%s", problem.text)
            self._observer.swap(problem.kind, problem.model, FAILED)
        self._problems[key] = problem

    def solved(self, kind: str, *stages: str) -> None:
        """Forget the problems of ``stages``."""
        for key in [k for k in self._problems if k[0] == kind and k[1] in stages]:
            del self._problems[key]

    def place(self, kind: str, roles: Roles) -> None:
        """Give loaded versions of ``kind`` their roles; the next request sees it.

        Versions without a role are let go; their memory is free once their requests are answered.
        """
        self._roles[kind] = roles
        self._commit()

    def pin(self, tags: frozenset[str]) -> None:
        """Serve exactly these loaded versions to who asks for them."""
        self._pinned = tags
        self._commit()

    def close(self) -> None:
        """Load no more."""
        self._thread.shutdown(wait=False)

    def _commit(self) -> None:
        before: tuple[Crew[Any], ...] = (self.classifiers, self.generators)
        classifiers, generators = self._crew(CLASSIFIER), self._crew(GENERATOR)
        after: tuple[Crew[Any], ...] = (classifiers, generators)
        self._observer.serving(
            (crew.kind, tag, stage, served.model.provider.name, served.model.precision)
            for crew in after
            for tag, stage, served in crew
        )
        self.classifiers, self.generators = classifiers, generators
        self._loaded = {tag: served for crew in after for tag, served in crew.members.items()}
        self.notices = {tag: text for tag, text in self.notices.items() if tag in self._loaded}
        for old, new in zip(before, after, strict=True):
            self._tell(old.roles, new.roles, new.kind)

    def _crew(self, kind: str) -> Crew[Any]:
        pinned = only(kind, self._pinned, self._loaded)
        return Crew(kind, replace(self._roles[kind], pinned=pinned), self._loaded, self._chance)

    def _tell(self, old: Roles, new: Roles, kind: str) -> None:
        for tag in sorted(new.tags - old.tags):
            self._observer.swap(kind, tag, LOADED)
        if old.production is not None and old.production != new.production:
            self._observer.swap(kind, str(new.production), SWAPPED)
        for tag in sorted(old.tags - new.tags):
            self._observer.swap(kind, tag, UNLOADED)


@contextmanager
def _as_refusal(version: Version) -> Iterator[None]:
    """Turn whatever goes wrong (no memory, a disk that fails) into a refusal of ``version``."""
    try:
        yield
    except CipherScoreError:
        raise
    except Exception as error:
        raise IntegrityError(f"{version.tag} does not load: {type(error).__name__}") from error
