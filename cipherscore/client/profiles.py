"""Decide what one column of a table nobody has described yet is good for.

In this order: an id or a constant is dropped, dates become their parts, numbers are binned on
training rows, texts are categories; of those with rare ones the frequent ones are kept on training
rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cipherscore import dates
from cipherscore.client.columns import (
    LEAST_ROWS,
    MAX_STRAYS,
    STRAY_SHARE,
    Column,
    as_numbers,
    common_forms,
    tells,
)
from cipherscore.client.headers import unused, words
from cipherscore.client.leakage import cut_codes
from cipherscore.errors import shorten
from cipherscore.field import MAX_LEVEL_LENGTH
from cipherscore.schema import MISSING_LEVEL, OTHER_LEVEL, Binning, Field, Grouping

MAX_NUMERIC_CODES = 2
"""A numeric column with at most this many distinct values is taken for a category."""
MAX_CATEGORIES = 32
"""A column with more categories, or with rare ones, is grouped."""
MOST_KEPT = 128
"""Most categories that a grouping keeps."""
LEAST_KEPT_SHARE = 0.05
"""A grouping that gives fewer rows than this a category of their own is not worth its field."""
_IDS = "id ids uuid guid key no nr num number index idx row rowid ssn iban"
ID_WORDS = frozenset(_IDS.split())
NEARLY_ALL = 0.9
LONG_ID = 7
"""Digits from which on numbers that all have as many are rather names than amounts."""
PARTS: tuple[tuple[dates.Part, str, str], ...] = (
    ("days", "days", "days from the date to {reference}"),
    ("month", "", "month of the date, 1 to 12"),
    ("weekday", "", "day of the week, 1 = Monday to 7"),
    ("hour", "", "hour of the day, 0 to 23"),
)
"""The parts of a date that are tried: name, unit, description."""


@dataclass(frozen=True)
class Settings:
    """What holds for all columns.

    ``categorical`` names columns whose numbers are codes, ``bins`` is the most bins of a numeric
    field, ``decimal`` the mark in numbers, ``least`` the rows a kept category needs.
    """

    bins: int
    decimal: str
    least: int
    categorical: frozenset[str] = frozenset()
    protected: frozenset[str] = frozenset()


@dataclass
class Profile:
    """What was decided of one column: its fields (none if dropped), remarks, and codes.

    ``codes`` (int64, [rows]) are the column's bins or categories for `leakage.single_column_auc`.
    """

    column: str
    fields: tuple[Field, ...] = ()
    remarks: list[str] = field(default_factory=list)
    codes: np.ndarray | None = None


def profile(
    name: str, texts: pa.Array, own_name: str, used: set[str], settings: Settings
) -> Profile:
    """Return what was decided of the column ``name``; its field is called ``own_name``.

    ``used`` are the names of fields that are taken; those of a date's parts are added.
    """
    column = Column(name, texts)
    found = Profile(name)
    alike = max(column.missing, int(column.counts.max(initial=0)))
    if len(column.present) + (column.missing > 0) < 2 or not len(column.present):
        return _drop(found, f"it has {len(column.present)} distinct value(s)")
    if column.rows - alike < LEAST_ROWS:
        return _drop(found, f"all but {column.rows - alike} row(s) are alike")
    base = Field(
        own_name,
        "numeric",
        binning=Binning("tree", settings.bins),
        column=name if own_name != name else "",
        missing="level" if column.missing else "error",
        missing_values=column.absent_texts,
        protected=name in settings.protected,
    )
    if name not in settings.categorical:
        numbers = as_numbers(column, settings.decimal)
        whole = _plain_codes(numbers)
        for decide in (_date, _number):
            decided = decide(column, found, base, used, settings, None if whole else numbers)
            if decided is not None:
                return decided
            found = Profile(name)
    return _category(column, found, base, settings)


def _date(
    column: Column, found: Profile, base: Field, used: set[str], settings: Settings,
    _numbers: np.ndarray | None,
) -> Profile | None:  # fmt: skip
    """Turn dates into their parts; None if the column has none."""
    texts = column.present.to_pylist()
    forms = common_forms(texts)
    if not forms or len(texts) <= MAX_NUMERIC_CODES:
        return None
    when = [dates.parse(forms[0], text) for text in texts]
    known = _with_strays(column, found, base, np.array([day is None for day in when]), "dates")
    if known is None:
        return None
    if len(forms) > 1:
        found.remarks.append(
            f"column {column.name!r}: its dates may be {' or '.join(forms)}; taken for {forms[0]}"
        )
    reference = max(day for day in when if day is not None).date().isoformat()
    fields = []
    for part, unit, description in PARTS:
        last = reference if part == "days" else ""
        values = column.spread(
            np.array([np.nan if day is None else dates.number(part, day, last) for day in when])
        )
        if tells(values):
            fields.append(
                replace(
                    known, name=unused(f"{base.name}_{part}", used),
                    column=column.name, part=part, date=forms[0], reference=last, unit=unit,
                    description=description.format(reference=reference),
                    binning=Binning("tree", 7 if part == "weekday" else settings.bins),
                )
            )  # fmt: skip
            found.codes = cut_codes(values) if found.codes is None else found.codes
    if not fields:
        return None
    found.fields = tuple(fields)
    parts = ", ".join(f.part for f in fields)
    found.remarks.append(f"column {column.name!r}: dates like {forms[0]}; fields of its {parts}")
    return found


def _number(
    column: Column, found: Profile, base: Field, _used: set[str], _settings: Settings,
    numbers: np.ndarray | None,
) -> Profile | None:  # fmt: skip
    """Turn numbers into a numeric field; None if the column holds none, or codes."""
    if numbers is None:
        return None
    known = _with_strays(column, found, base, ~np.isfinite(numbers), "numbers")
    values = column.spread(numbers)
    if known is None or not tells(values):
        return None
    if _is_id(column, values):
        return _drop(found, "a different whole number in (nearly) each row, an id")
    found.fields = (known,)
    found.codes = cut_codes(values)
    return found


def _category(column: Column, found: Profile, base: Field, settings: Settings) -> Profile:
    """Turn texts into categories, all of them or those that will be frequent enough."""
    distinct = len(column.present)
    if distinct == column.rows > LEAST_ROWS:
        return _drop(found, "a different text in each row, an id")
    found.codes = column.spread(np.arange(1.0, distinct + 1), absent=0.0).astype(np.int64)
    codes = column.present.to_pylist()
    reserved = {MISSING_LEVEL, OTHER_LEVEL}.intersection(codes)
    if (
        distinct <= MAX_CATEGORIES
        and column.counts.min() >= settings.least
        and column.longest <= MAX_LEVEL_LENGTH
        and not reserved
    ):
        categories = dict.fromkeys(sorted(codes), "")
        found.fields = (replace(base, kind="categorical", binning=None, categories=categories),)
        return found
    frequent = column.counts >= settings.least
    kept = int(np.sort(column.counts[frequent])[::-1][:MOST_KEPT].sum())
    if distinct > MAX_CATEGORIES and kept < LEAST_KEPT_SHARE * column.rows:
        return _drop(
            found, f"{distinct} different texts, of which few occur {settings.least} times"
        )
    if distinct > MAX_CATEGORIES or column.longest > MAX_LEVEL_LENGTH:
        found.remarks.append(
            f"column {column.name!r}: of {distinct} texts the at most {MOST_KEPT} that occur "
            f"{settings.least} times or more in training rows are kept, the rest is {OTHER_LEVEL}"
        )
    grouping = Grouping(MOST_KEPT, settings.least)
    found.fields = (replace(base, kind="categorical", binning=None, other=True, grouping=grouping),)
    return found


def _drop(found: Profile, reason: str) -> Profile:
    found.remarks = [f"column {found.column!r} dropped: {reason}"]
    return found


def _with_strays(
    column: Column, found: Profile, base: Field, strays: np.ndarray, what: str
) -> Field | None:
    """Return the field with the few texts that are no ``what`` as absent; None if they are many."""
    if not strays.any():
        return base
    texts = column.present.filter(pa.array(strays)).to_pylist()
    rows = int(column.counts[strays].sum())
    if len(texts) > MAX_STRAYS or rows > STRAY_SHARE * column.rows:
        return None
    shown = ", ".join(shorten(text) for text in texts)
    found.remarks.append(f"column {column.name!r}: {shown} among {what} mean(s) no value")
    return replace(
        base, missing="level", missing_values=tuple(sorted({*base.missing_values, *texts}))
    )


def _plain_codes(numbers: np.ndarray | None) -> bool:
    """Return whether the numbers are so few that they are rather codes."""
    if numbers is None:
        return False
    finite = np.isfinite(numbers)
    return bool(finite.all()) and len(numbers) <= MAX_NUMERIC_CODES


def _is_id(column: Column, values: np.ndarray) -> bool:
    """Return whether a column of numbers looks like numbers of the rows.

    An amount can differ in each row too; an id also rises from row to row, has many digits, equally
    many in each row, or is called one; what is called one may have a few repeated rows.
    """
    whole = np.isfinite(values) & (values == np.round(values))
    if len(column.present) < NEARLY_ALL * column.rows or not whole.all():
        return False
    different = len(column.present) == column.rows
    rising = different and bool(np.all(np.diff(values) > 0))
    digits = pc.min_max(pc.utf8_length(column.present)).as_py()
    long = different and column.rows >= 100 and digits["min"] == digits["max"] >= LONG_ID
    return rising or long or bool(ID_WORDS.intersection(words(column.name)))
