"""Does the exported model answer as its source does?  An export that differs is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cipherscore.errors import ExportError, ParityError

TOLERANCE = 1e-5
"""Largest accepted difference of a float output."""


@dataclass(frozen=True)
class ParityReport:
    """Result of a comparison that passed.

    Args:
        max_abs_diff: Largest absolute difference over all compared floats.
        rows: Rows compared.
    """

    max_abs_diff: float
    rows: int


def check(
    expected: np.ndarray, exported: np.ndarray, *, tolerance: float = TOLERANCE
) -> ParityReport:
    """Compare two float outputs of the same shape, rows first.

    Raises:
        ParityError: Another shape, no row, a value that is not finite, or a difference above
            ``tolerance``.
    """
    if expected.shape != exported.shape or not len(expected):
        raise ParityError(
            f"the exported model answers with shape {exported.shape}, its source with "
            f"{expected.shape}; both need the same, and at least one row"
        )
    if not (np.isfinite(expected).all() and np.isfinite(exported).all()):
        raise ParityError("the model, or its export, answers with a value that is not finite")
    difference = float(np.abs(expected.astype(np.float64) - exported.astype(np.float64)).max())
    if difference > tolerance:
        raise ParityError(
            f"the exported model differs from its source by {difference:.3g}, more than "
            f"{tolerance:g}, over {len(expected)} rows"
        )
    return ParityReport(difference, len(expected))


def run_onnx(
    path: Path, inputs: Mapping[str, np.ndarray], outputs: list[str], *, chunk: int = 4096
) -> list[np.ndarray]:
    """Run an ONNX model on the CPU with one thread, ``chunk`` rows at a time.

    Args:
        path: The model.
        inputs: Input name to its rows; all of equal length.
        outputs: Names of the wanted outputs.
        chunk: Rows per run; it bounds memory.

    Raises:
        ExportError: ONNX Runtime cannot load or run the model.
    """
    import onnxruntime  # noqa: PLC0415 - loads slowly, and only an export needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    rows = len(next(iter(inputs.values())))
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        parts: list[list[Any]] = [
            session.run(outputs, {k: v[start : start + chunk] for k, v in inputs.items()})
            for start in range(0, rows, chunk)
        ]
    except Exception as error:
        # ONNX Runtime's exceptions have no common base below `Exception`.
        raise ExportError(f"{path}: ONNX Runtime cannot run the model: {error}") from error
    return [np.concatenate([part[i] for part in parts]) for i in range(len(outputs))]
