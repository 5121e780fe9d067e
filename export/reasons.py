"""Export a classifier's reason codes: what each field of a row contributes to its log-odds of bad.

The graph computes `training.attribution` in float32.  Four things make it cheap, so that a score
with reasons costs less than three without:

- The tables are moved by each field's mean row, so that a row's picked columns add up to
  ``z1 - z0``, and the mean needs no arithmetic of its own.
- Each field has one more column, for an unseen token; no index has to be compared with -1.
- With ``dz = z1 - z0`` the secant is ``|z0| / max(-dz, |z0|)`` where z0 >= 0, and
  ``1 - |z0| / max(dz, |z0|)`` where z0 < 0.  Signs and |z0| are multiplied into the first table, so
  that ``1 / max(row @ into, 1)`` is all that is computed for a unit.
- ``last``, the sign and the constant 1 are multiplied into the second table and the linear part,
  whose product with the units gives every column's contribution; a row picks its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cipherscore.dataset import TokenDataset
from cipherscore.errors import ExportError, ParityError
from cipherscore.files import write_bytes
from export import parity
from export.classifier import INPUT, OUTPUT, parity_rows
from export.onnx_file import BATCH, IR_VERSION, OPSET, finish
from training.attribution import OneHiddenLayer, has_closed_form, mean_row
from training.classifier import load_network
from training.evaluation import Floats
from training.runs import Run

CONTRIBUTION = "contribution"
BASE = "base"
"""Entry of the ONNX metadata: log-odds of bad credit of the mean training row."""

TOLERANCE = 1e-4
"""Largest accepted difference of a contribution to its exact value, in log-odds."""

_SMALLEST = 1e-12
"""Smallest |z0| that is divided by; a smaller one changes no contribution by more than this."""


@dataclass(frozen=True)
class Reasons:
    """How the exported reason codes compare.

    Attributes:
        max_abs_diff: Largest difference of a contribution to its exact value, in log-odds.
        completeness: Largest difference of base and contributions, added up and made a
            probability, to the exported classifier's.
        rows: Rows compared.
    """

    max_abs_diff: float
    completeness: float
    rows: int


def export_reasons(run: Run, dataset: TokenDataset, model: Path, target: Path) -> Reasons | None:
    """Write the reason codes' graph, compared with exact values and with the exported classifier.

    The graph takes ``indices`` as the classifier does and answers ``contribution`` float32
    [batch, fields], log-odds towards bad credit; its metadata hold ``base``.

    Args:
        run: A finished classifier training.
        dataset: The table it was trained on.
        model: The exported classifier.
        target: Where to write.

    Returns:
        How it compares; None, and no file, where the network has more than one hidden layer.

    Raises:
        ExportError: It cannot be made or run; no file is left.
        ParityError: It differs; no file is left.
    """
    network = load_network(run)
    if not has_closed_form(network):
        return None
    vocabulary = run.vocabulary()
    exact = OneHiddenLayer.of(network, vocabulary.sizes, mean_row(dataset, vocabulary))
    try:
        write(exact, run, target)
        return _compare(exact, target, model, parity_rows(dataset, vocabulary, run.seed))
    except ExportError:
        target.unlink(missing_ok=True)
        raise


def write(exact: OneHiddenLayer, run: Run, target: Path) -> None:
    """Write the graph of ``exact`` with the metadata of ``run`` and `BASE`, as one file.

    Raises:
        ExportError: It is not valid.
    """
    finish(to_onnx(exact), run, target)
    # The metadata that all exports share have no place for what only this one knows.
    model = onnx.load(target)
    model.metadata_props.add(key=BASE, value=repr(exact.base))
    write_bytes(target, model.SerializeToString(deterministic=True))


def to_onnx(exact: OneHiddenLayer) -> onnx.ModelProto:
    """Return the graph; see this module's head for how it computes."""
    firsts, into, out, linear = _tables(exact)
    fields, width = len(exact.sizes), len(linear)
    constants = {
        "firsts": firsts[None],
        "into": into.astype(np.float32),
        "out": out.astype(np.float32),
        "linear": linear.astype(np.float32),
        "zero": np.float32(0),
        "one": np.float32(1),
        "width": np.array([width], np.int64),
    }
    nodes: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = [
        ("Add", (INPUT, "firsts"), "columns", {}),
        ("Shape", (INPUT,), "rows", {"end": 1}),
        ("Concat", ("rows", "width"), "shape", {"axis": 0}),
        ("Expand", ("zero", "shape"), "empty", {}),
        ("Shape", (INPUT,), "cells", {}),
        ("Expand", ("one", "cells"), "marks", {}),
        ("ScatterElements", ("empty", "columns", "marks"), "row", {"axis": 1}),
        ("MatMul", ("row", "into"), "moved", {}),
        ("Max", ("moved", "one"), "bounded", {}),
        ("Reciprocal", ("bounded",), "units", {}),
        ("Gemm", ("units", "out", "linear"), "every", {}),
        ("GatherElements", ("every", "columns"), CONTRIBUTION, {"axis": 1}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, given, [made], **more) for kind, given, made, more in nodes],
        "reasons",
        [helper.make_tensor_value_info(INPUT, TensorProto.INT32, [BATCH, fields])],
        [helper.make_tensor_value_info(CONTRIBUTION, TensorProto.FLOAT, [BATCH, fields])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)


def _tables(exact: OneHiddenLayer) -> tuple[np.ndarray, Floats, Floats, Floats]:
    """Return the graph's constants.

    Returns:
        Column of each field's first token, int32 [fields]; tables float64 [columns, units],
        [units, columns] and [columns].  A field's columns begin with the one for an unseen token.
    """
    moved, wide = [], []
    for start, size in zip(exact.starts, exact.sizes, strict=True):
        own = slice(start, start + size)
        share = exact.mean[own]
        rows = np.vstack([np.zeros(exact.first.shape[1]), exact.first[own]])
        moved.append(rows - share @ exact.first[own])
        wide.append(np.append(0.0, exact.wide[own]) - share @ exact.wide[own])
    table, linear = np.vstack(moved), np.concatenate(wide)
    before = exact.mean @ exact.first + exact.first_bias
    sign = np.where(before < 0, 1.0, -1.0)
    into = table * (sign / np.maximum(np.abs(before), _SMALLEST))
    out = (table * (-sign * exact.last)).T
    linear = linear + table @ np.where(before < 0, exact.last, 0.0)
    firsts = exact.starts + np.arange(len(exact.sizes)) + 1
    return firsts.astype(np.int32), into, out, linear


def _compare(exact: OneHiddenLayer, target: Path, model: Path, rows: np.ndarray) -> Reasons:
    """Return how an exported graph compares over ``rows``, int32 [rows, fields].

    Raises:
        ParityError: It differs by more than allowed.
    """
    (found,) = parity.run_onnx(target, {INPUT: rows}, [CONTRIBUTION])
    report = parity.check(exact.contributions(rows), found, tolerance=TOLERANCE)
    (probability,) = parity.run_onnx(model, {INPUT: rows}, [OUTPUT])
    added = found.sum(axis=1, dtype=np.float64) + exact.base
    away = float(np.abs(1 / (1 + np.exp(-added)) - probability).max())
    if not away <= TOLERANCE:
        raise ParityError(
            f"the contributions add up to a probability that is {away:.3g} from the model's, more "
            f"than {TOLERANCE:g}, over {len(rows)} rows"
        )
    return Reasons(report.max_abs_diff, away, report.rows)
