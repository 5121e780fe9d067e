"""Reason codes: the host says which fields contributed most, this side says what they held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cipherscore.client.records import RecordCodec
from cipherscore.client.wire import malformed, unpacked
from cipherscore.errors import ConfigurationError
from cipherscore.proto.v1 import cipherscore_pb2 as pb


@dataclass(frozen=True)
class Reason:
    """What one field contributes to an applicant's probability.

    Args:
        field: Name of the field.
        contribution: Log-odds towards bad credit, compared with the mean training row; below 0 it
            speaks for the applicant.
        level: What the applicant has there: a category's code or a bin; None where absent.
        meaning: The level in the schema's words and units.
        description: What the schema says about the field; may be empty.
    """

    field: str
    contribution: float
    level: str | None
    meaning: str
    description: str


@dataclass(frozen=True)
class _Entry:
    """A level as a reason shows it."""

    level: str | None
    meaning: str


def check_count(codec: RecordCodec, reasons: int) -> int:
    """Return how many reasons a row to ask for.

    Raises:
        ConfigurationError: There cannot be as many.
    """
    fields = len(codec.tokens)
    if not 0 <= reasons <= fields:
        raise ConfigurationError(
            f"reasons must be 0 to {fields}, the number of fields, not {reasons!r}"
        )
    return reasons


def read_reasons(
    codec: RecordCodec, request: pb.ScoreRequest, answer: pb.ScoreResponse
) -> Iterator[tuple[Reason, ...]]:
    """Yield the reasons of each row of ``request``, the largest contribution first.

    Raises:
        ServiceError: The host sent none, or they fit neither the request nor the schema.
    """
    if not answer.HasField("reasons"):
        raise malformed("it holds no reasons; the host may be older than they are")
    sent, count = answer.reasons, request.reasons
    rows = request.table.rows
    fields = list(sent.fields)
    if sorted(fields) != sorted(codec.tokens):
        raise malformed("its reasons are about other fields than the schema's")
    contributions = list(sent.contribution)
    if sent.per_row != count or len(contributions) != rows * count:
        raise malformed(f"{len(contributions)} reasons for {rows} rows of {count} each")
    if not all(map(math.isfinite, contributions)):
        raise malformed("a contribution is no number")
    indices = unpacked(sent.indices, len(fields), rows * count)
    held = {column.field: _held(codec, column, rows) for column in request.table.columns}
    for row in range(rows):
        own = slice(row * count, (row + 1) * count)
        named, values = [fields[index] for index in indices[own]], contributions[own]
        if len(set(named)) != count or sorted(values, reverse=True) != values:
            raise malformed("the reasons of a row are not in order, or name a field twice")
        yield tuple(
            _reason(codec, name, value, held[name], row)
            for name, value in zip(named, values, strict=True)
        )


def _held(codec: RecordCodec, column: pb.TokenColumn, rows: int) -> tuple[list[_Entry], list[int]]:
    """Return the levels of a column of the request, and which of them each row has."""
    name = column.field
    levels = [codec.decode({name: token})[name] for token in column.dictionary]
    entries = [_Entry(level, codec.explain({name: level})[name].meaning) for level in levels]
    return entries, list(unpacked(column.indices, len(entries), rows))


def _reason(
    codec: RecordCodec, name: str, value: float, held: tuple[list[_Entry], list[int]], row: int
) -> Reason:
    entries, indices = held
    entry = entries[indices[row]]
    description = codec.schema.by_name[name].description
    return Reason(name, value, entry.level, entry.meaning, description)
