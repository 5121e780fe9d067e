"""The protections that are compared: what of a table the host gets to see, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cipherscore.client.scorecards import attribute_levels
from cipherscore.schema import Binning, Field, Grouping, Scorecards, Smoothing
from cipherscore.scorecards import planned_fields
from evaluation.folds import RawData, Rows

View = Callable[[RawData, Rows], RawData]
"""Returns a table as the host is meant to see it, with all levels fitted on some of its rows."""


@dataclass(frozen=True)
class Protection:
    """One way to protect a table.

    Args:
        name: Key in results.
        title: What the table calls it.
        view: What the host sees.
        draws: Copies of each training row, where fields are smoothed.
        whole: Whether each field is seen, so that who names its tokens has it.
        shared_key: Whether all fields have one key, as in the capstone.
        encrypted: Whether there is a cipher at all.
    """

    name: str
    title: str
    view: View
    draws: int = 1
    whole: bool = True
    shared_key: bool = False
    encrypted: bool = True


def fields(raw: RawData, rows: Rows) -> RawData:
    """Every field by itself."""
    return replace(raw, schema=raw.fitted(rows))


def smoothed(most_share: float, inner: View = fields) -> View:
    """Homophones, so that no token has more than ``most_share`` of the rows."""

    def view(raw: RawData, rows: Rows) -> RawData:
        seen = inner(raw, rows)
        split = tuple(replace(f, smoothing=Smoothing(most_share)) for f in seen.schema.fields)
        return replace(seen, schema=replace(seen.schema, fields=split))

    return view


def kept(count: int, inner: View = fields) -> View:
    """Only the ``count`` fields that say most about the label, by mutual information."""

    def view(raw: RawData, rows: Rows) -> RawData:
        seen = inner(raw, rows)
        order = np.argsort([-gain for gain in information(seen, rows)], kind="stable")[:count]
        chosen = tuple(seen.schema.fields[place] for place in sorted(order))
        dropped = [f.source for f in seen.schema.fields if f not in chosen]
        schema = replace(
            seen.schema, fields=chosen, dropped=(*seen.schema.dropped, *dict.fromkeys(dropped))
        )
        return replace(seen, schema=schema)

    return view


def coarse(levels: int) -> View:
    """Every field cut into ``levels`` levels at most: bins, or the most frequent categories."""

    def view(raw: RawData, rows: Rows) -> RawData:
        cut = tuple(_coarse(f, levels) for f in raw.schema.fields)
        return fields(replace(raw, schema=replace(raw.schema, fields=cut)), rows)

    return view


def scorecards(count: int, levels: int, views: int = 1) -> View:
    """Sums of points over the fields, ``count`` of them, in ``views`` times ``levels`` bins."""

    def view(raw: RawData, rows: Rows) -> RawData:
        cards = Scorecards(raw.schema.fields)
        planned = replace(raw.schema, fields=planned_fields(count, levels, views), scorecards=cards)
        summed = replace(raw, schema=planned)
        return summed.as_fields(summed.fitted(rows))

    return view


def information(seen: RawData, rows: Rows) -> list[float]:
    """Return the mutual information of each field with the label, in nats, on some rows."""
    levels = attribute_levels(seen.table.take(pa.array(rows)), seen.schema)
    label = seen.label[rows]
    return [_information(column, label) for column in levels.T]


def _information(column: np.ndarray, label: np.ndarray) -> float:
    both = np.bincount(2 * column + label, minlength=2 * int(column.max()) + 2).reshape(-1, 2)
    share = both / both.sum()
    alone = share.sum(axis=1, keepdims=True) * share.sum(axis=0)
    found = share > 0
    return float((share[found] * np.log(share[found] / alone[found])).sum())


def _coarse(field: Field, levels: int) -> Field:
    if field.kind == "numeric":
        return replace(field, edges=(), binning=Binning("tree", levels))
    if len(field.categories) <= levels and field.grouping is None:
        return field
    return replace(field, categories={}, other=True, grouping=Grouping(most=levels - 1, least=1))


def protections(draws: int) -> list[Protection]:
    """Return all protections, the weakest first; ``draws`` of a row where fields are smoothed."""
    found = [
        Protection("plain", "none: plain values", fields, encrypted=False),
        Protection("ecb", "AES-ECB, one key for all fields (capstone)", fields, shared_key=True),
        Protection("siv", "AES-SIV, a key per field", fields),
    ]
    for share, count in ((0.2, draws), (0.1, draws), (0.05, 1), (0.05, draws), (0.02, draws)):
        drawn = f"{count} draw{'s' if count > 1 else ''}"
        title = f"smoothed, tokens at most {share:.0%}, {drawn}"
        found.append(Protection(f"smooth-{share}-{count}", title, smoothed(share), count))
    for count in (10, 5, 3):
        title = f"the {count} fields that tell most"
        found.append(Protection(f"kept-{count}", title, kept(count), whole=False))
    found += [
        Protection("kept-5-smooth", f"5 fields, tokens at most 5%, {draws} draws",
                   smoothed(0.05, kept(5)), draws, whole=False),
        Protection("coarse-2", "2 levels a field", coarse(2), whole=False),
        Protection("coarse-2-kept-8", "8 fields of 2 levels", kept(8, coarse(2)), whole=False),
        Protection("coarse-2-smooth", f"2 levels a field, tokens at most 5%, {draws} draws",
                   smoothed(0.05, coarse(2)), draws, whole=False),
    ]  # fmt: skip
    for count, levels, views in ((3, 8, 1), (2, 8, 1), (1, 16, 1), (1, 8, 2)):
        title = f"{count} scorecard{'s' if count > 1 else ''} of {levels} bins"
        title += f", {views} views" if views > 1 else ""
        view = scorecards(count, levels, views)
        found.append(Protection(f"cards-{count}x{levels}x{views}", title, view, whole=False))
    return found
