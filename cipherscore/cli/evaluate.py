"""``cipherscore evaluate``: the report on a model, made where values can be read."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cipherscore.cli.common import (
    DEFAULT_SCHEMA,
    JsonOption,
    SeedOption,
    err,
    note,
    out,
    progress_bar,
    show,
)
from cipherscore.cli.owner import DataOption, SchemaOption, warn_if_synthetic

if TYPE_CHECKING:
    from cipherscore.client.sources import RawTable
    from cipherscore.schema import Schema


def evaluate(
    folder: Annotated[Path, typer.Option("--out", help="Folder of the report; an interrupted evaluation goes on there.")],
    schema: SchemaOption = DEFAULT_SCHEMA,
    data: DataOption = None,
    preset: Annotated[str, typer.Option(help="default or capstone.")] = "default",
    seed: SeedOption = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: five folds once, fewer seeds.")] = False,
    repeats: Annotated[int | None, typer.Option(help="Repeats of the folds [default: by the table's size].", min=1)] = None,
    folds: Annotated[int | None, typer.Option(help="Folds [default: by the table's size].", min=2)] = None,
    methods: Annotated[str | None, typer.Option(help="Methods to compare with, with commas: plain, logistic, forest, boosting, keras, capstone [default: all].")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Cross-validate the classifier on tokens beside its peers and write report.html and report.json.

    Reads plain values, so it runs on the data owner's side; nothing is sent anywhere.  Both files
    hold aggregates only.  Interrupt it, start it again: it goes on.
    """
    from cipherscore.client.sources import find_table
    from cipherscore.schema_file import load_schema
    from evaluation.command import Request, evaluate

    def find(wanted: Schema) -> RawTable:
        return find_table(wanted, data, note)

    planned = load_schema(schema)
    warn_if_synthetic(find(planned))
    request = Request(
        planned, preset, folder, seed=seed, quick=quick, repeats=repeats, folds=folds, fresh=fresh,
        methods=None if methods is None else tuple(methods.replace(",", " ").split()),
        command=shlex.join(["cipherscore", *sys.argv[1:]]),
    )  # fmt: skip
    with progress_bar("evaluate") as update:
        content = evaluate(request, find, update)
    show(_facts(content, folder), as_json, lambda: _print(content, folder))


def _facts(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "html": str(folder / "report.html"),
        "json": str(folder / "report.json"),
        "warnings": content["warnings"],
        "headline": content["classifier"]["headline"],
        "methods": {
            row["name"]: row["figures"]["auc"] for row in content["comparison"]["methods"]
        },
    }  # fmt: skip


def _print(content: dict[str, Any], folder: Path) -> None:
    for text in content["warnings"]:
        err.print(text, style="bold yellow", markup=False)
    for row in content["comparison"]["methods"]:
        auc = row["figures"]["auc"]
        reach = "" if auc["low"] is None else f"  [{auc['low']:.4f}, {auc['high']:.4f}]"
        method = f"{row['title']}, {row['sees']}"
        line = f"{method:<44} AUC {auc['mean']:.4f}{reach}  {row['folds']} folds"
        out.print(line, markup=False)
    out.print(f"report: {folder / 'report.html'} and {folder / 'report.json'}", markup=False)
