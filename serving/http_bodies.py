"""Forms of the JSON bodies under ``/v1``: the source of the OpenAPI page.

Requests are parsed by `serving.http_parse`, to the same forms.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_TOKEN = "AQqzjXzBzM4ZbVxV8h0kQk1yVnZ6c2R0b2tlbi1leGFtcGxlMDE"  # noqa: S105 - an example, no secret
# Told on the page; what is outside has an error of its own, which is not the form's.
_KEY_ID: dict[str, Any] = {"pattern": "^[0-9a-f]{8}$"}
_MODEL = "Empty: the version in production. A name or name:version asks for that one."


class ScoreBody(BaseModel):
    """Records to score: field name to token, as URL-safe base64 without padding."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key_id: str = Field(
        description="Eight hexadecimal digits: the key the tokens are under.",
        json_schema_extra=_KEY_ID,
    )
    records: list[dict[str, str]] = Field(
        description="One object per row.", json_schema_extra={"minItems": 1}
    )
    model: str = Field("", description=_MODEL)
    reasons: int = Field(
        0,
        description="How many fields to name for each record that contribute most towards bad "
        "credit; 0 names none. At most the number of fields.",
        json_schema_extra={"minimum": 0},
    )


class GenerateBody(BaseModel):
    """How many synthetic rows of which class."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key_id: str = Field(
        description="Eight hexadecimal digits: the key the rows are wanted under.",
        json_schema_extra=_KEY_ID,
    )
    count: int = Field(description="Rows wanted.", json_schema_extra={"minimum": 1})
    credit_class: str | None = Field(
        None,
        description="'good' or 'bad'; absent: drawn at the training prevalence.",
        json_schema_extra={"enum": ["good", "bad", None]},
    )
    seed: int | None = Field(
        None,
        description="0 to 2^64 - 1. Same seed, model and count: same rows.",
        json_schema_extra={"minimum": 0, "maximum": (1 << 64) - 1},
    )
    noise: list[list[float]] | None = Field(
        None,
        description="Generator noise, one list per row, instead of the seed's.",
        json_schema_extra={"minItems": 1},
    )
    model: str = Field("", description=_MODEL)


class Reason(BaseModel):
    """What one field contributes to a record's probability."""

    field: str
    contribution: float = Field(
        description="Log-odds towards bad credit, compared with the mean training row; below 0: "
        "towards good."
    )


class Score(BaseModel):
    """Answer for one record."""

    probability: float = Field(description="Probability of bad credit.")
    decision: Literal["good", "bad"]
    reasons: list[Reason] | None = Field(
        None, description="The largest contribution first; absent unless asked for."
    )


class ScoreResult(BaseModel):
    """Answers in the order of the records."""

    results: list[Score]
    model: str = Field(description="name:version of the model that answered.")
    threshold: float = Field(description="Bad from this probability on.")
    base: float | None = Field(
        None,
        description="Log-odds of bad credit of the mean training row; absent without reasons.",
    )


class GenerateResult(BaseModel):
    """Synthetic rows."""

    records: list[dict[str, str]]
    credit_classes: list[Literal["good", "bad"]]
    model: str
    seed: int


class GeneratedLine(BaseModel):
    """One row of a generated stream."""

    credit_class: Literal["good", "bad"]
    record: dict[str, str]


class ModelInfo(BaseModel):
    """A served model."""

    kind: Literal["classifier", "generator"]
    model: str
    key_id: str
    fields: list[str]
    # Named so on the wire; pydantic's own attribute of this name is long deprecated.
    schema_name: str = Field(alias="schema")
    schema_digest: str
    vocabulary_digest: str
    digest: str
    threshold: float
    noise_width: int
    metrics: dict[str, float]
    device: str
    device_reason: str
    device_details: dict[str, str]
    max_rows: int
    notice: str
    stage: Literal["production", "canary", "shadow", "pinned"]
    precision: str


class ModelList(BaseModel):
    """All served models."""

    models: list[ModelInfo]


class LiveVersion(BaseModel):
    """A version that answers requests."""

    kind: Literal["classifier", "generator"]
    model: str
    stage: Literal["production", "canary", "shadow", "pinned"]
    percent: float = Field(description="Share of the requests that pin no version, 0 to 100.")


class Health(BaseModel):
    """State of this server."""

    status: Literal["serving", "degraded", "draining"] = Field(
        description="degraded: something that should be live is not; the notices say what."
    )
    device: str
    device_reason: str
    device_details: dict[str, str]
    models: dict[str, str | None]
    versions: list[LiveVersion]
    watching: bool = Field(description="Whether promoted versions are taken over.")
    notices: list[str]


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    row: int | None = None


EXAMPLES: dict[str, dict[str, Any]] = {
    "score": {"key_id": "0aab8d7c", "records": [{"existingchecking": _TOKEN, "duration": _TOKEN}]},
    "generate": {"key_id": "0aab8d7c", "count": 10, "credit_class": "bad", "seed": 7},
}
