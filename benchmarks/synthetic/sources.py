"""Where rows come from: real ones, independent columns, our generator and its peers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environments
from benchmarks.synthetic import tables
from benchmarks.synthetic.tables import FoldTables, Table
from cipherscore.files import write_bytes, write_json
from evaluation.code_digest import code_digest

PEERS = Path(__file__).parent / "peers"
OURS = "ours"
REAL = "real"
LEAST_DRAWN = 5_000
EPOCHS = 300
"""Of CTGAN and TVAE, the library's default."""
MOST_ROWS_SEEN = 1_200_000
"""Training rows times epochs; longer tables get fewer epochs, so that a fit takes minutes."""


class SourceError(Exception):
    """A source made no rows; the message says why in a line."""


@dataclass(frozen=True)
class Source:
    """One source of rows.

    Attributes:
        name: Short name.
        title: Name in the report.
        peer: Folder of its code, and of its environment unless it is ours, below ``peers``; empty:
            made here.
        raw: Whether it learns and makes raw values; else levels.
        package: Package whose version the report names.
        method: What its code calls it.
        epochs: Whether it learns in epochs of which a long table gets fewer.
        settings: What differs from its library's defaults.
    """

    name: str
    title: str
    peer: str = ""
    raw: bool = True
    package: str = ""
    method: str = ""
    epochs: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def compared(self) -> bool:
        """Whether it is a peer of ours."""
        return self.peer not in ("", OURS)

    @property
    def version(self) -> str:
        """Package and version; empty where it has none."""
        return (
            f"{self.package} {environments.versions(PEERS / self.peer)[self.package]}"
            if self.package
            else ""
        )


_CPU = {"enable_gpu": False}
_RAW_PEERS = (
    Source("ctgan", "CTGAN", "sdv", package="ctgan", method="ctgan", epochs=True, settings=_CPU),
    Source("tvae", "TVAE", "sdv", package="ctgan", method="tvae", epochs=True, settings=_CPU),
    Source("copula", "Gaussian copula", "sdv", package="copulas", method="copula"),
    Source("forest", "adversarial forest", "trees", package="arfpy", method="forest"),
    Source("cart", "sequential CART", "trees", package="scikit-learn", method="cart"),
)
SOURCES = (
    Source(REAL, "real training rows"),
    Source("independent", "independent columns"),
    Source(OURS, "CipherScore", OURS, raw=False),
    Source("bayes", "Bayesian network", "pgmpy", raw=False, package="pgmpy"),
    *_RAW_PEERS,
    *(
        replace(peer, name=f"{peer.name}-levels", title=f"{peer.title}, on levels", raw=False)
        for peer in _RAW_PEERS
        if peer.name != "copula"  # it needs numbers
    ),
)
BY_NAME = {source.name: source for source in SOURCES}


@dataclass(frozen=True)
class Made:
    """Rows a source made for a fold, and what they cost (seconds, MB)."""

    table: Table
    cost: Mapping[str, float]


