"""Fit a schema on training rows: bins, categories, scorecards, homophones of smoothed fields."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from cipherscore.client.binning import fit_edges
from cipherscore.client.grouping import keep_categories
from cipherscore.client.homophones import HomophonePrf
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.client.scorecards import fit_scorecards, needs_reading, summed
from cipherscore.client.sources import RawTable
from cipherscore.client.tables import category_counts, field_column, level_indices, numbers
from cipherscore.dataset import TRAIN
from cipherscore.errors import RecordError
from cipherscore.schema import Field, Schema
from cipherscore.smoothing import Homophones

FIT_ROWS = 200_000
"""Levels are fitted on at most this many training rows, evenly spaced; it bounds memory."""
WEIGHT_SCALE = 1_000_000
"""Weights of method ``poisson`` are parts per million of the training rows."""
_ROUNDING = 1e-9


def fit(
    table: RawTable,
    schema: Schema,
    split: np.ndarray,
    label: np.ndarray,
    keyset: Keyset,
    progress: Callable[[int], None],
) -> Schema:
    """Return ``schema`` with all that it leaves open fitted on the training rows.

    Args:
        table: Read `readings` times.
        schema: May be fitted in parts or as a whole.
        split: int8 [rows], as of `cipherscore.client.splits`.
        label: int8 [rows], 1 = bad credit.
        keyset: Its primary key is the randomness of method ``poisson``.
        progress: Told the rows done so far, over all readings.

    Raises:
        DataError, RecordError: The table does not fit the schema.
        SchemaError: There are too many homophones.
    """
    prf = weights_prf(keyset, schema)
    total = len(split)
    passed = total * any(not f.fitted for f in schema.inputs)
    fitted = fit_levels(table, schema, split, label, progress)
    fitted = fit_scorecards(
        table, fitted, split, label, FIT_ROWS, lambda rows: progress(passed + rows)
    )
    passed += total * needs_reading(schema)
    return fit_homophones(table, fitted, split, prf, lambda rows: progress(passed + rows))


def weights_prf(keyset: Keyset, schema: Schema) -> HomophonePrf:
    """Return the randomness of `fit_homophones`, from the primary key."""
    return HomophonePrf(keyset.smoothing_key(keyset.primary, schema.identity, "weights"))


def readings(schema: Schema) -> int:
    """Return how often `fit` reads the table."""
    levels = any(not f.fitted for f in schema.inputs)
    return bool(unsmoothed(schema)) + levels + needs_reading(schema)


def fit_levels(
    table: RawTable,
    schema: Schema,
    split: np.ndarray,
    label: np.ndarray,
    progress: Callable[[int], None],
) -> Schema:
    """Return ``schema`` with levels fitted on the training rows, every n-th of a large table."""
    unfitted = [f for f in schema.inputs if not f.fitted]
    if not unfitted:
        return schema
    step = -(-int(np.count_nonzero(split == TRAIN)) // FIT_ROWS)
    numeric = [f for f in unfitted if f.kind == "numeric"]
    grouped = [f for f in unfitted if f.kind == "categorical"]
    values: dict[str, list[np.ndarray]] = {f.name: [] for f in numeric}
    counts: dict[str, Counter[str]] = {f.name: Counter() for f in grouped}
    classes = [np.empty(0, np.int8)]
    start = passed = 0
    for batch in table.batches():
        train = np.flatnonzero(split[start : start + len(batch)] == TRAIN)
        chosen = train[-passed % step :: step]
        rows = pa.array(chosen)
        for f in numeric:
            values[f.name].append(numbers(field_column(batch, f).take(rows), f))
        for f in grouped:
            counts[f.name].update(category_counts(field_column(batch, f).take(rows), f))
        classes.append(label[start + chosen])
        start += len(batch)
        passed += len(train)
        progress(start)
    known = np.concatenate(classes)
    edges = {f.name: fit_edges(f, np.concatenate(values[f.name]), known) for f in numeric}
    categories = {f.name: keep_categories(f, counts[f.name], len(known)) for f in grouped}
    return schema.with_edges(edges).with_categories(categories)


def unsmoothed(schema: Schema) -> list[Field]:
    """Return the fields that are to be smoothed and have no homophones yet."""
    return [f for f in schema.fields if f.smoothing is not None and not f.homophones]


def fit_homophones(
    table: RawTable,
    schema: Schema,
    split: np.ndarray,
    prf: HomophonePrf,
    progress: Callable[[int], None] = lambda _: None,
) -> Schema:
    """Return ``schema`` with homophones for the levels' shares in the training rows.

    Args:
        table: Read once, all rows, if a field has no homophones yet.
        schema: Its levels are fitted.
        split: int8 [rows], as of `cipherscore.client.splits`.
        prf: Randomness of method ``poisson``: same key, same rows, same weights.
        progress: Told the rows done so far.

    Raises:
        RecordError: A value is not allowed.
        SchemaError: There are too many homophones.
    """
    waiting = unsmoothed(schema)
    if not waiting:
        return schema
    counts = {f.name: np.zeros(len(f.levels), np.int64) for f in waiting}
    start = 0
    for batch in table.batches():
        train = split[start : start + len(batch)] == TRAIN
        try:
            fields = summed(batch, schema)
            for f in waiting:
                levels = level_indices(field_column(fields, f), f)[train]
                counts[f.name] += np.bincount(levels, minlength=len(f.levels))
        except RecordError as error:
            raise error.shifted(start) from None
        start += len(batch)
        progress(start)
    return schema.with_homophones({f.name: homophones(f, counts[f.name], prf) for f in waiting})


def homophones(field: Field, counts: np.ndarray, prf: HomophonePrf) -> Homophones:
    """Return the weights of each level's homophones; a level without a row has one.

    Args:
        field: Its levels and its smoothing are known.
        counts: int64 [levels], training rows of each level.
        prf: As of `fit_homophones`.
    """
    smoothing = field.smoothing
    if smoothing is None or not counts.any():
        return dict.fromkeys(field.levels, (1,))
    if smoothing.method == "poisson":
        weights = _poisson(counts / counts.sum(), smoothing.most_share, prf, field.name)
    else:
        weights = _proportional(counts / counts.sum(), smoothing.most_share)
    return dict(zip(field.levels, weights, strict=True))


def _proportional(shares: np.ndarray, most_share: float) -> list[tuple[int, ...]]:
    """Return as many equal weights as keep each homophone's share at ``most_share`` or below."""
    sizes = np.ceil(shares / most_share - _ROUNDING).astype(int)
    return [(1,) * max(1, int(size)) for size in sizes]


