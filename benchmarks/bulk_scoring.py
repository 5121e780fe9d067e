"""Bulk scoring on one machine: rows per second, and memory as the table grows.

    python -m benchmarks.bulk_scoring --out OUT --rows 1000000 --rows 4000000 --rows 16000000

Token tables of German Credit's shape with random tokens are scored by the local engine, each in a
process of its own, with the 0.94 M-parameter network of `benchmarks.serving`.  Peak memory is that
of the process, anonymous memory apart: the rest is mapped file pages, which the kernel takes back.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.serving.model import make
from benchmarks.serving.rows import KEY_ID, SIZES, vocabulary
from cipherscore.dataset import arrow_schema
from registry.store import Registry

GROUP_ROWS = 131_072
_STATUS = Path("/proc/self/status")


def write_table(path: Path, rows: int, home: Path) -> None:
    """Write a token table of ``rows`` random rows, group by group."""
    registry = Registry(home)
    version = registry.production(registry.names()[0])
    schema = arrow_schema(version.schema(), KEY_ID, 0, labelled=False)
    tokens = vocabulary().tokens
    random = np.random.default_rng(0)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, GROUP_ROWS):
            count = min(GROUP_ROWS, rows - start)
            arrays = [
                pa.DictionaryArray.from_arrays(
                    pa.array(random.integers(0, SIZES[field], count), pa.int16()),
                    pa.array(tokens[field], pa.binary()),
                )
                for field in schema.names
            ]
            writer.write_table(pa.table(arrays, schema=schema), GROUP_ROWS)


def measure(table: Path, out: Path, precision: str) -> None:
    """Score ``table`` and print seconds and peak memory in MB, as JSON."""
    from serving.bulk.engines import run_local  # noqa: PLC0415 - in the measured process only
    from serving.bulk.job import Job  # noqa: PLC0415

    peak = {"VmRSS": 0, "RssAnon": 0}

    def sample() -> None:
        while True:
            found = dict(re.findall(r"(VmRSS|RssAnon):\s+(\d+)", _STATUS.read_text()))
            for name, value in found.items():
                peak[name] = max(peak[name], int(value) // 1024)
            time.sleep(0.02)

    threading.Thread(target=sample, daemon=True).start()
    registry = Registry()
    job = Job.of(table, registry.production(registry.names()[0]).tag, precision)
    started = time.perf_counter()
    run_local(job, out, job.begin(out), "cpu", lambda _: None)
    print(json.dumps({"seconds": time.perf_counter() - started, **peak}))


def main(
    out: Annotated[Path, typer.Option(help="Folder for tables and answers.")],
    rows: Annotated[list[int], typer.Option(help="Rows of a table; several.")] = [  # noqa: B006
        1_000_000,
        4_000_000,
        16_000_000,
    ],
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "int8",
) -> None:
    """Make the tables, score them, print a line for each."""
    files = make(out / "model")
    environment = {**os.environ, "BENTOML_HOME": str(files.home)}
    print(
        f"{'rows':>12} {'file MB':>8} {'seconds':>8} {'rows/s':>9} {'peak MB':>8} {'anonymous':>10}"
    )
    for count in rows:
        table = out / f"tokens-{count}.parquet"
        if not table.exists():
            write_table(table, count, files.home)
        target = out / f"scores-{count}-{time.time_ns()}"
        code = (
            "from pathlib import Path; from benchmarks.bulk_scoring import measure; "
            f"measure(Path({str(table)!r}), Path({str(target)!r}), {precision!r})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{count:>12} {table.stat().st_size >> 20:>8} {found['seconds']:>8.1f} "
            f"{count / found['seconds']:>9.0f} {found['VmRSS']:>8} {found['RssAnon']:>10}"
        )


if __name__ == "__main__":
    typer.run(main)