class Maker:
    """Makes rows, and keeps them below ``folder`` so that none are made twice.

    Args:
        folder: Where to keep them: real values of the table may be among them.
        seed: Same seed, table and locked environments: same rows.
        preset: Parameter set of our generator.
    """

    def __init__(self, folder: Path, seed: int, preset: str) -> None:
        self._folder, self._seed, self._preset = folder, seed, preset

    def settings(self, source: Source, learned_rows: int) -> dict[str, Any]:
        """Return what a source is told for a table of ``learned_rows`` training rows."""
        settings = dict(source.settings)
        if source.epochs:
            settings["epochs"] = epochs(learned_rows)
        if source.name == OURS:
            settings["preset"] = self._preset
        return settings

    def identity(self, source: Source, fold: FoldTables) -> dict[str, Any]:
        """Return all that decides what a source makes for a fold."""
        return {
            "data": fold.digest,
            "train": hashlib.sha256(fold.fold.train.tobytes()).hexdigest(),
            "seed": self._seed,
            "settings": self.settings(source, len(fold.fold.train)),
            "rows": drawn_rows(fold),
            "code": _code(source.name),
        }

    def kept(self, source: Source, fold: FoldTables) -> Made | None:
        """Return rows made earlier from the same things, or nothing."""
        rows, facts = self._paths(source, fold)
        try:
            found = json.loads(facts.read_text())
            if found["identity"] == self.identity(source, fold):
                return Made(tables.read(rows), found["cost"])
        except (OSError, ValueError, KeyError):
            pass
        return None

    def make(self, source: Source, fold: FoldTables) -> Made:
        """Make rows and keep them.

        Raises:
            SourceError: The source failed.
            CannotInstallError: Its environment cannot be made.
        """
        rows, facts = self._paths(source, fold)
        rows.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=rows.parent) as name:
            scratch = Path(name)
            if source.peer:
                self._run(source, fold, scratch)
            else:
                tables.write(_made_here(source, fold, self._seed), scratch / "rows.csv")
                write_json(scratch / "cost.json", {})
            write_bytes(rows, (scratch / "rows.csv").read_bytes(), 0o600)
            cost = json.loads((scratch / "cost.json").read_text())
        write_json(facts, {"identity": self.identity(source, fold), "cost": cost})
        return Made(tables.read(rows), cost)

    def _paths(self, source: Source, fold: FoldTables) -> tuple[Path, Path]:
        folder = self._folder / fold.raw.schema.name / str(fold.fold.number)
        return folder / f"{source.name}.csv", folder / f"{source.name}.json"

    def _run(self, source: Source, fold: FoldTables, scratch: Path) -> None:
        learned = fold.all_values if source.raw else fold.all_levels
        tables.write(tables.take(learned, fold.fold.train), scratch / "train.csv")
        task = {
            "method": source.method,
            "settings": self.settings(source, len(fold.fold.train)),
            "label": fold.label,
            "good": tables.GOOD,
            "bad": tables.BAD,
            "numeric": fold.numeric if source.raw else [],
            "rows": drawn_rows(fold),
            "seed": self._seed,
        }
        write_json(scratch / "task.json", task)
        program = (
            Path(sys.executable)
            if source.peer == OURS
            else environments.ensure(PEERS / source.peer)
        )
        run_module(program, f"benchmarks.synthetic.peers.{source.peer}.peer", scratch)


def epochs(learned_rows: int) -> int:
    """Return the epochs of CTGAN and TVAE for a table."""
    return max(1, min(EPOCHS, MOST_ROWS_SEEN // learned_rows))


def drawn_rows(fold: FoldTables) -> int:
    """Return how many rows a source makes: as many as it learned from, and not too few."""
    return max(LEAST_DRAWN, len(fold.fold.train))


def run_module(program: Path, module: str, folder: Path) -> None:
    """Run a peer's module on a folder, on one thread.

    Raises:
        SourceError: It failed.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON"))}
    environment = {
        **kept,
        **environments.ONE_THREAD,
        "PYTHONPATH": str(environments.ROOT),
        "PYTHONHASHSEED": "0",  # pgmpy goes through sets
        "PYTHONWARNINGS": "ignore",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [str(program), "-m", module, str(folder)],
        env=environment,
        cwd=environments.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise SourceError(lines[-1] if lines else f"exit code {done.returncode}")


def _made_here(source: Source, fold: FoldTables, seed: int) -> Table:
    """Return the training rows, or as many of columns drawn each by itself."""
    real = tables.take(fold.all_values, fold.fold.train)
    if source.name == REAL:
        return real
    random = np.random.default_rng(seed)
    return {name: random.choice(column, drawn_rows(fold)) for name, column in real.items()}


@cache
def _code(name: str) -> str:
    """Return a digest of the code and the locked packages that make a source's rows."""
    source = BY_NAME[name]
    if not source.peer:
        return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    folder = PEERS / source.peer
    digest = hashlib.sha256(
        code_digest("training.generator").encode() if source.peer == OURS else b""
    )
    for path in (PEERS / "common.py", *sorted(folder.glob("*.py")), *folder.glob("*.txt")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
