"""What a host tells about itself: models, device, limits.  Counts and digests, never a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict

from cipherscore.errors import UnknownModel
from registry.version import CLASSIFIER, KINDS
from serving.lineup import Lineup
from serving.live import Stage
from serving.models import LoadedModel
from serving.providers import Provider
from serving.settings import Settings


class ModelFacts(TypedDict):
    """One live version, as all transports describe it; fields of the message ``Model``."""

    kind: str
    model: str
    key_id: str
    fields: list[str]
    schema: str
    schema_digest: str
    vocabulary_digest: str
    digest: str
    threshold: float
    noise_width: int
    metrics: dict[str, float]
    device: str
    device_reason: str
    max_rows: int
    notice: str
    stage: Stage
    precision: str
    device_details: dict[str, str]


def describe(model: LoadedModel, max_rows: int, stage: Stage, notice: str) -> ModelFacts:
    """Return the facts about ``model``; ``max_rows`` is the limit of one request."""
    record = model.record
    return ModelFacts(
        kind=model.kind,
        model=model.tag,
        key_id=record.key_id,
        fields=list(model.vocabulary.fields),
        schema=model.schema.name,
        schema_digest=record.schema_digest,
        vocabulary_digest=record.vocabulary_digest,
        digest=model.version.digest,
        threshold=record.threshold or 0.0,
        noise_width=record.noise_width or 0,
        metrics=flatten(record.metrics),
        device=model.provider.name,
        device_reason=model.provider.reason,
        max_rows=max_rows,
        notice=notice,
        stage=stage,
        precision=model.precision,
        device_details=_details(model.provider),
    )


def _details(provider: Provider) -> dict[str, str]:
    return {name: str(value) for name, value in provider.facts().items() if value is not None}


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return nested figures under dotted names; what is no number is left out."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[f"{prefix}{name}"] = float(value)
    return flat


class Door(Protocol):
    """Who knows whether the server shuts down: the `Gate`."""

    draining: bool


class Host:
    """What the transports tell about the server.

    Args:
        lineup: The live versions.
        settings: The server's settings.
        gate: Where requests come in.
    """

    def __init__(self, lineup: Lineup, settings: Settings, gate: Door) -> None:
        self.lineup = lineup
        self.settings = settings
        self._gate = gate

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.lineup.ready and not self._gate.draining

    def facts(self) -> list[ModelFacts]:
        """Return the facts about every live version; of each kind the one in production first."""
        return [
            self._describe(served.model, stage)
            for kind in KINDS
            for _, stage, served in self.lineup.crew(kind)
        ]

    def model_facts(self, kind: str, wanted: str = "") -> ModelFacts:
        """Return the facts about a model of ``kind``.

        Args:
            kind: The kind.
            wanted: As in a request; empty for the version in production.

        Raises:
            UnknownModel: There is no such kind or version.
            ModelUnavailable: The server has no model of this kind in production.
        """
        if kind not in KINDS:
            raise UnknownModel(f"the kinds of model are {' and '.join(KINDS)}", field="kind")
        crew = self.lineup.crew(kind)
        model = crew.steady(wanted).model
        return self._describe(model, crew.roles.stage_of(model.tag))

    def _describe(self, model: LoadedModel, stage: Stage) -> ModelFacts:
        settings = self.settings
        scores = model.kind == CLASSIFIER
        limit = settings.max_rows if scores else settings.max_generated_rows
        notice = self.lineup.notice(model.tag)
        if stage == "production":
            found = [
                p.text for p in self.lineup.problems if (p.kind, p.stage) == (model.kind, stage)
            ]
            notice = "; ".join([*found, *filter(None, [notice])])
        return describe(model, limit, stage, notice)

    def health(self) -> dict[str, Any]:
        """Return whether the host serves, what it serves, and on what.

        ``status`` is draining, degraded (something that should be live is not; ``notices`` says
        what) or serving.
        """
        lineup = self.lineup
        crews = [lineup.crew(kind) for kind in KINDS]
        state = "degraded" if lineup.problems else "serving"
        return {
            "status": "draining" if self._gate.draining else state,
            "device": lineup.provider.name,
            "device_reason": lineup.provider.reason,
            "device_details": _details(lineup.provider),
            "models": {crew.kind: crew.roles.production for crew in crews},
            "versions": [
                {
                    "kind": crew.kind,
                    "model": tag,
                    "stage": stage,
                    "percent": crew.percent_of(stage),
                }
                for crew in crews
                for tag, stage, _ in crew
            ],
            "watching": lineup.watching,
            "notices": self._notices(),
        }

    def _notices(self) -> list[str]:
        live = [tag for kind in KINDS for tag, _, _ in self.lineup.crew(kind)]
        remarks = [notice for tag in live if (notice := self.lineup.notice(tag))]
        return [*(problem.text for problem in self.lineup.problems), *remarks]
