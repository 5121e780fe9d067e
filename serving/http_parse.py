"""JSON bodies, parsed strictly: what is not asked for, of another type or missing is refused.

By hand, because a validator that collects all faults of a body takes a hundred times the body's
memory when all of it is wrong; here the first fault ends it.  `serving.http_bodies` describes the
same forms for the OpenAPI page, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from pydantic_core import from_json

from cipherscore.errors import BatchTooLarge, InvalidNoise, InvalidRequest, UnknownClass
from serving.generation import BAD, GOOD, GenerateOrder
from serving.tables import printable

_Forms: TypeAlias = "Mapping[str, tuple[type, ...]]"

_SCORE: _Forms = {"key_id": (str,), "records": (list,), "model": (str,), "reasons": (int,)}
_GENERATE: _Forms = {
    "key_id": (str,),
    "count": (int,),
    "credit_class": (str, type(None)),
    "seed": (int, type(None)),
    "noise": (list, type(None)),
    "model": (str,),
}
_NAMES = {str: "a string", list: "a list", int: "an integer", type(None): "null"}
_CLASSES = {"good": GOOD, "bad": BAD, None: None}
_NUMBERS = {int, float}
_MAX_COUNT = 1 << 63
_SMALL = 1 << 16
_FEW = 1_000


@dataclass(slots=True)
class ScoreOrder:
    """A scoring request; its records are checked by `serving.http_rows.TextTable`."""

    key_id: str
    records: list[Any]
    model: str
    reasons: int = 0


def parse_score(content: bytes, max_rows: int) -> ScoreOrder:
    """Parse the body of a scoring request.

    Raises:
        InvalidRequest: It is none.
    """
    body = _members(content, _SCORE, ("key_id", "records"), max_rows)
    reasons = body.get("reasons", 0)
    if reasons < 0:
        raise InvalidRequest("'reasons': must be 0 or more", field="reasons")
    return ScoreOrder(body["key_id"], body["records"], body.get("model", ""), reasons)


def parse_generate(content: bytes, max_rows: int) -> tuple[GenerateOrder, str]:
    """Parse the body of a generate request; return the order and the wanted model.

    Raises:
        InvalidRequest, InvalidNoise, UnknownClass, BatchTooLarge: It is none.
    """
    body = _members(content, _GENERATE, ("key_id", "count"), max_rows)
    if body["count"] >= _MAX_COUNT:
        raise BatchTooLarge("count is larger than any answer", field="count")
    credit_class = body.get("credit_class")
    if credit_class not in _CLASSES:
        raise UnknownClass("credit_class is 'good' or 'bad'", field="credit_class")
    noise = body.get("noise")
    order = GenerateOrder(
        key_id=body["key_id"],
        count=body["count"],
        credit_class=_CLASSES[credit_class],
        seed=body.get("seed"),
        noise=None if noise is None else _noise(noise),
    )
    return order, body.get("model", "")


def check_records(records: Sequence[Any]) -> None:
    """Refuse records that are not objects of texts.

    Raises:
        InvalidRequest: Names the first fault's row and field.
    """
    for row, record in enumerate(records):
        if type(record) is not dict:
            raise InvalidRequest("'records': each must be an object", field="records", row=row)
        for field, token in record.items():
            if type(token) is not str:
                name = printable(field)
                raise InvalidRequest(f"{name!r}: must be a string", field=name, row=row)


def _members(
    content: bytes, forms: _Forms, required: tuple[str, ...], max_rows: int
) -> dict[str, Any]:
    # Empty objects and lists take twenty times their text in memory; rows need one each.
    nested = content.count(b"{") + content.count(b"[") if len(content) > _SMALL else 0
    if nested > 2 * max_rows + _FEW:
        raise InvalidRequest(
            f"the body has {nested} objects and lists, more than {max_rows} rows need"
        )
    try:
        body = from_json(content)
    except ValueError:
        raise InvalidRequest("the body is not valid JSON") from None
    if type(body) is not dict:
        raise InvalidRequest("the body: must be an object")
    for name, value in body.items():
        kinds = forms.get(name)
        if kinds is None:
            shown = printable(name)
            raise InvalidRequest(f"{shown!r}: not known here", field=shown)
        if type(value) not in kinds:
            wanted = " or ".join(_NAMES[kind] for kind in kinds)
            raise InvalidRequest(f"{name!r}: must be {wanted}", field=name)
    for name in required:
        if name not in body:
            raise InvalidRequest(f"{name!r}: required", field=name)
    return body


def _noise(rows: list[Any]) -> np.ndarray:
    """Return float32 [rows, width]; a too large number becomes infinite.

    Raises:
        InvalidRequest: Something else than lists of numbers.
        InvalidNoise: No rows, or not all equally long.
    """
    for position, row in enumerate(rows):
        if type(row) is not list or not _NUMBERS.issuperset(map(type, row)):
            raise InvalidRequest("'noise': must be lists of numbers", field="noise", row=position)
    if len({len(row) for row in rows}) != 1:
        raise InvalidNoise("noise needs rows, all equally long", field="noise")
    try:
        with np.errstate(over="ignore"):
            noise = np.array(rows, dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise InvalidNoise("noise must be finite float32 numbers", field="noise") from None
    return noise.reshape(len(rows), -1)
