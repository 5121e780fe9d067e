"""Scorecards on whole tables: fit points on training rows, and sum them by column."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cipherscore.client.binning import fit_edges
from cipherscore.client.dealing import dealt
from cipherscore.client.points import Levels, best_weights
from cipherscore.client.sources import RawTable
from cipherscore.client.tables import column_of, field_column, level_indices
from cipherscore.dataset import TRAIN
from cipherscore.errors import DataError, RecordError, SchemaError
from cipherscore.schema import Field, Schema
from cipherscore.scorecards import MAX_POINTS, POINTS_PER_LOG_ODDS, number_in, shape_of

MAX_ALL_LEVELS = 8192
"""Most levels of all attributes together: fitting needs their number squared, times 8 bytes."""
Sums = dict[str, NDArray[np.int64]]


def needs_reading(schema: Schema) -> bool:
    """Return whether `fit_scorecards` reads the table."""
    return schema.scorecards is not None and not (
        schema.scorecards.fitted and all(f.fitted for f in schema.fields)
    )


def fit_scorecards(
    table: RawTable,
    schema: Schema,
    split: np.ndarray,
    label: np.ndarray,
    most: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Schema:
    """Return ``schema`` with points and bins of its scorecards fitted on the training rows.

    Args:
        table: Read once, all rows, if something is left to fit.
        schema: The levels of its attributes are fitted.
        split: int8 [rows], as of `cipherscore.client.splits`.
        label: int8 [rows], 1 = bad credit.
        most: Training rows that are used at most, evenly spaced; it bounds memory.
        progress: Told the rows done so far.

    Raises:
        DataError, RecordError: The table does not fit the schema.
        SchemaError: The attributes have too many levels.
    """
    if not needs_reading(schema):
        return schema
    step = max(1, -(-int(np.count_nonzero(split == TRAIN)) // most))
    parts, classes = [], [np.empty(0, np.int8)]
    start = passed = 0
    for batch in table.batches():
        train = np.flatnonzero(split[start : start + len(batch)] == TRAIN)
        chosen = train[-passed % step :: step]
        try:
            parts.append(attribute_levels(batch, schema)[chosen])
        except RecordError as error:
            raise error.shifted(start) from None
        classes.append(label[start + chosen])
        start += len(batch)
        passed += len(train)
        progress(start)
    if not passed:
        raise DataError(f"{table.name} has no training row to fit scorecards on")
    return fitted_scorecards(schema, np.concatenate(parts), np.concatenate(classes))


def fitted_scorecards(schema: Schema, levels: np.ndarray, label: np.ndarray) -> Schema:
    """Return ``schema`` with the points and bins of its scorecards that are not fitted yet.

    Args:
        schema: The levels of its attributes are fitted.  Without scorecards it is returned as is.
        levels: int16 [rows, attributes], of training rows.
        label: int8 [rows], 1 = bad credit.

    Raises:
        DataError: A scorecard has the same sum in all rows.
        SchemaError: The attributes have too many levels.
    """
    cards = schema.scorecards
    if cards is None:
        return schema
    if not cards.fitted:
        schema = _with_points(schema, levels, label)
    edges = {}
    sums = _sums(schema, levels)
    _, views = shape_of(schema.fields)
    for place, f in enumerate(schema.fields):
        if f.fitted:
            continue
        values = sums[f.name].astype(np.float64)
        if values.min() == values.max():
            raise DataError(
                f"the attributes of {f.name} tell nothing about {schema.target.name!r} in the "
                "training rows; take fewer scorecards (count), or more rows"
            )
        edges[f.name] = staggered(fit_edges(f, values, label), f, values, place % views / views)
    return schema.with_edges(edges)


def staggered(
    edges: tuple[float, ...], field: Field, values: NDArray[np.float64], shift: float
) -> tuple[float, ...]:
    """Return the edges of a further view of a scorecard.

    Args:
        edges: Of its first view.
        field: The view's.
        values: float64 [rows], the sums of training rows.
        shift: Of the edges, downwards, as a share of a bin; 0 for the first view.
    """
    if not shift or field.binning is None:
        return edges
    shares = (np.arange(1, field.binning.bins + 1) - shift) / field.binning.bins
    inner = np.unique(np.quantile(values, shares))
    inside = inner[(inner > edges[0]) & (inner < edges[-1])]
    return (edges[0], *map(float, inside), edges[-1])


def attribute_levels(batch: pa.RecordBatch | pa.Table, schema: Schema) -> NDArray[np.int16]:
    """Return int16 [rows, attributes]: the position of each cell's level in its attribute.

    Raises:
        DataError: A column is missing.
        RecordError: A value is not allowed; names the field and the first such row of the batch.
    """
    columns = [level_indices(field_column(batch, f), f) for f in schema.inputs]
    return np.stack(columns, axis=1).astype(np.int16, copy=False)


def summed(batch: pa.RecordBatch | pa.Table, schema: Schema) -> pa.RecordBatch | pa.Table:
    """Return raw columns with the sums of points in the place of the attributes.

    Target and group stay where they are present.  Without scorecards ``batch`` is returned as is.

    Raises:
        DataError, RecordError: As of `attribute_levels`.
    """
    if schema.scorecards is None:
        return batch
    columns: dict[str, pa.Array] = {
        name: pa.array(values)
        for name, values in _sums(schema, attribute_levels(batch, schema)).items()
    }
    for name in (schema.target.name, schema.group):
        if name and name in batch.schema.names:
            columns[name] = column_of(batch, name)
    return pa.table(columns)


def _sums(schema: Schema, levels: NDArray[np.int16]) -> Sums:
    """Return int64 [rows] of each scorecard's field, in the schema's order."""
    cards = schema.scorecards
    assert cards is not None  # callers look
    totals = {number: np.zeros(len(levels), np.int64) for number in cards.members.values()}
    for attribute, column in zip(cards.attributes, levels.T, strict=True):
        points = cards.points[attribute.name]
        of_level = np.array([points[level] for level in attribute.levels], np.int64)
        totals[cards.members[attribute.name]] += of_level[column]
    return {f.name: totals[number_in(f.name)] for f in schema.fields}


def _with_points(schema: Schema, levels: np.ndarray, label: np.ndarray) -> Schema:
    cards = schema.scorecards
    assert cards is not None  # the caller looks
    sizes = tuple(len(f.levels) for f in cards.attributes)
    if sum(sizes) > MAX_ALL_LEVELS:
        raise SchemaError(
            f"scorecards: the attributes have {sum(sizes)} levels; at most {MAX_ALL_LEVELS} can be "
            "fitted. Give attributes fewer bins, or group their categories"
        )
    indexed = Levels.of(levels, sizes)
    found = fit_points(indexed, label)
    members = dealt(indexed, found, shape_of(schema.fields)[0])
    names = [f.name for f in cards.attributes]
    by_level = {
        f.name: {level: int(value) for level, value in zip(f.levels, points, strict=True)}
        for f, points in zip(cards.attributes, found, strict=True)
    }
    made = cards.with_points(dict(zip(names, members, strict=True)), by_level)
    return schema.with_scorecards(made)


def fit_points(levels: Levels, label: np.ndarray) -> list[NDArray[np.int64]]:
    """Return the points of each attribute's levels, int64 [levels].

    The mean over the rows is 0 in each attribute, up to rounding.  A level that no row has gets 0
    points.

    Args:
        levels: Of the rows to learn from.
        label: int8 [rows], 1 = bad credit.
    """
    weights = best_weights(levels, label)
    counts = levels.totals(np.ones(len(label)))
    cuts = levels.starts[1:-1]
    parts = []
    for part, own in zip(np.split(weights, cuts), np.split(counts, cuts), strict=True):
        centred = np.where(own > 0, part - part @ own / len(label), 0.0)
        whole = np.rint(POINTS_PER_LOG_ODDS * centred).clip(-MAX_POINTS, MAX_POINTS)
        parts.append(whole.astype(np.int64))
    return parts
