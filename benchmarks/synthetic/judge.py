"""All figures of one source's rows on one fold, the same code for every source."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from benchmarks import environments
from benchmarks.synthetic import tables
from benchmarks.synthetic.sources import PEERS, Made, Source, run_module
from benchmarks.synthetic.tables import FoldTables, Table
from cipherscore.files import write_json
from training import disclosure, fidelity
from training.fidelity import Rows

_SDMETRICS = PEERS / "sdmetrics"
Figures = dict[str, float]


def judge(source: Source, made: Made, fold: FoldTables) -> Figures:
    """Return a source's figures, those of ``made.cost`` among them.

    Raises:
        DataError: The rows lack a column or hold an unknown label.
        SourceError: SDMetrics failed.
        CannotInstallError: Its environment cannot be made.
    """
    found = fold.judged(made.table, raw=source.raw)
    figures = own_figures(found.rows, fold.learned, fold.tests, fold.sizes)
    figures["validity"] = float(found.valid.mean())
    tests = tables.take(fold.all_levels, fold.fold.test)
    names = ("sdmetrics_columns", "sdmetrics_pairs")
    scores = sdmetrics(tests, found.levels, dict.fromkeys(tests, "categorical"))
    figures.update(zip(names, scores, strict=True))
    if source.raw:
        kinds = {name: "numerical" if name in fold.numeric else "categorical" for name in tests}
        scores = sdmetrics(tables.take(fold.all_values, fold.fold.test), made.table, kinds)
        figures.update(zip((f"{name}_raw" for name in names), scores, strict=True))
    return {**figures, **made.cost}


def own_figures(rows: Rows, learned: Rows, tests: Rows, sizes: Sequence[int]) -> Figures:
    """Return what this project's own code measures.

    Args:
        rows: Synthetic rows.
        learned: Rows they were learned from.
        tests: Rows that no source saw.
        sizes: Columns of each field.
    """
    columns, pairs = fidelity.fidelity(tests, rows, sizes)
    count = fidelity.tstr_rows(len(learned.label))
    return {
        "tstr_auc": fidelity.tstr_auc(rows, tests, sizes, count),
        "tstr_boosted_auc": fidelity.tstr_auc(rows, tests, sizes, count, boosted=True),
        "column_fidelity": columns,
        "pair_fidelity": pairs,
        "detection_auc": disclosure.detection_auc(rows, tests, sizes),
        "rare_coverage": disclosure.rare_coverage(rows, learned, sizes),
        "closeness_share": fidelity.closeness_share(rows, learned, tests, sizes),
        "copy_rate": fidelity.copy_rate(rows, learned),
        "membership_auc": disclosure.membership_auc(rows, learned, tests, sizes),
    }


def sdmetrics(real: Table, synthetic: Table, kinds: Mapping[str, str]) -> tuple[float, float]:
    """Return SDMetrics' scores of column shapes and of column pair trends.

    Args:
        real: Rows that no source saw.
        synthetic: Made rows of the same columns.
        kinds: Column to ``categorical`` or ``numerical``.

    Raises:
        SourceError: It failed.
        CannotInstallError: Its environment cannot be made.
    """
    program = environments.ensure(_SDMETRICS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables.write(real, folder / "real.csv")
        tables.write(synthetic, folder / "synthetic.csv")
        write_json(folder / "metadata.json", dict(kinds))
        run_module(program, "benchmarks.synthetic.peers.sdmetrics.scores", folder)
        scores = json.loads((folder / "scores.json").read_text())
    return scores["columns"], scores["pairs"]


@cache
def code() -> str:
    """Return a digest of all code and locked packages that make the figures from rows."""
    digest = hashlib.sha256()
    for path in (
        Path(str(fidelity.__file__)),
        Path(str(disclosure.__file__)),
        Path(str(tables.__file__)),
        Path(__file__),
        _SDMETRICS / "scores.py",
        _SDMETRICS / "requirements.txt",
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()
