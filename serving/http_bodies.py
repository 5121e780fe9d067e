"""Forms of the JSON bodies under ``/v1``; also the source of the OpenAPI page."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_TOKEN = "AQqzjXzBzM4ZbVxV8h0kQk1yVnZ6c2R0b2tlbi1leGFtcGxlMDE"  # noqa: S105 - an example, no secret


class ScoreBody(BaseModel):
    """Records to score: field name to token, as URL-safe base64 without padding."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key_id: str = Field(description="Eight hexadecimal digits: the key the tokens are under.")
    records: list[dict[str, str]]


class GenerateBody(BaseModel):
    """How many synthetic rows of which class."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key_id: str = Field(description="Eight hexadecimal digits: the key the rows are wanted under.")
    count: int
    credit_class: str | None = Field(
        None, description="'good' or 'bad'; absent: drawn at the training prevalence."
    )
    seed: int | None = Field(
        None, description="0 to 2^64 - 1. Same seed, model and count: same rows."
    )
    noise: list[list[float]] | None = Field(
        None, description="Generator noise, one list per row, instead of the seed's."
    )


class Score(BaseModel):
    """Answer for one record."""

    probability: float = Field(description="Probability of bad credit.")
    decision: Literal["good", "bad"]


class ScoreResult(BaseModel):
    """Answers in the order of the records."""

    results: list[Score]
    model: str = Field(description="name:version of the model that answered.")
    threshold: float = Field(description="Bad from this probability on.")


class GenerateResult(BaseModel):
    """Synthetic rows."""

    records: list[dict[str, str]]
    credit_classes: list[Literal["good", "bad"]]
    model: str
    seed: int


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
    max_rows: int
    notice: str


class ModelList(BaseModel):
    """All served models."""

    models: list[ModelInfo]


class Health(BaseModel):
    """State of this server."""

    status: Literal["serving", "draining"]
    device: str
    device_reason: str
    models: dict[str, str | None]
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


def body_schema(adapter: TypeAdapter[Any], example: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI part that describes a body which the route parses itself."""
    content = {"schema": adapter.json_schema(), "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}
