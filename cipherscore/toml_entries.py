"""Entries of a TOML file: which are known, of which types, and what lists of them hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cipherscore.errors import SchemaError, shorten

Types = Mapping[str, tuple[type, ...]]
"""Entry to the types that its value may have."""
NUMBER = (int, float)
_TYPE_NAMES = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "a table of entries",
}  # fmt: skip


def check_entries(entry: Any, known: Types, where: str, *, needed: tuple[str, ...] = ()) -> None:
    """Check that a TOML table has the ``needed`` entries, none but ``known`` ones, of their types.

    Raises:
        SchemaError: It does not.
    """
    if not isinstance(entry, dict):
        raise SchemaError(f"{where}: {shorten(entry)} is no table of entries")
    for key, value in entry.items():
        if key not in known:
            raise SchemaError(
                f"{where}: unknown entry {shorten(key)}; known: {', '.join(sorted(known))}"
            )
        if not has_type(value, known[key]):
            names = " or ".join(_TYPE_NAMES[kind] for kind in known[key])
            raise SchemaError(f"{where}: {key} = {shorten(value)} has the wrong type; give {names}")
    for key in needed:
        if key not in entry:
            raise SchemaError(f"{where}: entry {key!r} is missing")


def has_type(value: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether ``value`` is of one of ``kinds``; a boolean is no number here."""
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def texts_of(entry: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return a list of texts; an empty one where the entry is absent."""
    texts = entry.get(key, [])
    if not all(isinstance(text, str) for text in texts):
        raise SchemaError(f"{where}: {key} is a list of texts")
    return tuple(texts)


def numbers_of(entry: Mapping[str, Any], key: str, where: str) -> tuple[float, ...] | None:
    """Return a list of numbers as floats; None where the entry is absent."""
    if key not in entry:
        return None
    if not all(has_type(number, NUMBER) for number in entry[key]):
        raise SchemaError(f"{where}: {key} is a list of numbers")
    try:
        return tuple(float(number) for number in entry[key])
    except OverflowError:
        raise SchemaError(f"{where}: {key} holds a number that is too large") from None
