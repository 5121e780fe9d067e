"""How fast a table is encrypted, on one core, beside writing the same table without encryption.

    python -m benchmarks.encryption --rows 1000000

Cases, each in a process of its own: an Arrow table in memory to a token Parquet file (`arrow`); the
same with smoothing, no token above 5 % of the rows (`smoothed`); the same table to Parquet with
plain dictionary columns, the floor (`plain`); a CSV file in a stream to a token Parquet file
(`csv`).  The rows are drawn from the raw table with replacement.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import typer

from cipherscore.client.encrypt import encrypt_table
from cipherscore.client.keys import Keyset
from cipherscore.client.sources import find_table, from_arrow
from cipherscore.schema import Schema, Scorecards, Smoothing
from cipherscore.schema_file import load_schema
from cipherscore.scorecards import planned_fields

SCHEMA = "german-credit"
MOST_SHARE = 0.05


def enlarged(schema: Schema, data: Path | None, rows: int) -> pa.Table:
    """Return ``rows`` rows of the raw table: numbers as float64, categories as text."""
    table = pa.Table.from_batches(list(find_table(schema, data).batches()))
    chosen = np.random.Generator(np.random.PCG64(0)).integers(0, len(table), rows)
    table = table.take(pa.array(chosen))
    columns = [
        table[f.name].cast(pa.float64()) if f.kind == "numeric" else table[f.name]
        for f in schema.fields
    ]
    names = [f.name for f in schema.fields]
    return pa.table([*columns, table[schema.target.name]], [*names, schema.target.name])


def arrow(table: pa.Table, schema: Schema, folder: Path) -> None:
    """Encrypt the table in memory; bins are fitted too."""
    encrypt_table(from_arrow(table), schema, Keyset.create(), folder / "tokens.parquet")


def smoothed(table: pa.Table, schema: Schema, folder: Path) -> None:
    """Encrypt the table in memory; bins and homophones are fitted too."""
    fields = tuple(replace(f, smoothing=Smoothing(MOST_SHARE)) for f in schema.fields)
    encrypt_table(
        from_arrow(table), replace(schema, fields=fields), Keyset.create(), folder / "s.parquet"
    )


def scorecards(table: pa.Table, schema: Schema, folder: Path) -> None:
    """Encrypt the table in memory, summed up to scorecards; bins and points are fitted too."""
    cards = replace(schema, fields=planned_fields(2, 8), scorecards=Scorecards(schema.fields))
    encrypt_table(from_arrow(table), cards, Keyset.create(), folder / "t.parquet")


def plain(table: pa.Table, schema: Schema, folder: Path) -> None:
    """Write the same columns as they are."""
    del schema
    pq.write_table(table, folder / "plain.parquet", compression="zstd", write_statistics=False)


def csv(table: pa.Table, schema: Schema, folder: Path) -> None:
    """Encrypt the table from a CSV file."""
    del table
    encrypt_table(
        find_table(schema, folder / "table.csv"), schema, Keyset.create(), folder / "c.parquet"
    )


CASES: dict[str, Callable[[pa.Table, Schema, Path], None]] = {
    "arrow": arrow, "smoothed": smoothed, "scorecards": scorecards, "plain": plain, "csv": csv,
}  # fmt: skip


def prepare(data: Path | None, rows: int, folder: Path) -> None:
    """Write the table as CSV."""
    pacsv.write_csv(enlarged(load_schema(SCHEMA), data, rows), folder / "table.csv")


def measure(name: str, data: Path | None, rows: int, folder: Path, answers: object) -> None:
    """Run one case on one core; put (seconds, peak MB with the table, peak MB before the case)."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    schema = load_schema(SCHEMA)
    table = enlarged(schema, data, 1000 if name == "csv" else rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    CASES[name](table, schema, folder)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers.put((seconds, peak / 1024, before / 1024))  # type: ignore[attr-defined]


def main(
    data: Annotated[Path | None, typer.Option(help="Raw table, file or folder.")] = None,
    rows: Annotated[int, typer.Option(help="Rows.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 3,
) -> None:
    """Print seconds, rates, peak memory and the ratio to the plain write as JSON."""
    context = multiprocessing.get_context("spawn")
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Not in this process: a child starts with the peak memory of its parent.
        child = context.Process(target=prepare, args=(data, rows, folder))
        child.start()
        child.join()
        for _ in range(rounds):
            for name, found in results.items():
                answers = context.Queue()
                child = context.Process(target=measure, args=(name, data, rows, folder, answers))
                child.start()
                found.append(answers.get())
                child.join()
    report: dict[str, object] = {"rows": rows, "fields": len(load_schema(SCHEMA).fields)}
    floor = statistics.median(seconds for seconds, _, _ in results["plain"])
    for name, found in results.items():
        seconds = statistics.median(entry[0] for entry in found)
        report[name] = {
            "seconds": round(seconds, 3),
            "all_seconds": [round(entry[0], 3) for entry in found],
            "rows_per_second": round(rows / seconds),
            "times_plain_write": round(seconds / floor, 2),
            "peak_mb": round(max(entry[1] for entry in found)),
            "of_which_before_mb": round(max(entry[2] for entry in found)),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