def _poisson(
    shares: np.ndarray, mean: float, prf: HomophonePrf, name: str
) -> list[tuple[int, ...]]:
    """Return the gaps, ``mean`` on average, of a Poisson process, cut where a level's share ends.

    These are the Poisson salts of Pouliot, Griffy and Wright 2019.
    """
    enough = math.ceil(1 / mean + 20 * math.sqrt(1 / mean) + 100)
    gaps = -np.log1p(-_uniform(prf, name, enough)) * mean
    arrivals, ends = np.cumsum(gaps), np.cumsum(shares)
    cuts = np.union1d(arrivals[arrivals < ends[-1]], np.concatenate([[0.0], ends]))
    level = np.searchsorted(ends, (cuts[:-1] + cuts[1:]) / 2, side="right")
    weights: list[list[int]] = [[] for _ in shares]
    for place, width in zip(level, np.diff(cuts), strict=True):
        weights[place].append(max(1, round(float(width) * WEIGHT_SCALE)))
    return [tuple(found or (1,)) for found in weights]


def _uniform(prf: HomophonePrf, name: str, count: int) -> np.ndarray:
    """Return float64 [count] in [0, 1), the same for a key and a field's name."""
    start = hashlib.sha256(name.encode()).digest()[:8]
    blocks = b"".join(start + number.to_bytes(8, "big") for number in range(count))
    whole = np.frombuffer(prf.seal(blocks), "<u8")[::2] >> np.uint64(11)
    return np.asarray(whole * 2.0**-53, np.float64)


def without_unused(schema: Schema, codec: RecordCodec, used: Mapping[str, set[bytes]]) -> Schema:
    """Return ``schema`` with weight 0 for the homophones that no training row has.

    The host knows the tokens of training rows and refuses others.  A level that no training row has
    stays as it is: the host refuses it, smoothed or not.

    Args:
        schema: The schema the table was encrypted with.
        codec: What it was encrypted with.
        used: Field name to the tokens of training rows, for each smoothed field.
    """
    renewed = {}
    for name, tokens in used.items():
        renewed[name] = dict(schema.by_name[name].homophones)
        for level, column in codec.tokens[name].items():
            weights = renewed[name][level]
            kept = [
                weight * (token in tokens) for weight, token in zip(weights, column, strict=True)
            ]
            if any(kept):
                renewed[name][level] = tuple(kept)
    return schema.with_homophones(renewed)
