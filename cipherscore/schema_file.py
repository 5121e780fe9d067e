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
from cipherscore.scorecards import Scorecards, format_scorecards, is_planned, planned_fields
from cipherscore.smoothing import format_homophones, parse_homophones
from cipherscore.toml_entries import NUMBER, Types, check_entries, has_type, numbers_of, texts_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
BUILT_IN_FOLDER = files("cipherscore") / "schemas"
_TOP: Types = {
    "format": (int,), "name": (str,), "version": (int,), "title": (str,), "source": (dict,),
    "group": (str,), "dropped": (list,), "target": (dict,), "field": (list,), "smoothing": (dict,),
    "scorecards": (dict,), "scorecard": (list,),
}  # fmt: skip
_SOURCE: Types = {
    "path": (str,), "url": (str,), "sha256": (str,), "sample": (str,), "delimiter": (str,),
    "header": (bool,), "columns": (list,), "encoding": (str,), "decimal": (str,),
}  # fmt: skip
_TARGET: Types = {
    "name": (str,), "good": (str, int, list), "bad": (str, int, list), "cost_false_good": NUMBER,
    "cost_false_bad": NUMBER, "description": (str,), "bad_below": NUMBER, "bad_above": NUMBER,
}  # fmt: skip
_BINNING: Types = {"method": (str,), "bins": (int,)}
_GROUPING: Types = {"most": (int,), "least": (int,)}
_SCORECARDS: Types = {"count": (int,), "levels": (int,), "views": (int,)}
_SMOOTHING: Types = {"most_share": NUMBER, "method": (str,)}
_FIELD: Types = {
    "name": (str,), "kind": (str,), "description": (str,), "categories": (dict,), "edges": (list,),
    "binning": (dict,), "unit": (str,), "range": (list,), "missing": (str,),
    "missing_values": (list,), "column": (str,), "other": (bool,), "grouping": (dict,),
    "part": (str,), "date": (str,), "reference": (str,), "protected": (bool,),
    "smoothing": (dict,), "homophones": (dict,),
}  # fmt: skip
_ATTRIBUTE: Types = {**_FIELD, "scorecard": (int,), "points": (dict,)}


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
    check_entries(content, _TOP, "schema", needed=("name", "target", "field"))
    source = content.get("source", {})
    check_entries(source, _SOURCE, "source")
    fields, scorecards = _parse_fields(content)
    return Schema(
        name=content["name"],
        version=content.get("version", 1),
        title=content.get("title", ""),
        source=Source(**{**source, "columns": texts_of(source, "columns", "source")}),
        group=content.get("group", ""),
        dropped=texts_of(content, "dropped", "schema"),
        target=_parse_target(content["target"]),
        fields=fields,
        scorecards=scorecards,
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
    if schema.scorecards is not None:
        content["scorecards"] = format_scorecards(schema.fields)
    head = {key: value for key, value in content.items() if value not in ("", {}, [])}
    parts = [_comment(comments.get("", ())) + tomli_w.dumps(head)]
    for f in schema.inputs:
        entry = _format_field(f)
        if schema.scorecards is not None and schema.scorecards.fitted:
            entry["scorecard"] = schema.scorecards.members[f.name]
            entry["points"] = dict(schema.scorecards.points[f.name])
        parts.append(_comment(comments.get(f.name, ())) + _field_text("field", entry))
    if schema.scorecards is not None and not is_planned(schema.fields):
        parts += [_field_text("scorecard", _format_field(f)) for f in schema.fields]
    return "\n".join(parts)


def _field_text(kind: str, entry: Mapping[str, Any]) -> str:
    """Return a field as a table of its own: the writer would put short ones into one long line."""
    tables = {key: value for key, value in entry.items() if isinstance(value, dict)}
    plain = {key: value for key, value in entry.items() if key not in tables}
    return (
        f"[[{kind}]]\n"
        + tomli_w.dumps(plain)
        + "".join(f"\n[{kind}.{key}]\n{tomli_w.dumps(value)}" for key, value in tables.items())
    )


def _comment(lines: Sequence[str]) -> str:
    """Return ``lines`` as TOML comments; what would end a comment or is not printed is escaped."""
    shown = ("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    return "".join(f"# {line}\n" for line in shown)


def _parse_target(entry: Any) -> Target:
    check_entries(entry, _TARGET, "target", needed=("name", "good", "bad"))
    values = dict(entry)
    for key in ("good", "bad"):
        listed = entry[key] if isinstance(entry[key], list) else [entry[key]]
        if not listed or not all(has_type(value, (str, int)) for value in listed):
            raise SchemaError(f"target: {key} is a value or a list of texts or whole numbers")
        values[key], values[f"also_{key}"] = str(listed[0]), tuple(map(str, listed[1:]))
    for key in ("bad_below", "bad_above"):
        if key in entry:
            values[key] = (numbers_of({key: [entry[key]]}, key, "target") or ())[0]
    return Target(**values)


def _format_target(target: Target) -> dict[str, Any]:
    entry = {key: value for key, value in target.__dict__.items() if value is not None}
    for key in ("good", "bad"):
        others = entry.pop(f"also_{key}")
        if others:
            entry[key] = [entry[key], *others]
    return entry


def _parse_fields(content: Mapping[str, Any]) -> tuple[tuple[Field, ...], Scorecards | None]:
    """Return the fields, and where there are scorecards, whose sums the fields are then, those."""
    smoothing, entries = _parse_smoothing(content), content["field"]
    if "scorecards" not in content:
        if "scorecard" in content:
            raise SchemaError("schema: [[scorecard]] needs [scorecards] with count and levels")
        return tuple(_parse_field(entry, smoothing) for entry in entries), None
    check_entries(content["scorecards"], _SCORECARDS, "scorecards", needed=("count", "levels"))
    fields = planned_fields(**content["scorecards"], smoothing=smoothing)
    given = tuple(_parse_field(entry, smoothing) for entry in content.get("scorecard", ()))
    if given and [f.name for f in given] != [f.name for f in fields]:
        raise SchemaError(
            f"scorecards: {len(fields)} of them, but [[scorecard]] names "
            f"{shorten(', '.join(f.name for f in given))}; take all [[scorecard]] out, and "
            "`cipherscore encrypt` fits them anew"
        )
    attributes, members, points = [], {}, {}
    for entry in entries:
        own = ("scorecard", "points")
        where = f"field {shorten(entry['name'])}" if _is_named(entry) else "field"
        check_entries(entry, _ATTRIBUTE, where)
        attribute = _parse_field({k: v for k, v in entry.items() if k not in own}, None)
        attributes.append(attribute)
        if "scorecard" in entry:
            members[attribute.name] = entry["scorecard"]
        if "points" in entry:
            points[attribute.name] = dict(entry["points"])
    return given or fields, Scorecards(tuple(attributes), members, points)


def _parse_field(entry: Any, smoothing: Smoothing | None) -> Field:
    where = f"field {shorten(entry['name'])}" if _is_named(entry) else "field"
    check_entries(entry, _FIELD, where, needed=("name", "kind"))
    values = {key: value for key, value in entry.items() if key not in ("range", "binning")}
    edges, limits = numbers_of(entry, "edges", where), numbers_of(entry, "range", where)
    values["edges"] = edges or ()
    if limits is not None:
        if len(limits) != 2:
            raise SchemaError(f"{where}: range is [lowest, highest], not {len(limits)} numbers")
        values["valid_range"] = (limits[0], limits[1])
    values["missing_values"] = texts_of(entry, "missing_values", where)
    meanings = entry.get("categories", {})
    if not all(isinstance(meaning, str) for meaning in meanings.values()):
        raise SchemaError(f'{where}: each entry of categories is code = "meaning"')
    values["categories"] = dict(meanings)
    if "binning" in entry:
        check_entries(entry["binning"], _BINNING, f"{where}, binning", needed=("method", "bins"))
        values["binning"] = Binning(**entry["binning"])
    if "grouping" in entry:
        check_entries(entry["grouping"], _GROUPING, f"{where}, grouping", needed=("most", "least"))
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
    check_entries(entry["smoothing"], _SMOOTHING, "smoothing", needed=("most_share",))
    return Smoothing(**entry["smoothing"])


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


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


def _shown(name_or_path: str | Path) -> str:
    """Return a path as given, or its first part where it is absurdly long."""
    text = str(name_or_path)
    return text if len(text) <= 4096 and text.isprintable() else shorten(text)
