"""Whole tables: raw Arrow columns -> tokens, by distinct level instead of by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cipherscore.client.records import RecordCodec
from cipherscore.dataset import TokenColumn
from cipherscore.errors import DataError, RecordError, shorten
from cipherscore.schema import Field, Target

_UNMATCHED = -1


def encode_batch(batch: pa.RecordBatch | pa.Table, codec: RecordCodec) -> dict[str, TokenColumn]:
    """Encrypt every field of ``batch``.

    Dictionaries are sorted by token bytes and hold only tokens that occur, so that neither their
    order nor their size tells about the schema.

    Raises:
        DataError: A field is missing.
        RecordError: A value is not allowed; names the field and the first such row of the batch.
    """
    encoded = {}
    for f in codec.schema.fields:
        column = column_of(batch, f.name)
        levels = level_indices(column, f)
        tokens = codec.tokens[f.name]
        used = np.flatnonzero(np.bincount(levels, minlength=len(f.levels)))
        ordered = sorted(used, key=lambda level, t=tokens, f=f: t[f.levels[level]])  # type: ignore[misc]
        position = np.zeros(len(f.levels), np.int16)
        position[ordered] = np.arange(len(ordered), dtype=np.int16)
        dictionary = tuple(tokens[f.levels[level]] for level in ordered)
        encoded[f.name] = TokenColumn(dictionary, position[levels])
    return encoded


def level_indices(column: pa.Array, field: Field) -> np.ndarray:
    """Return int16 [rows]: the position of each value's level in ``field.levels``.

    Raises:
        RecordError: A value is not allowed.
    """
    if pa.types.is_dictionary(column.type):
        per_value = level_indices(column.dictionary, field) if len(column.dictionary) else None
        positions = column.indices
        if per_value is not None and not positions.null_count:
            return np.asarray(per_value[positions.to_numpy(zero_copy_only=False)], np.int16)
        column = column.cast(column.type.value_type)
    fast = _match_categories if field.kind == "categorical" else _match_bins
    found = fast(column, field)
    if field.missing == "level" and (found == _UNMATCHED).any():
        found[(found == _UNMATCHED) & _absent(column, field)] = len(field.levels) - 1
    rows = np.flatnonzero(found == _UNMATCHED)
    if len(rows):
        _match_slowly(column, field, rows, found)
    return found


def labels(batch: pa.RecordBatch | pa.Table, target: Target) -> np.ndarray:
    """Return int8 [rows]: 1 where the target is its bad value, 0 where it is the good one.

    Raises:
        DataError: The target column is missing.
        RecordError: A value is neither.
    """
    column = column_of(batch, target.name)
    if not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    found = _index_in(pc.utf8_trim_whitespace(column), [target.good, target.bad])
    rows = np.flatnonzero(found == _UNMATCHED)
    if len(rows):
        allowed = f"{target.good} (good) or {target.bad} (bad)"
        raise RecordError(target.name, column[int(rows[0])].as_py(), allowed, int(rows[0]))
    return found.astype(np.int8)


def numbers(column: pa.Array, field: Field) -> np.ndarray:
    """Return float64 [rows] of a numeric field, NaN where absent or not a number."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            column = pc.cast(column, pa.float64())
        except pa.ArrowInvalid:
            column = pc.utf8_trim_whitespace(column)
            absent = pc.is_in(column, value_set=pa.array(sorted(field.absent_texts), column.type))
            numeric = pc.match_substring_regex(column, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
            usable = pc.and_(numeric, pc.invert(absent))
            column = pc.cast(pc.if_else(usable, column, None), pa.float64())
    elif not pa.types.is_floating(column.type) and not pa.types.is_integer(column.type):
        return np.full(len(column), np.nan)
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _match_bins(column: pa.Array, field: Field) -> np.ndarray:
    values = numbers(column, field)
    found = np.searchsorted(np.asarray(field.inner_edges), values, side="right").astype(np.int16)
    low, high = field.valid_range or (-np.inf, np.inf)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(values) & (values >= low) & (values <= high)
    found[~usable] = _UNMATCHED
    return found


def _match_categories(column: pa.Array, field: Field) -> np.ndarray:
    if not pa.types.is_string(column.type):
        if pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
            return np.full(len(column), _UNMATCHED, np.int16)
        column = column.cast(pa.string())
    found = _index_in(column, list(field.categories))
    if (found == _UNMATCHED).any():
        found = _index_in(pc.utf8_trim_whitespace(column), list(field.categories))
    return found


def _absent(column: pa.Array, field: Field) -> np.ndarray:
    """Return bool [rows]: the value is null, NaN, or a text that means "absent"."""
    if pa.types.is_string(column.type):
        texts = pa.array(sorted(field.absent_texts), column.type)
        absent = pc.is_in(pc.utf8_trim_whitespace(column), value_set=texts)
        absent = pc.or_(absent, column.is_null())
    else:
        absent = column.is_null(nan_is_null=True)
    return np.asarray(absent.to_numpy(zero_copy_only=False), bool)


def _index_in(column: pa.Array, values: list[str]) -> np.ndarray:
    """Return int16 [rows]: position of each text in ``values``, `_UNMATCHED` where absent."""
    positions = pc.index_in(column, value_set=pa.array(values, column.type))
    filled = pc.fill_null(positions, _UNMATCHED).to_numpy(zero_copy_only=False)
    return np.asarray(filled, np.int16)


def _match_slowly(column: pa.Array, field: Field, rows: np.ndarray, found: np.ndarray) -> None:
    """Match the remaining ``rows`` by `Field.level_of`, once per distinct value."""
    order = {level: position for position, level in enumerate(field.levels)}
    known: dict[Any, int] = {}
    for row, value in zip(rows, column.take(pa.array(rows)).to_pylist(), strict=True):
        key = (type(value), str(value))
        if key not in known:
            known[key] = order[field.level_of(value, int(row))]
        found[row] = known[key]


def column_of(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    """Return one column in one piece, texts as ``string``.

    Raises:
        DataError: The table has no such column.
    """
    if name not in batch.schema.names:
        raise DataError(
            f"the table lacks column {name!r}; it has {shorten(', '.join(batch.schema.names))}"
        )
    column = batch.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column
