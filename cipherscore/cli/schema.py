"""``cipherscore schema``: infer, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cipherscore.cli.common import DEFAULT_SCHEMA, JsonOption, note, out, progress_bar, show
from cipherscore.errors import ConfigurationError

if TYPE_CHECKING:
    from cipherscore.schema import Field, Schema

app = typer.Typer(help="Schemas: describe a table's fields, bins and costs.", no_args_is_help=True)


@app.command()
def infer(
    table: Annotated[Path, typer.Argument(help="CSV (comma, semicolon, tab or bar; plain, gz, bz2 or xz), or Parquet.")],
    target: Annotated[str, typer.Option(help="Name of the good/bad column.")],
    bad: Annotated[list[str] | None, typer.Option(help="Its value for bad credit [default: the rarer of two]; several with commas or repeated.")] = None,
    good: Annotated[list[str] | None, typer.Option(help="Its values for good credit [default: the rest].")] = None,
    bad_below: Annotated[float | None, typer.Option(help="The target is a number; this or less is bad.")] = None,
    bad_above: Annotated[float | None, typer.Option(help="The target is a number; this or more is bad.")] = None,
    name: Annotated[str, typer.Option(help="Schema name [default: the file's name].")] = "",
    file: Annotated[Path, typer.Option("--out", help="TOML file to write.")] = Path("schema.toml"),
    bins: Annotated[int, typer.Option(help="Most bins of a numeric field [default: 4, or 64 from 2,000 rows].", min=0, max=64, show_default=False)] = 0,
    no_header: Annotated[bool, typer.Option("--no-header", help="Line one is data; the columns are called c1, c2, ...")] = False,
    group: Annotated[str, typer.Option(help="Column whose equal values keep rows in one part of the split; no field.")] = "",
    categorical: Annotated[list[str] | None, typer.Option(help="Column whose numbers are codes; may be repeated.")] = None,
    protected: Annotated[list[str] | None, typer.Option(help="Column by whose groups decisions are compared; may be repeated.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    drop_suspicious: Annotated[bool, typer.Option("--drop-suspicious", help="Leave out columns that seem to know the outcome.")] = False,
    scorecards: Annotated[int, typer.Option(help="Sum all columns up to this many scorecards, and encrypt only those (docs/scorecards.md).", min=0, max=64)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the split to be, as of `cipherscore encrypt`.", min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing schema file.")] = False,
) -> None:  # fmt: skip
    """Write a schema for your own table; read it, correct it, then `cipherscore encrypt` with it."""
    from cipherscore.client.inference import Options
    from cipherscore.client.inference import infer as infer_table
    from cipherscore.client.targets import Goal
    from cipherscore.schema_file import save_schema

    if file.exists() and not force:
        raise ConfigurationError(
            f"{file} exists and may hold your corrections; give another --out, or --force"
        )
    options = Options(
        Goal(tuple(good or ()), tuple(bad or ()), bad_below, bad_above),
        name=name,
        bins=bins,
        header=not no_header,
        group=group,
        categorical=tuple(categorical or ()),
        protected=tuple(protected or ()),
        drop=tuple(drop or ()),
        drop_suspicious=drop_suspicious,
        seed=seed,
        scorecards=scorecards,
    )
    with progress_bar("infer") as update:  # rows while reading, columns then
        found = infer_table(
            table, target, options, lambda done, total: update(done, total, {})
        )  # fmt: skip
    save_schema(found.schema, file, found.comments)
    for remark in found.remarks:
        note(remark)
    what = f"{len(found.schema.inputs)} " + ("attributes" if scorecards else "fields")
    out.print(f"{file}: schema {found.schema.name!r} with {what}")


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
        "group": found.group,
        "fields": [_facts(f) for f in found.fields],
    }
    cards = found.scorecards
    if cards is not None:
        facts["attributes"] = [
            {**_facts(f), "scorecard": cards.members.get(f.name)} for f in cards.attributes
        ]
    if data is not None:
        from cipherscore.client.checking import check_table
        from cipherscore.client.sources import find_table

        with progress_bar("check") as update:
            facts["rows"] = check_table(
                find_table(found, data), found, lambda rows: update(rows, 0, {})
            )

    def human() -> None:
        _print_fields(found)
        out.print(
            f"schema {found.name!r} is valid" + (f"; {facts['rows']} rows fit it" if data else "")
        )

    show(facts, as_json, human)


def _facts(f: Field) -> dict[str, Any]:
    levels = len(f.levels) if f.fitted else None
    return {"name": f.name, "kind": f.kind, "levels": levels, "tokens": _tokens(f)}


def _print_fields(found: Schema) -> None:
    cards = found.scorecards
    view = Table("field", "kind", "levels", "tokens", "unit", "meaning", box=None)
    for f in found.fields:
        levels = str(len(f.levels)) if f.fitted else _planned(f)
        view.add_row(f.name, f.kind, levels, str(_tokens(f) or ""), f.unit, f.description)
    out.print(view)
    if cards is not None:
        out.print("\nsums of points; not encrypted themselves:")
        view = Table("attribute", "kind", "levels", "scorecard", "points", "meaning", box=None)
        for f in cards.attributes:
            levels = str(len(f.levels)) if f.fitted else _planned(f)
            points = cards.points.get(f.name, {}).values()
            reach = f"{min(points)} to {max(points)}" if points else ""
            number = str(cards.members.get(f.name, ""))
            view.add_row(f.name, f.kind, levels, number, reach, f.description)
        out.print(view)
    target = found.target
    good, bad = [repr(target.good)], [repr(target.bad)]
    good += map(repr, target.also_good)
    bad += map(repr, target.also_bad)
    if target.bad_below is not None:
        bad = [f"{target.bad_below:g} or less"]
    if target.bad_above is not None:
        bad = [f"{target.bad_above:g} or more"]
    out.print(
        f"target {target.name}: good {', '.join(good)}, bad {', '.join(bad)}; "
        f"costs {target.cost_false_good:g} to {target.cost_false_bad:g}"
    )


def _tokens(f: Field) -> int | None:
    """Return how many tokens a field has; None where that is fitted later."""
    if not f.fitted or (f.smoothing is not None and not f.homophones):
        return None
    return sum(len(f.weights_of(level)) for level in f.levels)


def _planned(f: Field) -> str:
    if f.grouping:
        return f"up to {f.grouping.most} categories"
    return f"{f.binning.bins} {f.binning.method} bins" if f.binning else ""
