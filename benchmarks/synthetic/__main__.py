"""Synthetic rows of our generator beside its peers', on the same folds.

    python -m benchmarks.synthetic --data FILE_OR_FOLDER --out OUT [--schema NAME_OR_FILE]

Each fold is a fifth of the table: every source learns from the other four (label included), makes
rows, and all rows are judged by the same code against the fold.  Peers learn raw values, as their
users would give them, and their rows are binned by the fold's schema before they are measured; the
Bayesian network, which takes categories only, and our generator learn levels.

Rows and figures are kept in OUT, so an interrupted run goes on where it was.  A source whose code,
lock or settings have changed is made again if ``--sources`` names it; figures are measured again,
from kept rows, when the code that measures has changed.  OUT holds real rows of the table: it is
the owner's.  Writes ``result.json`` and ``result.md``, with a part for each table that was measured
into OUT.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.environments import CannotInstallError
from benchmarks.synthetic import judge, report
from benchmarks.synthetic.sources import BY_NAME, SOURCES, Maker, Source, SourceError
from benchmarks.synthetic.tables import FoldTables
from cipherscore.client.sources import find_table
from cipherscore.errors import DataError
from cipherscore.files import write_bytes, write_json
from cipherscore.schema_file import load_schema
from evaluation.folds import RawData, folds
from evaluation.store import Store
from training.fidelity import copy_rate

PARTS = 5


class Run:
    """The measurements of one table.

    Args:
        raw: The table.
        count: How many of the five folds to measure.
        seed: Of the folds and of every source.
        preset: Parameter set of our generator.
        out: Folder of rows and figures.
    """

    def __init__(self, raw: RawData, count: int, seed: int, preset: str, out: Path) -> None:
        self._raw = raw
        self._folds = [FoldTables(raw, fold) for fold in folds(raw, 1, PARTS, seed)][:count]
        self._store = Store(out / "folds.json")
        self._maker = Maker(out / "rows", seed, preset)
        self.failures: dict[str, str] = {}

    def measure(self, chosen: Sequence[Source]) -> None:
        """Make and judge what is missing; sources not ``chosen`` are judged if rows are kept."""
        with threadpool_limits(1):
            for fold in self._folds:
                for source in SOURCES:
                    try:
                        self._measure(source, fold, make=source in chosen)
                    except (SourceError, CannotInstallError, DataError) as error:
                        self.failures[source.name] = str(error)
                        self._say(fold, source, f"failed: {error}")

    def figures(self) -> dict[str, list[dict[str, float]]]:
        """Return the figures by fold of each source that was measured on all folds."""
        found = {}
        for source in SOURCES:
            kept = [self._kept(source, fold) for fold in self._folds]
            if all(kept):
                found[source.name] = [entry["figures"] for entry in kept]
        return found

    def facts(self) -> dict[str, Any]:
        """Return what describes the run for the report."""
        learned = len(self._folds[0].fold.train)
        return {
            "rows_learned": learned,
            "rows_tested": self._raw.rows - learned,
            "known_rows": [copy_rate(fold.tests, fold.learned) for fold in self._folds],
            "settings": {s.name: self._maker.settings(s, learned) for s in SOURCES},
            "failures": self.failures,
        }

    def _measure(self, source: Source, fold: FoldTables, *, make: bool) -> None:
        kept = self._kept(source, fold)
        if kept:
            return
        made = self._maker.kept(source, fold)
        if made is None:
            if not make:
                return
            made = self._maker.make(source, fold)
        kept["figures"] = figures = judge.judge(source, made, fold)
        self._store.save()
        seconds = made.cost.get("train_seconds", 0.0)
        self._say(fold, source, f"TSTR {figures['tstr_auc']:.3f}, made in {seconds:.0f} s")

    def _kept(self, source: Source, fold: FoldTables) -> dict[str, Any]:
        identity = {"made": self._maker.identity(source, fold), "judge": judge.code()}
        part = f"{self._raw.schema.name}/{fold.fold.number}/{source.name}"
        return self._store.part(part, identity)

    def _say(self, fold: FoldTables, source: Source, text: str) -> None:
        where = f"{self._raw.schema.name}, fold {fold.fold.number + 1} of {len(self._folds)}"
        print(f"{where}: {source.name}: {text}", file=sys.stderr, flush=True)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.synthetic", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, help="raw table; see `cipherscore data --help`")
    parser.add_argument("--schema", default="german-credit", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and report")
    parser.add_argument(
        "--sources", default=",".join(BY_NAME), help="what to make, by commas; default: all"
    )
    parser.add_argument("--folds", type=int, choices=range(1, PARTS + 1), default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="default", help="of our generator")
    parser.add_argument("--summary", type=Path, help="JSON file to bring up to date")
    options = parser.parse_args(arguments)
    options.sources = options.sources.split(",")
    if unknown := [name for name in options.sources if name not in BY_NAME]:
        parser.error(f"--sources: {unknown[0]!r} is unknown; use {', '.join(BY_NAME)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    options = _arguments(arguments)
    schema = load_schema(options.schema)
    raw = RawData.read(schema, find_table(schema, options.data))
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(raw, options.folds, options.seed, options.preset, options.out)
    run.measure([BY_NAME[name] for name in options.sources])
    dataset = {
        "made": dt.datetime.now(dt.UTC).date().isoformat(),
        "folds": options.folds,
        "seed": options.seed,
        **run.facts(),
        "figures": run.figures(),
    }
    path = options.out / "result.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result[schema.name] = dataset
    write_json(path, result)
    text = report.markdown(result)
    write_bytes(options.out / "result.md", text.encode())
    if options.summary:
        known = json.loads(options.summary.read_text()) if options.summary.exists() else {}
        write_json(options.summary, report.merged(known, schema.name, dataset))
    print(text)
    return 1 if run.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
