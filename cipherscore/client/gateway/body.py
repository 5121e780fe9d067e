"""Request bodies: bounded, strict JSON, a list of records."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from cipherscore.errors import DataError, shorten
from cipherscore.schema import Schema

MAX_BODY_BYTES = 16 << 20
MAX_RECORDS = 20_000
MAX_NUMBER_LENGTH = 40
"""Longest number text; Python needs quadratic time for a very long integer."""


class BodyError(DataError):
    """A request body that is no list of records.  ``status`` is the HTTP status."""

    def __init__(
        self, detail: str, *, status: int = 400, field: str | None = None, row: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.row = row


async def read_body(stream: AsyncIterator[bytes], declared: str | None, limit: int) -> bytes:
    """Return the whole body, stopping as soon as it is longer than ``limit`` bytes.

    Args:
        stream: The body's chunks.
        declared: The Content-Length header; it is not trusted to be there or to be true.
        limit: Longest body in bytes.

    Raises:
        BodyError: The body is too long (413).
    """
    if declared is not None and declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_long(limit)
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > limit:
            raise _too_long(limit)
    return bytes(body)


def parse_records(body: bytes, limit: int) -> list[dict[str, Any]]:
    """Return the records of a JSON body.

    Raises:
        BodyError: Not UTF-8, not JSON, no list, empty, more than ``limit`` records (413), an entry
            that is no object, NaN or Infinity, or an object that names a key twice.
    """
    try:
        content = json.loads(
            body.decode(),
            parse_constant=_refuse_constant,
            parse_int=_whole_number,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError:
        raise BodyError("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BodyError(f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise BodyError("the body is nested too deeply") from None
    if not isinstance(content, list):
        raise BodyError("the body must be a JSON list of records, also for a single one")
    if not content:
        raise BodyError("the list holds no record")
    if len(content) > limit:
        raise BodyError(f"{len(content)} records; at most {limit} are allowed", status=413)
    for row, record in enumerate(content):
        if not isinstance(record, dict):
            raise BodyError(f"record {row} is not a JSON object", row=row)
    return content


def locate(records: Sequence[Mapping[str, object]], schema: Schema) -> tuple[str, int] | None:
    """Return the field and the row of the first missing or unknown field, if there is one."""
    needed = [f.name for f in schema.inputs]
    known = {*needed, schema.target.name}
    for row, record in enumerate(records):
        for name in needed:
            if name not in record:
                return name, row
        for name in record:
            if name not in known:
                return name, row
    return None


def _too_long(limit: int) -> BodyError:
    return BodyError(f"the body is longer than {limit} bytes", status=413)


def _refuse_constant(text: str) -> None:
    raise BodyError(f"{text} is not JSON; leave out what is not known, or send null")


def _whole_number(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        raise BodyError(f"a number of {len(text)} digits is not allowed")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BodyError(f"a record names {shorten(twice)} twice", field=twice)
    return content
