r"""Make the embedded synthetic sample from a running host; see `cipherscore run`.

    python scripts/make_sample.py var/owner/schema.toml var/owner/keyset.json \
        var/owner/passphrase FOLDER cipherscore/schemas/german-credit-sample.csv

The rows come from our own generator; a bin becomes a whole number drawn evenly from it, and a row
equal to a real one is drawn again.
"""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path
from typing import Annotated

import typer

from cipherscore.client import Client
from cipherscore.client.passphrase import load_keyset
from cipherscore.client.sources import find_table
from cipherscore.files import atomic_path
from cipherscore.schema import Schema
from cipherscore.schema_file import load_schema


def main(
    schema: Path,
    keyset: Path,
    passphrase_file: Path,
    data: Path,
    out: Path,
    address: Annotated[str, typer.Option()] = "127.0.0.1:50051",
    rows: Annotated[int, typer.Option()] = 1000,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write the sample."""
    fitted = load_schema(schema)
    names = [*fitted.by_name, fitted.target.name]
    draw = random.Random(seed)  # noqa: S311 - synthetic data
    real = {
        tuple(str(row[name]).strip() for name in names)
        for batch in find_table(fitted, data).batches()
        for row in batch.to_pylist()
    }
    with Client(load_keyset(keyset, passphrase_file), fitted, address) as client:
        made = client.generate(rows, seed=seed)
    table = []
    for levels in made:
        row = concrete(levels, fitted, draw)
        while tuple(row[name] for name in names) in real:
            row = concrete(levels, fitted, draw)
        table.append(row)
    with atomic_path(out) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    typer.echo(f"{rows} rows -> {out}; none equal to one of {len(real)} real rows")


def concrete(levels: dict[str, str | None], schema: Schema, draw: random.Random) -> dict[str, str]:
    """Return a raw record of these levels."""
    row = {}
    for name, level in levels.items():
        field = schema.by_name.get(name)
        if field is None or field.kind == "categorical":
            row[name] = level or ""
            continue
        place = field.levels.index(level or "")
        low, high = field.edges[place], field.edges[place + 1]
        last = place == len(field.edges) - 2
        row[name] = str(
            draw.randint(math.ceil(low), math.floor(high) if last else math.ceil(high) - 1)
        )
    return row


if __name__ == "__main__":
    typer.run(main)
