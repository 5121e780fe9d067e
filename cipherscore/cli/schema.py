"""``cipherscore schema``: infer, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cipherscore.cli.common import DEFAULT_SCHEMA, JsonOption, note, out, show
from cipherscore.errors import ConfigurationError

app = typer.Typer(help="Schemas: describe a table's fields, bins and costs.", no_args_is_help=True)


@app.command()
def infer(
    table: Annotated[Path, typer.Argument(help="CSV (comma, semicolon, tab or bar) with a header, or Parquet.")],
    target: Annotated[str, typer.Option(help="Name of the good/bad column.")],
    bad: Annotated[str, typer.Option(help="Its value for bad credit [default: the rarer one].")] = "",
    name: Annotated[str, typer.Option(help="Schema name [default: the file's name].")] = "",
    file: Annotated[Path, typer.Option("--out", help="TOML file to write.")] = Path("schema.toml"),
    bins: Annotated[int, typer.Option(help="Most bins of a numeric field.", min=2, max=64)] = 4,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing schema file.")] = False,
) -> None:  # fmt: skip
    """Write a schema for your own table; read it, correct it, then `cipherscore encrypt` with it."""
    from cipherscore.client.inference import infer_schema
    from cipherscore.schema_file import save_schema

    if file.exists() and not force:
        raise ConfigurationError(
            f"{file} exists and may hold your corrections; give another --out, or --force"
        )
    schema, remarks = infer_schema(table, target, bad=bad, name=name, bins=bins)
    save_schema(schema, file)
    for remark in remarks:
        note(remark)
    out.print(f"{file}: schema {schema.name!r} with {len(schema.fields)} fields")


@app.command()
def check(
    schema: Annotated[str, typer.Argument(help="Built-in name or TOML file.")] = DEFAULT_SCHEMA,
    data: Annotated[Path | None, typer.Option(help="Also check this table, every cell.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a schema, and with --data that a table fits it; show its fields."""
    from cipherscore.schema_file import load_schema

    found = load_schema(schema)
    facts = {
        "name": found.name,
        "fitted": found.fitted,
        "target": found.target.__dict__,
        "fields": [
            {"name": f.name, "kind": f.kind, "levels": len(f.levels) if f.fitted else None}
            for f in found.fields
        ],
    }
    if data is not None:
        from cipherscore.client.checking import check_table
        from cipherscore.client.sources import find_table

        facts["rows"] = check_table(find_table(found, data), found)

    def human() -> None:
        view = Table("field", "kind", "levels", "unit", "meaning", box=None)
        for f in found.fields:
            planned = f"{f.binning.bins} {f.binning.method} bins" if f.binning else ""
            levels = str(len(f.levels)) if f.fitted else planned
            view.add_row(f.name, f.kind, levels, f.unit, f.description)
        out.print(view)
        out.print(
            f"target {found.target.name}: good {found.target.good!r}, bad {found.target.bad!r}; "
            f"costs {found.target.cost_false_good:g} to {found.target.cost_false_bad:g}"
        )
        out.print(
            f"schema {found.name!r} is valid" + (f"; {facts['rows']} rows fit it" if data else "")
        )

    show(facts, as_json, human)
