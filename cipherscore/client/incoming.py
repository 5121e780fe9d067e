"""Answers: what the host sent, checked, as Python values.

The host is not trusted to answer well-formed: a wrong length, an unknown class or a probability
outside [0, 1] raises here, and a token that it made up does not decrypt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cipherscore.client.reasons import Reason, read_reasons
from cipherscore.client.records import RecordCodec
from cipherscore.client.wire import malformed, unpacked
from cipherscore.errors import shorten
from cipherscore.proto.v1 import cipherscore_pb2 as pb

Decision = Literal["good", "bad"]
_DECISIONS: dict[int, Decision] = {pb.CREDIT_CLASS_GOOD: "good", pb.CREDIT_CLASS_BAD: "bad"}


@dataclass(frozen=True)
class Score:
    """One applicant's answer.

    Args:
        probability: Probability of bad credit, 0 to 1.
        decision: ``"bad"`` where the probability reaches the model's cost threshold.
        model: ``name:version`` of the model that answered.
        reasons: The fields that contribute most towards bad credit, the largest first; as many as
            were asked for.
    """

    probability: float
    decision: Decision
    model: str
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """What the host says about a served model; fields as in the .proto's ``Model``."""

    kind: str
    model: str
    key_id: str
    fields: tuple[str, ...]
    schema: str
    schema_digest: str
    vocabulary_digest: str
    digest: str
    threshold: float
    noise_width: int
    metrics: Mapping[str, float]
    device: str
    device_reason: str
    max_rows: int
    notice: str
    stage: str
    precision: str
    device_details: Mapping[str, str]

    @classmethod
    def from_message(cls, message: pb.Model) -> ModelInfo:
        """Read the host's answer."""
        values = {name: getattr(message, name) for name in cls.__dataclass_fields__}
        values.update(
            fields=tuple(message.fields),
            metrics=dict(message.metrics),
            device_details=dict(message.device_details),
        )
        return cls(**values)


def read_scores(
    codec: RecordCodec, request: pb.ScoreRequest, answer: pb.ScoreResponse
) -> list[Score]:
    """Return the scores of one request's rows, in order.

    Args:
        codec: What the request was encrypted with; names what the reasons are about.
        request: As it was sent.
        answer: The host's.

    Raises:
        ServiceError: The answer does not fit the request.
    """
    probability, decision = list(answer.probability), list(answer.decision)
    if not len(probability) == len(decision) == request.table.rows:
        raise malformed(f"{len(probability)} scores for {request.table.rows} rows")
    if not all(0.0 <= value <= 1.0 for value in probability):  # also false for NaN
        raise malformed("a probability is outside [0, 1]")
    model = answer.model
    scores = [
        Score(value, _decision(credit_class), model)
        for value, credit_class in zip(probability, decision, strict=True)
    ]
    if not request.reasons:
        return scores
    named = read_reasons(codec, request, answer)
    return [replace(score, reasons=reasons) for score, reasons in zip(scores, named, strict=True)]


class RowCollector:
    """Gathers the chunks of one generation.

    Args:
        codec: Decrypts.
        count: Rows that were asked for; a host that sends more is stopped at the first excess.
    """

    def __init__(self, codec: RecordCodec, count: int) -> None:
        self._codec = codec
        self._count = count
        self._rows: list[dict[str, str | None]] = []

    def add(self, answer: pb.GenerateResponse) -> None:
        """Decrypt one chunk.

        Raises:
            ServiceError: The chunk is malformed, or there are too many rows.
            DecryptionError: A token is not authentic.
        """
        if len(self._rows) + answer.table.rows > self._count:
            raise malformed(f"more than {self._count} rows")
        self._rows.extend(_read_rows(self._codec, answer))

    def finish(self) -> list[dict[str, str | None]]:
        """Return all rows.

        Raises:
            ServiceError: There are fewer than asked for.
        """
        if len(self._rows) != self._count:
            raise malformed(f"{len(self._rows)} rows instead of {self._count}")
        return self._rows


def _read_rows(codec: RecordCodec, answer: pb.GenerateResponse) -> Iterator[dict[str, str | None]]:
    """Decrypt one chunk of synthetic rows: field -> level, None where absent, and the class.

    The class stands under the target's name as the schema's good or bad value.

    Raises:
        ServiceError: The chunk is malformed.
        DecryptionError: A token is not authentic, so the host made it up.
    """
    schema, rows = codec.schema, answer.table.rows
    columns = {column.field: _levels(codec, column, rows) for column in answer.table.columns}
    if columns.keys() != schema.by_name.keys() or len(answer.credit_class) != rows:
        raise malformed("fields or classes do not fit the schema")
    values = {"good": schema.target.good, "bad": schema.target.bad}
    classes = [values[_decision(credit_class)] for credit_class in answer.credit_class]
    names = [*schema.by_name, schema.target.name]
    ordered = [columns[name] for name in schema.by_name]
    for row in zip(*ordered, classes, strict=True):
        yield dict(zip(names, row, strict=True))


def _levels(codec: RecordCodec, column: pb.TokenColumn, rows: int) -> list[str | None]:
    dictionary, name = list(column.dictionary), column.field
    indices = unpacked(column.indices, len(dictionary), rows)
    if name not in codec.schema.by_name:
        raise malformed(
            f"schema {codec.schema.name!r} has no field {shorten(name)}; give the fitted schema of "
            "the table that the model was trained on (`cipherscore run` keeps the generator's in "
            "owner/fields.toml)"
        )
    levels = [codec.decode({name: token})[name] for token in dictionary]
    return [levels[index] for index in indices]


def _decision(credit_class: int) -> Decision:
    if credit_class not in _DECISIONS:
        raise malformed("an unknown credit class")
    return _DECISIONS[credit_class]
