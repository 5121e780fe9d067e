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
    names,
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
    only: Annotated[str | None, typer.Option(help="Parts to run, with commas: classifier, synthetic, imbalance [default: all].")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Cross-validate the classifier on tokens beside its peers, measure synthetic rows, and report.

    Reads plain values, so it runs on the data owner's side; nothing is sent anywhere.  report.html
    and report.json hold aggregates only.  Interrupt it, start it again: it goes on.
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
        methods=names(methods), only=names(only),
        command=shlex.join(["cipherscore", *sys.argv[1:]]),
    )  # fmt: skip
    with progress_bar("evaluate") as update:
        content = evaluate(request, find, update)
    show(_facts(content, folder), as_json, lambda: _print(content, folder))


def _facts(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "html": str(folder / "report.html"),
        "json": str(folder / "report.json"),
        "warnings": content["warnings"],
    }
    if content["classifier"]:
        facts["headline"] = content["classifier"]["headline"]
        facts["methods"] = {
            row["name"]: row["figures"]["auc"] for row in content["comparison"]["methods"]
        }
    if content["synthetic"]:
        facts["synthetic"] = {
            row["name"]: row["figures"] for row in content["synthetic"]["sources"]
        }
    if content["imbalance"]:
        facts["imbalance"] = content["imbalance"]["findings"]
    return facts


def _print(content: dict[str, Any], folder: Path) -> None:
    for text in content["warnings"]:
        err.print(text, style="bold yellow", markup=False)
    for row in (content["comparison"] or {"methods": ()})["methods"]:
        _print_auc(f"{row['title']}, {row['sees']}", "AUC", row["figures"]["auc"])
    for row in (content["synthetic"] or {"sources": ()})["sources"]:
        _print_auc(f"trained on {row['title']}", "TSTR AUC", row["figures"]["tstr_auc"])
    for row in (content["imbalance"] or {"methods": ()})["methods"]:
        _print_auc(f"classes balanced by {row['title']}", "AUC", row["figures"]["auc"])
    out.print(f"report: {folder / 'report.html'} and {folder / 'report.json'}", markup=False)


def _print_auc(what: str, name: str, auc: dict[str, Any]) -> None:
    reach = "" if auc["low"] is None else f"  [{auc['low']:.4f}, {auc['high']:.4f}]"
    line = f"{what:<52} {name} {auc['mean']:.4f}{reach}  {auc['folds']} folds"
    out.print(line, markup=False)
