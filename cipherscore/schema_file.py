"""Schema files: TOML in, TOML out, and the schemas that ship with the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w

from cipherscore.errors import SchemaError
from cipherscore.files import write_bytes
from cipherscore.schema import Binning, Field, Schema, Source, Target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
BUILT_IN_FOLDER = files("cipherscore") / "schemas"
_TOP = {"format", "name", "version", "title", "source", "target", "field"}
_FIELD = {
    "name", "kind", "description", "categories", "edges", "binning", "unit", "range", "missing",
    "missing_values",
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
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(
                f"{path}: cannot read the schema ({type(error).__name__}); give a TOML file or one "
                f"of the built-in names: {', '.join(built_in_names())}"
            ) from None
    try:
        return parse_schema(text)
    except SchemaError as error:
        raise SchemaError(f"{name_or_path}: {error}") from None


def save_schema(schema: Schema, path: Path) -> None:
    """Write ``schema`` to ``path`` atomically, in a form `load_schema` reads back as equal."""
    write_bytes(path, format_schema(schema).encode())


def parse_schema(text: str) -> Schema:
    """Read a schema from TOML text.

    Raises:
        SchemaError: Not TOML, an unknown or missing entry, or a value that is not allowed.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"not TOML: {error}") from None
    if content.get("format") != FORMAT:
        raise SchemaError(f"format = {content.get('format')!r} is unknown; known: {FORMAT}")
    _only(content, _TOP, "schema")
    try:
        return Schema(
            name=content["name"],
            version=int(content.get("version", 1)),
            title=content.get("title", ""),
            source=Source(**content.get("source", {})),
            target=Target(**content["target"]),
            fields=tuple(_parse_field(entry) for entry in content["field"]),
        )
    except KeyError as error:
        raise SchemaError(f"entry {error.args[0]!r} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise SchemaError(f"a value has the wrong type: {error}") from None


def format_schema(schema: Schema) -> str:
    """Return ``schema`` as TOML text."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": schema.name,
        "version": schema.version,
        "title": schema.title,
        "source": _without_defaults(schema.source, Source()),
        "target": dict(schema.target.__dict__),
        "field": [_format_field(f) for f in schema.fields],
    }
    return tomli_w.dumps({key: value for key, value in content.items() if value not in ("", {})})


def _parse_field(entry: Mapping[str, Any]) -> Field:
    name = entry.get("name", "?")
    _only(entry, _FIELD, f"field {name!r}")
    values = {key: value for key, value in entry.items() if key not in ("range", "binning")}
    values["edges"] = tuple(float(edge) for edge in entry.get("edges", ()))
    values["missing_values"] = tuple(entry.get("missing_values", ()))
    values["categories"] = {str(k): str(v) for k, v in entry.get("categories", {}).items()}
    if "range" in entry:
        low, high = entry["range"]
        values["valid_range"] = (float(low), float(high))
    if "binning" in entry:
        values["binning"] = Binning(**entry["binning"])
    return Field(**values)


def _format_field(f: Field) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": f.name, "kind": f.kind}
    for key in ("description", "unit"):
        if getattr(f, key):
            entry[key] = getattr(f, key)
    if f.valid_range is not None:
        entry["range"] = list(f.valid_range)
    if f.missing != "error":
        entry["missing"] = f.missing
    if f.missing_values:
        entry["missing_values"] = list(f.missing_values)
    if f.binning is not None:
        entry["binning"] = dict(f.binning.__dict__)
    if f.edges:
        entry["edges"] = list(f.edges)
    if f.categories:
        entry["categories"] = dict(f.categories)
    return entry


def _without_defaults(value: Any, default: Any) -> dict[str, Any]:
    return {key: entry for key, entry in value.__dict__.items() if entry != getattr(default, key)}


def _only(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(entry.keys() - known)
    if unknown:
        raise SchemaError(
            f"{where}: unknown entry {unknown[0]!r}; known: {', '.join(sorted(known))}"
        )
