"""Schema files: TOML in, TOML out, and the schemas that ship with the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from cipherscore.errors import SchemaError, shorten
from cipherscore.files import write_bytes
from cipherscore.schema import Binning, Field, Grouping, Schema, Smoothing, Source, Target
from cipherscore.smoothing import format_homophones, parse_homophones

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
BUILT_IN_FOLDER = files("cipherscore") / "schemas"
_Types = Mapping[str, tuple[type, ...]]
_NUMBER = (int, float)
_TOP: _Types = {
    "format": (int,), "name": (str,), "version": (int,), "title": (str,), "source": (dict,),
    "group": (str,), "dropped": (list,), "target": (dict,), "field": (list,), "smoothing": (dict,),
}  # fmt: skip
_SOURCE: _Types = {
    "path": (str,), "url": (str,), "sha256": (str,), "sample": (str,), "delimiter": (str,),
    "header": (bool,), "columns": (list,), "encoding": (str,), "decimal": (str,),
}  # fmt: skip
_TARGET: _Types = {
    "name": (str,), "good": (str, int, list), "bad": (str, int, list), "cost_false_good": _NUMBER,
    "cost_false_bad": _NUMBER, "description": (str,), "bad_below": _NUMBER, "bad_above": _NUMBER,
}  # fmt: skip
_TYPE_NAMES = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "a table of entries",
}  # fmt: skip
_BINNING: _Types = {"method": (str,), "bins": (int,)}
_GROUPING: _Types = {"most": (int,), "least": (int,)}
_SMOOTHING: _Types = {"most_share": _NUMBER, "method": (str,)}
_FIELD: _Types = {
    "name": (str,), "kind": (str,), "description": (str,), "categories": (dict,), "edges": (list,),
    "binning": (dict,), "unit": (str,), "range": (list,), "missing": (str,),
    "missing_values": (list,), "column": (str,), "other": (bool,), "grouping": (dict,),
    "part": (str,), "date": (str,), "reference": (str,), "protected": (bool,),
    "smoothing": (dict,), "homophones": (dict,),
}  # fmt: skip


def built_in_names() -> list[str]:
    """Return the names of the schemas that ship with the package."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in BUILT_IN_FOLDER.iterdir()
        if entry.name.endswith(".toml")
    )


def load_schema(name_or_path: str | Path) -> Schema:
    """Read a schema file, or a built-in schema by its name.

    Raises:
        SchemaError: There is no such schema, or it is wrong; the message says where.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml" and str(name_or_path) in built_in_names():
        text = (BUILT_IN_FOLDER / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise SchemaError(
                f"{_shown(name_or_path)}: cannot read the schema ({type(error).__name__}); give a "
                f"TOML file or one of the built-in names: {', '.join(built_in_names())}"
            ) from None
    try:
        return parse_schema(text)
    except SchemaError as error:
        raise SchemaError(f"{_shown(name_or_path)}: {error}") from None


Comments = Mapping[str, Sequence[str]]
"""Remarks for people by field name; those of the whole file stand under the empty name."""


def save_schema(schema: Schema, path: Path, comments: Comments = MappingProxyType({})) -> None:
    """Write ``schema`` to ``path`` atomically, in a form `load_schema` reads back as equal."""
    write_bytes(path, format_schema(schema, comments).encode())


def parse_schema(text: str) -> Schema:
    """Read a schema from TOML text.

    Raises:
        SchemaError: Not TOML, an unknown or missing entry, or a value that is not allowed.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SchemaError(f"not TOML: {str(error)[:200]}") from None
    if content.get("format") != FORMAT:
        raise SchemaError(f"format = {shorten(content.get('format'))} is unknown; known: {FORMAT}")
    _check(content, _TOP, "schema", needed=("name", "target", "field"))
    source = content.get("source", {})
    _check(source, _SOURCE, "source")
    smoothing = _parse_smoothing(content)
    return Schema(
        name=content["name"],
        version=content.get("version", 1),
        title=content.get("title", ""),
        source=Source(**{**source, "columns": _texts(source, "columns", "source")}),
        group=content.get("group", ""),
        dropped=_texts(content, "dropped", "schema"),
        target=_parse_target(content["target"]),
        fields=tuple(_parse_field(entry, smoothing) for entry in content["field"]),
    )


