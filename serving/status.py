"""What a host tells about itself: models, device, limits.  Counts and digests, never a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from cipherscore.errors import ModelUnavailable, UnknownModel
from registry.version import KINDS
from serving.generation import Generator
from serving.models import LoadedModel
from serving.scorer import Scorer
from serving.settings import Settings


class ModelFacts(TypedDict):
    """One served model, as both transports describe it; the fields of the message ``Model``."""

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


def describe(model: LoadedModel, max_rows: int) -> ModelFacts:
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
        notice=model.notice,
    )


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return nested figures under dotted names; what is no number is left out."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[f"{prefix}{name}"] = float(value)
    return flat


class Host:
    """Everything a transport needs to answer: the models that loaded, and the limits.

    Args:
        models: At most one of each kind.
        settings: The server's settings.
    """

    def __init__(self, models: tuple[LoadedModel, ...], settings: Settings) -> None:
        self.settings = settings
        by_kind = {model.kind: model for model in models}
        classifier, generator = by_kind.get("classifier"), by_kind.get("generator")
        self._scorer = None if classifier is None else Scorer(classifier, settings.max_rows)
        self._generator = (
            None if generator is None else Generator(generator, settings.max_generated_rows)
        )
        self.facts = {
            model.kind: describe(
                model,
                settings.max_rows if model.kind == "classifier" else settings.max_generated_rows,
            )
            for model in models
        }
        self.provider = models[0].provider
        self.draining = False

    @property
    def scorer(self) -> Scorer:
        """The classifier.  Raises: ModelUnavailable."""
        if self._scorer is None:
            raise _unavailable("classifier")
        return self._scorer

    @property
    def generator(self) -> Generator:
        """The generator.  Raises: ModelUnavailable."""
        if self._generator is None:
            raise _unavailable("generator")
        return self._generator

    def model_facts(self, kind: str) -> ModelFacts:
        """Return the facts about the model of ``kind``.

        Raises:
            UnknownModel: There is no such kind.
            ModelUnavailable: The server has no model of this kind.
        """
        if kind not in KINDS:
            raise UnknownModel(f"the kinds of model are {' and '.join(KINDS)}", field="kind")
        if kind not in self.facts:
            raise _unavailable(kind)
        return self.facts[kind]

    def health(self) -> dict[str, Any]:
        """Return whether the host serves, what it serves, and on what."""
        return {
            "status": "draining" if self.draining else "serving",
            "device": self.provider.name,
            "device_reason": self.provider.reason,
            "models": {
                kind: self.facts[kind]["model"] if kind in self.facts else None for kind in KINDS
            },
            "notices": [facts["notice"] for facts in self.facts.values() if facts["notice"]],
        }


def _unavailable(kind: str) -> ModelUnavailable:
    return ModelUnavailable(f"this server has no usable {kind} in production")
