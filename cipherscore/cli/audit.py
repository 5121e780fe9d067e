"""``cipherscore audit``: what an informed attacker reads from token tables and from models."""

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
    names,
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
    cuts: Annotated[int | None, typer.Option(help="Times the table is cut in two for the attacks on tokens and on answers [default: 20, fewer for large tables].", min=1)] = None,
    draws: Annotated[int, typer.Option(help="Times each row is written, where the schema asks for smoothing.", min=1)] = 1,
    seed: SeedOption = 0,
    only: Annotated[str | None, typer.Option(help="Sections to run, with commas: tokens, requests, classifier, generator [default: all].")] = None,
    shadows: Annotated[int | None, typer.Option(help="Classifiers trained for the membership attacks [default: by the table's size].", min=4)] = None,
    generators: Annotated[int | None, typer.Option(help="Generators trained for the membership attacks [default: by the table's size].", min=4)] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a classifier's training to attack as well; needs --tokens.")] = None,
    generator: Annotated[Path | None, typer.Option(help="Folder of a generator's training to attack as well; needs --tokens.")] = None,
    tokens: Annotated[Path | None, typer.Option(help="The encrypted table that they were trained on.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Attack the encrypted table, the classifier and the generator, and report what is found.

    Tokens: half of the table is encrypted; the attacker gets its tokens and labels, and plain rows
    of the other half.  Models: the attacker asks them, and has plain rows of other people.  Reads
    plain values, so it runs on the data owner's side; nothing is sent anywhere.
    """
    from attacks.command import audit
    from attacks.request import GivenRuns, Request
    from attacks.tokens.study import KINDS
    from cipherscore.client.sources import find_table
    from cipherscore.schema_file import load_schema

    planned = load_schema(schema)
    source = find_table(planned, data, note)
    warn_if_synthetic(source)
    kinds = [kind for kind in KINDS if auxiliary is None or Sample(kind) in auxiliary]
    command = shlex.join(["cipherscore", *sys.argv[1:]])
    request = Request(
        planned, folder, kinds, cuts, seed, draws, fresh, command, names(only), shadows, generators,
        GivenRuns.of(tokens, model, generator),
    )  # fmt: skip
    with progress_bar("audit") as update:
        content = audit(request, source, update)
    show(_facts(content, folder), as_json, lambda: _print(content, folder))


def _facts(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    from attacks.sections import SECTIONS

    return {
        "html": str(folder / "audit.html"),
        "json": str(folder / "audit.json"),
        "warnings": content["warnings"],
        **{
            section.name: section.facts(content[section.name])
            for section in SECTIONS
            if section.name in content
        },
    }


def _print(content: dict[str, Any], folder: Path) -> None:
    from attacks.sections import SECTIONS

    for text in content["warnings"]:
        err.print(text, style="bold yellow", markup=False)
    for section in SECTIONS:
        for line in section.lines(content[section.name]) if section.name in content else ():
            out.print(line, markup=False)
    out.print(f"report: {folder / 'audit.html'} and {folder / 'audit.json'}", markup=False)
