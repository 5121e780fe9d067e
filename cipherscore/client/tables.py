"""Whole tables: raw Arrow columns -> tokens, by distinct level instead of by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cipherscore.client.homophones import DRAW_BITS, FieldTokens
from cipherscore.client.nonces import column_draws, random_nonces
from cipherscore.client.records import RecordCodec
from cipherscore.dataset import TokenColumn
from cipherscore.errors import DataError, RecordError, shorten
from cipherscore.schema import Field, Target

_UNMATCHED = -1
_NUMBER_PATTERN = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""The texts that `cipherscore.field.number_of` takes for numbers."""


def encode_batch(
    batch: pa.RecordBatch | pa.Table,
    codec: RecordCodec,
    nonces: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> dict[str, TokenColumn]:
    """Encrypt every field of ``batch``.

    Dictionaries are sorted by token bytes and hold only tokens that occur, so that neither their
    order nor their size tells about the schema.

    Args:
        batch: Raw columns.
        codec: Encrypts.
        nonces: uint8 [encrypted rows, 12], which decide on homophones; by default random ones.
        rows: int64 [encrypted rows], which row of the batch each is; by default each row once.

    Raises:
        DataError: A field is missing.
        RecordError: A value is not allowed; names the field and the first such row of the batch.
    """
    encoded = {}
    if codec.schema.scorecards is not None:
        from cipherscore.client.scorecards import summed  # noqa: PLC0415  (it imports this module)

        batch = summed(batch, codec.schema)
    if nonces is None and codec.prf is not None:
        nonces = random_nonces(batch.num_rows if rows is None else len(rows))
    for place, f in enumerate(codec.schema.fields):
        chosen = level_indices(field_column(batch, f), f)
        if rows is not None:
            chosen = chosen[rows]
        choices = codec.choices[f.name]
        if f.smoothed and codec.prf is not None and nonces is not None:
            chosen = _homophones(chosen, choices, column_draws(codec.prf, nonces, place))
        tokens = choices.tokens
        used = np.flatnonzero(np.bincount(chosen, minlength=len(tokens)))
        ordered = sorted(used, key=tokens.__getitem__)
        position = np.zeros(len(tokens), np.int16)
        position[ordered] = np.arange(len(ordered), dtype=np.int16)
        encoded[f.name] = TokenColumn(tuple(tokens[at] for at in ordered), position[chosen])
    return encoded


def _homophones(levels: np.ndarray, choices: FieldTokens, draws: np.ndarray) -> np.ndarray:
    """Return int64 [rows]: the position in ``choices.tokens`` that each row's draw chooses."""
    keys = levels.astype(np.uint64) << np.uint64(DRAW_BITS) | draws
    starts = np.array(choices.starts, np.uint64)
    return np.asarray(np.searchsorted(starts, keys, side="right") - 1)


def level_indices(column: pa.Array, field: Field) -> np.ndarray:
    """Return int16 [rows]: the position of each value's level in ``field.levels``.

    Raises:
        RecordError: A value is not allowed; the first such row.
    """
    found = _match(column, field)
    rows = np.flatnonzero(found == _UNMATCHED)
    if len(rows):
        row = int(rows[0])
        field.level_of(column[row].as_py(), row)
        raise RecordError(field.name, column[row].as_py(), field.allowed, row)
    return found


def labels(batch: pa.RecordBatch | pa.Table, target: Target) -> np.ndarray:
    """Return int8 [rows]: 1 where the target is its bad value, 0 where it is the good one.

    Raises:
        DataError: The target column is missing.
        RecordError: A value is neither.
    """
    column = column_of(batch, target.name)
    if target.numeric:
        found, allowed = _cut(column, target), "a number"
    else:
        goods, bads = (target.good, *target.also_good), (target.bad, *target.also_bad)
        allowed = f"{', '.join(goods)} (good) or {', '.join(bads)} (bad)"
        codes = Field(target.name, "categorical", categories=dict.fromkeys((*goods, *bads), ""))
        found = _match(column, codes)
        found[found >= len(goods)] = len(goods)
        found[found >= 0] = found[found >= 0] == len(goods)
    rows = np.flatnonzero(found == _UNMATCHED)
    if len(rows):
        raise RecordError(target.name, column[int(rows[0])].as_py(), allowed, int(rows[0]))
    return found.astype(np.int8)


def numbers(column: pa.Array, field: Field) -> np.ndarray:
    """Return float64 [rows] of a numeric field, NaN where absent or not a number (or date)."""
    column = _as_string(column)
    if field.part:
        return _date_parts(column, field)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        values = _parsed(column)
    elif _is_numeric(column.type):
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    else:
        return np.full(len(column), np.nan)
    values = np.array(values, np.float64)
    if field.absent_numbers:
        values[np.isin(values, list(field.absent_numbers))] = np.nan
    return values


def category_counts(column: pa.Array, field: Field) -> dict[str, int]:
    """Return how often each text occurs that a value of a categorical field stands for.

    Absent values and what cannot be a category are left out.
    """
    counts: dict[str, int] = {}
    column = _as_string(column)
    for entry in pc.value_counts(column).to_pylist():
        value = entry["values"]
        text = None if field.is_absent(value) else field.text_of(value)
        if text:
            counts[text] = counts.get(text, 0) + entry["counts"]
    return counts


def _cut(column: pa.Array, target: Target) -> np.ndarray:
    """Return int16 [rows]: 1 where a number is on the bad side, `_UNMATCHED` where it is none."""
    values = numbers(column, Field(target.name, "numeric", edges=(0.0, 1.0)))
    low = -np.inf if target.bad_below is None else target.bad_below
    high = np.inf if target.bad_above is None else target.bad_above
    with np.errstate(invalid="ignore"):
        found = ((values <= low) | (values >= high)).astype(np.int16)
    found[~np.isfinite(values)] = _UNMATCHED
    return found


def _date_parts(column: pa.Array, field: Field) -> np.ndarray:
    """Return float64 [rows]: the part of each date, worked out once per distinct value."""
    if pa.types.is_timestamp(column.type):  # nanoseconds have no Python value
        column = column.cast(pa.timestamp("us"), safe=False)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    parts = [field.number_of(value) for value in column.dictionary.to_pylist()]
    rows = pc.fill_null(column.indices, len(parts)).to_numpy(zero_copy_only=False)
    return np.asarray(np.array([*parts, np.nan], np.float64)[rows])


def _match(column: pa.Array, field: Field) -> np.ndarray:
    """Return int16 [rows]: positions as of `level_indices`, `_UNMATCHED` where not allowed."""
    if pa.types.is_dictionary(column.type):
        if len(column.dictionary) <= len(column) and not column.indices.null_count:
            per_value = _match(column.dictionary, field)
            return np.asarray(per_value[column.indices.to_numpy(zero_copy_only=False)], np.int16)
        column = column.cast(column.type.value_type)
    column = _as_string(column)
    fast = _match_categories if field.kind == "categorical" else _match_bins
    found = fast(column, field)
    open_rows = found == _UNMATCHED
    if (field.missing == "level" or field.other) and open_rows.any():
        absent = _absent(column, field)
        if field.missing == "level":
            found[open_rows & absent] = len(field.levels) - 1
        if field.other and pa.types.is_string(column.type):
            found[open_rows & ~absent] = len(field.categories)
    rows = np.flatnonzero(found == _UNMATCHED)
    if len(rows):
        _match_slowly(column, field, rows, found)
    return found


def _parsed(column: pa.Array) -> np.ndarray:
    """Return float64 [rows] of texts, NaN where a text is no number."""
    try:
        column = pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        column = pc.utf8_trim_whitespace(column)
        numeric = pc.match_substring_regex(column, _NUMBER_PATTERN)
        column = pc.cast(pc.if_else(numeric, column, None), pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _match_bins(column: pa.Array, field: Field) -> np.ndarray:
    values = numbers(column, field)
    found = np.searchsorted(np.asarray(field.inner_edges), values, side="right").astype(np.int16)
    low, high = field.valid_range or (-np.inf, np.inf)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(values) & (values >= low) & (values <= high)
    found[~usable] = _UNMATCHED
    return found


def _match_categories(column: pa.Array, field: Field) -> np.ndarray:
    """Match texts and whole numbers; other types are left to `_match_slowly`."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    elif not pa.types.is_string(column.type):
        return np.full(len(column), _UNMATCHED, np.int16)
    codes = list(field.categories)
    found = _index_in(column, codes)
    rows = found == _UNMATCHED
    if rows.any():
        found[rows] = _index_in(pc.utf8_trim_whitespace(column), codes)[rows]
    return found


def _absent(column: pa.Array, field: Field) -> np.ndarray:
    """Return bool [rows]: the value is null, NaN, or a text or number that means "absent"."""
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
            try:
                known[key] = order[field.level_of(value, int(row))]
            except RecordError:
                known[key] = _UNMATCHED
        found[row] = known[key]


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _as_string(column: pa.Array) -> pa.Array:
    """Return texts of any Arrow layout as ``string``, other columns as they are."""
    kind = column.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return column


def field_column(batch: pa.RecordBatch | pa.Table, field: Field) -> pa.Array:
    """Return the column that ``field`` is read from: under its raw name, else under its own.

    Raises:
        DataError: The table has no such column, or two.
    """
    raw = field.source in batch.schema.names or field.name not in batch.schema.names
    return column_of(batch, field.source if raw else field.name)


def column_of(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    """Return one column in one piece, texts as ``string``.

    Raises:
        DataError: The table has no such column, or two.
    """
    if batch.schema.names.count(name) > 1:
        raise DataError(f"the table has column {name!r} twice; rename or drop one")
    if name not in batch.schema.names:
        raise DataError(
            f"the table lacks column {name!r}; it has {shorten(', '.join(batch.schema.names))}"
        )
    column = batch.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no chunk, or more text than one array holds
        column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    return _as_string(column)
