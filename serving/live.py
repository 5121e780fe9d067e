"""Which loaded version answers a request.  Immutable: a request keeps the version it began with."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from cipherscore.errors import ModelUnavailable, UnknownModel
from serving.models import LoadedModel
from serving.tables import printable

Stage: TypeAlias = Literal["production", "canary", "shadow", "pinned"]


class Served(Protocol):
    """What answers with a model: a `Scorer` or a `Generator`."""

    @property
    def model(self) -> LoadedModel:
        """The model."""


_Served = TypeVar("_Served", bound=Served)


@dataclass(frozen=True)
class Roles:
    """Tags ("name:version") of one kind's versions by what they do.

    Attributes:
        production: Answers what the others do not.
        canary: Answers ``percent`` of the requests that pin no version.
        percent: 0 to 100.
        shadow: Gets a copy of the requests.
        pinned: Answer only who asks for them.
    """

    production: str | None = None
    canary: str | None = None
    percent: float = 0.0
    shadow: str | None = None
    pinned: frozenset[str] = frozenset()

    @property
    def tags(self) -> frozenset[str]:
        """All of them."""
        named = (self.production, self.canary, self.shadow)
        return self.pinned | {tag for tag in named if tag is not None}

    def stage_of(self, tag: str) -> Stage:
        """Return what a version is to clients, the most important first."""
        if tag == self.production:
            return "production"
        if tag == self.canary:
            return "canary"
        return "shadow" if tag == self.shadow else "pinned"


@dataclass(frozen=True)
class Problem:
    """A version that should be live and is not, or stages that cannot be read.

    Attributes:
        kind: Kind of model; empty where that is not known.
        stage: Where the version should be; "stages" for the stage file itself.
        model: Tag of the version, or name of the model.
        text: One sentence for people.
    """

    kind: str
    stage: str
    model: str
    text: str


class Crew(Generic[_Served]):
    """The live versions of one kind.

    Args:
        kind: The kind.
        roles: Who does what.
        members: The versions of ``roles``, by tag.
        chance: Gives numbers from 0 up to 1.
    """

    def __init__(
        self,
        kind: str,
        roles: Roles,
        members: Mapping[str, _Served],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.kind = kind
        self.roles = roles
        self.members: Mapping[str, _Served] = {tag: members[tag] for tag in roles.tags}
        self.production = _of(self.members, roles.production)
        self._canary = _of(self.members, roles.canary)
        self._share = roles.percent / 100
        self._chance = chance
        shadow = _of(self.members, roles.shadow)
        self.shadows: tuple[_Served, ...] = () if shadow is None else (shadow,)
        self._name = (roles.production or "").partition(":")[0]
        # A name alone means its newest version; version ids sort by time.
        named = {tag.partition(":")[0]: self.members[tag] for tag in sorted(roles.pinned)}
        self._asked: Mapping[str, _Served] = {**named, **self.members}

    def __iter__(self) -> Iterator[tuple[str, Stage, _Served]]:
        """Yield tag, stage and version of each member, production first."""
        order = ("production", "canary", "shadow", "pinned")
        stages = {tag: self.roles.stage_of(tag) for tag in self.members}
        for tag in sorted(stages, key=lambda tag: (order.index(stages[tag]), tag)):
            yield tag, stages[tag], self.members[tag]

    def percent_of(self, stage: Stage) -> float:
        """Return the share of the requests that pin no version which goes to a stage, 0 to 100."""
        shares = {"production": 100 - self.roles.percent, "canary": self.roles.percent}
        return shares.get(stage, 0.0)

    def pick(self, wanted: str) -> _Served:
        """Return the version that answers a request.

        Args:
            wanted: "name:version" pins a version.  Empty, or the name of the model in production,
                takes that one, or the canary for its share of such requests.

        Raises:
            UnknownModel: ``wanted`` is not live.
            ModelUnavailable: There is no version in production.
        """
        if wanted and wanted != self._name:
            try:
                return self._asked[wanted]
            except KeyError:
                raise UnknownModel(
                    f"this server has no {self.kind} {printable(wanted)!r}", field="model"
                ) from None
        if self._canary is not None and self._chance() < self._share:
            return self._canary
        return self.steady()

    def steady(self, wanted: str = "") -> _Served:
        """Return what `pick` does, but never by chance: the version in production, not the canary.

        Raises:
            UnknownModel, ModelUnavailable: See `pick`.
        """
        if wanted and wanted != self._name:
            return self.pick(wanted)
        if self.production is None:
            raise ModelUnavailable(f"this server has no usable {self.kind} in production")
        return self.production


def mismatch(model: LoadedModel, production: LoadedModel) -> str:
    """Return why ``model`` cannot take requests made for ``production``; empty if it can."""
    if model.record.key_id != production.record.key_id:
        return f"it is for key {model.record.key_id}, not for {production.record.key_id}"
    if model.vocabulary.fields != production.vocabulary.fields:
        return "it takes other fields"
    if model.record.noise_width != production.record.noise_width:
        return "it takes noise of another width"
    return ""


def _of(members: Mapping[str, _Served], tag: str | None) -> _Served | None:
    return None if tag is None else members[tag]


def only(kind: str, tags: Collection[str], members: Mapping[str, Served]) -> frozenset[str]:
    """Return those of ``tags`` that are loaded and of ``kind``."""
    return frozenset(tag for tag in tags if tag in members and members[tag].model.kind == kind)
