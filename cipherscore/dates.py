"""Dates in raw tables: the forms that are read, and the numbers that are made of them.

One raw column of dates becomes several numeric fields (`cipherscore.field.Field.part`), each with
bins of its own.  Only what is written here is read; nothing is guessed at scoring time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import Literal, get_args

from cipherscore.errors import SchemaError

Part = Literal["days", "year", "month", "weekday", "hour"]
PARTS: tuple[Part, ...] = get_args(Part)

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_Y, _M, _D = "(?P<y>[0-9]{4})", "(?P<m>[0-9]{1,2})", "(?P<d>[0-9]{1,2})"
_WORD = "(?P<word>[A-Za-z]{3,9})[.]?"
_TIME = (
    r"(?:(?:T|\s+)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::[0-9]{2}(?:[.,][0-9]+)?)?"
    r"\s*(?P<half>[AaPp][Mm])?\s*(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2})?)?"
)
FORMS = {
    form: re.compile(pattern + (_TIME if "D" in form else "") + r"\Z")
    for form, pattern in {
        "YYYY-MM-DD": f"{_Y}-{_M}-{_D}",
        "YYYY/MM/DD": f"{_Y}/{_M}/{_D}",
        "YYYY.MM.DD": f"{_Y}[.]{_M}[.]{_D}",
        "DD.MM.YYYY": f"{_D}[.]{_M}[.]{_Y}",
        "DD/MM/YYYY": f"{_D}/{_M}/{_Y}",
        "MM/DD/YYYY": f"{_M}/{_D}/{_Y}",
        "DD-MM-YYYY": f"{_D}-{_M}-{_Y}",
        "MM-DD-YYYY": f"{_M}-{_D}-{_Y}",
        "DD Mon YYYY": rf"{_D}[-\s]{_WORD}[-\s]{_Y}",
        "Mon DD, YYYY": rf"{_WORD}\s{_D},?\s{_Y}",
        "YYYYMMDD": "(?P<y>(?:19|20)[0-9]{2})(?P<m>[0-9]{2})(?P<d>[0-9]{2})",
        "YYYY-MM": f"{_Y}-{_M}",
        "MM/YYYY": f"{_M}/{_Y}",
        "Mon YYYY": rf"{_WORD}[-\s]{_Y}",
    }.items()
}
"""Names of the forms.  A time of day may follow where the form has a day; without a day it is the
first of the month.  ``Mon`` is an English month name, in full or its first three letters."""


def parse(form: str, value: object) -> datetime | None:
    """Return the date that ``value`` spells in ``form`` (a key of `FORMS`); None if it spells none.

    Values that are dates already, as Parquet and pandas have them, are taken in any form.  A time
    zone is not applied: the day is the one that is written.
    """
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - a day has no zone
    if isinstance(value, (int, float)) and not isinstance(value, bool) and form == "YYYYMMDD":
        value = f"{value:.0f}" if math.isfinite(value) and value == round(value) else ""
    found = FORMS[form].match(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    parts = found.groupdict()
    try:
        month = _month(parts["word"]) if parts.get("word") else int(parts["m"])
        hour = _hour(int(parts.get("hour") or 0), (parts.get("half") or "").lower())
        return datetime(int(parts["y"]), month, int(parts.get("d") or 1), hour)  # noqa: DTZ001
    except ValueError:
        return None


def detect(texts: Iterable[str]) -> list[str]:
    """Return the forms in which every one of ``texts`` is a date; more than one is ambiguous."""
    forms = list(FORMS)
    for text in texts:
        forms = [form for form in forms if parse(form, text) is not None]
        if not forms:
            break
    return forms


def number(part: Part, when: datetime, reference: str) -> float:
    """Return one part of a date.

    ``days`` counts from the day to ``reference`` (ISO; later days are negative), ``month`` is 1 to
    12, ``weekday`` 1 (Monday) to 7, ``hour`` 0 to 23.
    """
    if part == "days":
        return float((date.fromisoformat(reference) - when.date()).days)
    if part == "weekday":
        return float(when.isoweekday())
    return float(getattr(when, part))


def check(part: str, form: str, reference: str) -> None:
    """Check the entries of a schema's field.

    Raises:
        SchemaError: One is unknown or missing.
    """
    if part not in PARTS:
        raise SchemaError(f"part {part!r} is unknown; known: {', '.join(PARTS)}")
    if form not in FORMS:
        raise SchemaError(f"date {form!r} is unknown; known: {', '.join(FORMS)}")
    try:
        written = date.fromisoformat(reference).isoformat() if reference else ""
    except ValueError:
        written = "?"
    if written != reference:  # newer Pythons read more forms than older ones
        raise SchemaError(f"reference {reference!r} is no day like 2024-12-31")
    if bool(reference) != (part == "days"):
        raise SchemaError("part = 'days' needs a reference like 2024-12-31, other parts take none")


def _month(word: str) -> int:
    """Return the number of an English month.

    Raises:
        ValueError: It is none.
    """
    return _MONTHS.index(word[:3].lower()) + 1


def _hour(hour: int, half: str) -> int:
    """Return the hour of 24; ``half`` is "", "am" or "pm".

    Raises:
        ValueError: A half of the day is given and the hour is not 1 to 12.
    """
    if not half:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError("no hour of a half day")
    return hour % 12 + 12 * (half == "pm")
