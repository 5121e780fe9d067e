"""Names of fields, made from the names of columns that may be anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from cipherscore.schema import RESERVED_NAMES

MAX_FIELD_NAME = 48
_SAFE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FOLDS = str.maketrans({"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "ł": "l", "Ł": "L",
                        "đ": "d", "Đ": "D", "œ": "oe", "Œ": "Oe", "%": " pct "})  # fmt: skip


def field_names(columns: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a field name for each of the different ``columns``: letters, digits and ``_``.

    A column that is named so already keeps its name, so that no field has the name of another
    field's column.  Accents are folded; what has no such letter is called c1, c2, ... by position.
    No name is one of ``taken`` or of `cipherscore.schema.RESERVED_NAMES`.
    """
    columns = list(columns)
    used = {*taken, *RESERVED_NAMES}
    names = {
        column: column
        for column in columns
        if _SAFE.match(column) and len(column) <= MAX_FIELD_NAME and column not in used
    }
    used.update(columns)
    for position, column in enumerate(columns, 1):
        if column not in names:
            names[column] = unused(_folded(column) or f"c{position}", used)
    return {column: names[column] for column in columns}


def unused(stem: str, used: set[str]) -> str:
    """Return ``stem``, or it with the first free number behind it; the name is then ``used``."""
    name, number = stem[:MAX_FIELD_NAME], 2
    while name in used:
        name = f"{stem[: MAX_FIELD_NAME - 1 - len(str(number))]}_{number}"
        number += 1
    used.add(name)
    return name


def words(name: str) -> list[str]:
    """Return the words of a name in small letters; ``customerID`` has two, ``paid`` has one."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", _plain(name))
    return [part.lower() for part in parts]


def _folded(column: str) -> str:
    text = re.sub(r"[^A-Za-z0-9]+", "_", _plain(column)).strip("_")
    return f"c{text}" if text[:1].isdigit() else text


def _plain(text: str) -> str:
    """Return ``text`` without accents, other letters left out."""
    folded = unicodedata.normalize("NFKD", text.translate(_FOLDS))
    return folded.encode("ascii", "ignore").decode()
