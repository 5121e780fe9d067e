"""What the model alone does in a process, pinned to the server's core: the limit of any server.

    python -m benchmarks.serving.inprocess MODEL --core 0 --batches 1,1000 --seconds 2

Prints rows per second by batch size as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

_SLACK_SECONDS = 120.0


def limits(model: Path, core: int, batches: Sequence[int], seconds: float) -> dict[int, float]:
    """Return rows per second by batch size, measured in a process of its own.

    Raises:
        subprocess.SubprocessError: It failed.
    """
    command = [
        sys.executable, "-m", "benchmarks.serving.inprocess", str(model), "--core", str(core),
        "--batches", ",".join(map(str, batches)), "--seconds", str(seconds),
    ]  # fmt: skip
    limit = _SLACK_SECONDS + 2 * seconds * len(batches)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
    return {int(batch): float(rate) for batch, rate in json.loads(done.stdout).items()}


def main(
    model: Path,
    core: Annotated[int, typer.Option(help="Core to run on.")] = 0,
    batches: Annotated[str, typer.Option(help="Batch sizes.")] = "1,1000",
    seconds: Annotated[float, typer.Option(help="Seconds for each.")] = 2.0,
) -> None:
    """Measure."""
    os.sched_setaffinity(0, {core})
    # After the pinning: ONNX Runtime looks at the affinity when it is loaded.
    import onnxruntime  # noqa: PLC0415

    from benchmarks.serving.rows import random_indices  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    found = {}
    for batch in map(int, batches.split(",")):
        feed = {"indices": random_indices(batch, batch)}
        _timed(lambda feed=feed: session.run(None, feed), seconds / 4)
        found[batch] = batch * _timed(lambda feed=feed: session.run(None, feed), seconds)
    print(json.dumps(found))


def _timed(run: object, seconds: float) -> float:
    """Return calls of ``run`` per second."""
    assert callable(run)
    calls, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds or not calls:
        run()
        calls += 1
    return calls / (now - start) if now > start else 0.0


if __name__ == "__main__":
    typer.run(main)
