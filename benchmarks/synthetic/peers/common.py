"""What every source of rows does in its own environment: read a table, make rows, say the cost.

A source's module hands `run` a function; called as ``python -m MODULE TASK_FOLDER``.  The folder
holds ``task.json`` and ``train.csv``; ``rows.csv`` and ``cost.json`` are written into it.  Needs
NumPy and pandas only.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Task = dict[str, Any]
"""``method``, ``settings``, ``label`` (its column), ``numeric`` (columns), ``rows``, ``seed``."""


def run(make: Callable[[pd.DataFrame, Task], pd.DataFrame]) -> None:
    """Make rows as the task says and write them and what they cost.

    ``make`` takes the training rows (texts, and float64 in numeric columns, NaN = absent) and the
    task, and returns as many rows as ``task["rows"]`` of the same columns.  Seconds and peak memory
    are those of ``make`` and of the whole process.
    """
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    table = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    for name in task["numeric"]:
        table[name] = pd.to_numeric(table[name].replace("", None)).astype(float)
    random.seed(task["seed"])
    np.random.seed(task["seed"])  # noqa: NPY002 - the peers draw from NumPy's global generator
    begun = time.perf_counter()
    rows = make(table, task)
    cost = {"train_seconds": time.perf_counter() - begun, "peak_mb": _peak_mb()}
    rows[list(table)].to_csv(folder / "rows.csv", index=False)
    (folder / "cost.json").write_text(json.dumps(cost))


def _peak_mb() -> float:
    """Return the most memory this process held, in MB; a parent's does not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not say VmHWM in /proc/self/status; run it on Linux")