def format_schema(schema: Schema, comments: Comments = MappingProxyType({})) -> str:
    """Return ``schema`` as TOML text, with ``comments`` above the fields they are about."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": schema.name,
        "version": schema.version,
        "title": schema.title,
        "group": schema.group,
        "dropped": list(schema.dropped),
        "source": _without_defaults(schema.source, Source()),
        "target": _format_target(schema.target),
    }
    head = {key: value for key, value in content.items() if value not in ("", {}, [])}
    parts = [_comment(comments.get("", ())) + tomli_w.dumps(head)]
    parts += [
        _comment(comments.get(f.name, ())) + _field_text(_format_field(f)) for f in schema.fields
    ]
    return "\n".join(parts)


def _field_text(entry: Mapping[str, Any]) -> str:
    """Return a field as a table of its own: the writer would put short ones into one long line."""
    tables = {key: value for key, value in entry.items() if isinstance(value, dict)}
    plain = {key: value for key, value in entry.items() if key not in tables}
    return (
        "[[field]]\n"
        + tomli_w.dumps(plain)
        + "".join(f"\n[field.{key}]\n{tomli_w.dumps(value)}" for key, value in tables.items())
    )


def _comment(lines: Sequence[str]) -> str:
    """Return ``lines`` as TOML comments; what would end a comment or is not printed is escaped."""
    shown = ("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    return "".join(f"# {line}\n" for line in shown)


def _parse_target(entry: Any) -> Target:
    _check(entry, _TARGET, "target", needed=("name", "good", "bad"))
    values = dict(entry)
    for key in ("good", "bad"):
        listed = entry[key] if isinstance(entry[key], list) else [entry[key]]
        if not listed or not all(_has_type(value, (str, int)) for value in listed):
            raise SchemaError(f"target: {key} is a value or a list of texts or whole numbers")
        values[key], values[f"also_{key}"] = str(listed[0]), tuple(map(str, listed[1:]))
    for key in ("bad_below", "bad_above"):
        if key in entry:
            values[key] = (_numbers({key: [entry[key]]}, key, "target") or ())[0]
    return Target(**values)


def _format_target(target: Target) -> dict[str, Any]:
    entry = {key: value for key, value in target.__dict__.items() if value is not None}
    for key in ("good", "bad"):
        others = entry.pop(f"also_{key}")
        if others:
            entry[key] = [entry[key], *others]
    return entry


def _parse_field(entry: Any, smoothing: Smoothing | None) -> Field:
    where = f"field {shorten(entry['name'])}" if _is_named(entry) else "field"
    _check(entry, _FIELD, where, needed=("name", "kind"))
    values = {key: value for key, value in entry.items() if key not in ("range", "binning")}
    edges, limits = _numbers(entry, "edges", where), _numbers(entry, "range", where)
    values["edges"] = edges or ()
    if limits is not None:
        if len(limits) != 2:
            raise SchemaError(f"{where}: range is [lowest, highest], not {len(limits)} numbers")
        values["valid_range"] = (limits[0], limits[1])
    values["missing_values"] = _texts(entry, "missing_values", where)
    meanings = entry.get("categories", {})
    if not all(isinstance(meaning, str) for meaning in meanings.values()):
        raise SchemaError(f'{where}: each entry of categories is code = "meaning"')
    values["categories"] = dict(meanings)
    if "binning" in entry:
        _check(entry["binning"], _BINNING, f"{where}, binning", needed=("method", "bins"))
        values["binning"] = Binning(**entry["binning"])
    if "grouping" in entry:
        _check(entry["grouping"], _GROUPING, f"{where}, grouping", needed=("most", "least"))
        values["grouping"] = Grouping(**entry["grouping"])
    try:
        values["smoothing"] = _parse_smoothing(entry) or smoothing
        values["homophones"] = parse_homophones(entry.get("homophones", {}))
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from None
    return Field(**values)


def _parse_smoothing(entry: Mapping[str, Any]) -> Smoothing | None:
    """Return the smoothing of a field, or of a schema for fields without their own, if any."""
    if "smoothing" not in entry:
        return None
    _check(entry["smoothing"], _SMOOTHING, "smoothing", needed=("most_share",))
    return Smoothing(**entry["smoothing"])


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _texts(entry: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return a list of texts; an empty one where the entry is absent."""
    texts = entry.get(key, [])
    if not all(isinstance(text, str) for text in texts):
        raise SchemaError(f"{where}: {key} is a list of texts")
    return tuple(texts)


def _numbers(entry: Mapping[str, Any], key: str, where: str) -> tuple[float, ...] | None:
    """Return a list of numbers as floats; None where the entry is absent."""
    if key not in entry:
        return None
    if not all(_has_type(number, _NUMBER) for number in entry[key]):
        raise SchemaError(f"{where}: {key} is a list of numbers")
    try:
        return tuple(float(number) for number in entry[key])
    except OverflowError:
        raise SchemaError(f"{where}: {key} holds a number that is too large") from None


def _format_field(f: Field) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": f.name, "kind": f.kind}
    for key in ("column", "description", "unit", "part", "date", "reference", "protected", "other"):
        if getattr(f, key):
            entry[key] = getattr(f, key)
    if f.valid_range is not None:
        entry["range"] = list(f.valid_range)
    if f.missing != "error":
        entry["missing"] = f.missing
    for key in ("binning", "grouping", "smoothing"):
        if getattr(f, key) is not None:
            entry[key] = dict(getattr(f, key).__dict__)
    lists = {"missing_values": list(f.missing_values), "edges": list(f.edges)}
    tables = {"categories": dict(f.categories), "homophones": format_homophones(f.homophones)}
    return entry | {key: value for key, value in {**lists, **tables}.items() if value}


def _without_defaults(value: Any, default: Any) -> dict[str, Any]:
    changed = {key: new for key, new in value.__dict__.items() if new != getattr(default, key)}
    return {key: list(new) if isinstance(new, tuple) else new for key, new in changed.items()}


def _check(entry: Any, known: _Types, where: str, *, needed: tuple[str, ...] = ()) -> None:
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
        if not _has_type(value, known[key]):
            names = " or ".join(_TYPE_NAMES[kind] for kind in known[key])
            raise SchemaError(f"{where}: {key} = {shorten(value)} has the wrong type; give {names}")
    for key in needed:
        if key not in entry:
            raise SchemaError(f"{where}: entry {key!r} is missing")


def _has_type(value: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether ``value`` is of one of ``kinds``; a boolean is no number here."""
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _shown(name_or_path: str | Path) -> str:
    """Return a path as given, or its first part where it is absurdly long."""
    text = str(name_or_path)
    return text if len(text) <= 4096 and text.isprintable() else shorten(text)
