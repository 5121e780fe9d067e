"""SDMetrics' quality report of two tables: ``python -m MODULE FOLDER``.

The folder holds ``real.csv``, ``synthetic.csv`` and ``metadata.json`` (column to ``numerical`` or
``categorical``); ``scores.json`` is written into it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from sdmetrics.reports.single_table import QualityReport


def main() -> None:
    """Write the scores of column shapes and column pair trends, 1 is best."""
    folder = Path(sys.argv[1])
    kinds = json.loads((folder / "metadata.json").read_text())
    real, synthetic = (_read(folder / f"{name}.csv", kinds) for name in ("real", "synthetic"))
    report = QualityReport()
    metadata = {"columns": {name: {"sdtype": kind} for name, kind in kinds.items()}}
    report.generate(real, synthetic, metadata, verbose=False)
    found = report.get_properties().set_index("Property")["Score"]
    scores = {
        "columns": float(found["Column Shapes"]),
        "pairs": float(found["Column Pair Trends"]),
    }
    (folder / "scores.json").write_text(json.dumps(scores))


def _read(path: Path, kinds: dict[str, str]) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name, kind in kinds.items():
        if kind == "numerical":
            table[name] = pd.to_numeric(table[name].replace("", None)).astype(float)
    return table


if __name__ == "__main__":
    main()
