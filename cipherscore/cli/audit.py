"""``cipherscore audit``: what a host that knows the population reads from a token table."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

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


class Sample(str, Enum):
    """Where the attacker's rows come from."""

    same = "same"
    shifted = "shifted"


def audit(
    folder: Annotated[Path, typer.Option("--out", help="Folder of the report; an interrupted audit goes on there.")],
    schema: SchemaOption = DEFAULT_SCHEMA,
    data: DataOption = None,
    auxiliary: Annotated[list[Sample] | None, typer.Option(help="The attacker's plain rows: from the same distribution, or shifted; may be repeated [default: both].")] = None,
    cuts: Annotated[int | None, typer.Option(help="Times the table is cut in two [default: 20, from 20,000 rows on 10].", min=1)] = None,
    draws: Annotated[int, typer.Option(help="Times each row is written, where the schema asks for smoothing.", min=1)] = 1,
    seed: SeedOption = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Attack the encrypted table as an informed host would, and report how many cells it names.

    Half of the table is encrypted; the attacker gets its tokens and labels, and plain rows of the
    other half.  Reads plain values, so it runs on the data owner's side; nothing is sent anywhere.
    """
    from attacks.command import Request, audit
    from attacks.token_study import KINDS
    from cipherscore.client.sources import find_table
    from cipherscore.schema_file import load_schema

    planned = load_schema(schema)
    source = find_table(planned, data, note)
    warn_if_synthetic(source)
    kinds = [kind for kind in KINDS if auxiliary is None or Sample(kind) in auxiliary]
    command = shlex.join(["cipherscore", *sys.argv[1:]])
    request = Request(planned, folder, kinds, cuts, seed, draws, fresh, command)
    with progress_bar("audit") as update:
        content = audit(request, source, update)
    show(_facts(content, folder), as_json, lambda: _print(content, folder))


def _facts(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "html": str(folder / "audit.html"),
        "json": str(folder / "audit.json"),
        "warnings": content["warnings"],
        "cells_recovered": [
            {
                "auxiliary": sample["kind"],
                "share": sample["share"],
                "rows": sample["rows"],
                **{name: found["cells"] for name, found in sample["attacks"].items()},
            }
            for sample in content["tokens"]["samples"]
        ],
    }


def _print(content: dict[str, Any], folder: Path) -> None:
    for text in content["warnings"]:
        err.print(text, style="bold yellow", markup=False)
    samples = content["tokens"]["samples"]
    heads = "".join(f"{s['kind']:>9} {s['share']:<4.0%}" for s in samples)
    out.print(f"{'cells named correctly':<40}{heads}", markup=False)
    for attack in content["tokens"]["attacks"]:
        found = [sample["attacks"][attack["name"]]["cells"]["mean"] for sample in samples]
        cells = "".join(f"{value:>13.1%} " for value in found)
        out.print(f"{attack['title']:<40}{cells}", markup=False)
    out.print(f"report: {folder / 'audit.html'} and {folder / 'audit.json'}", markup=False)
