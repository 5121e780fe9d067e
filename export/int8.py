"""The classifier's quantised variant: int8 weights and, per run, int8 activations.

ONNX Runtime's quantiser makes signed 8-bit numbers of each weight matrix, with one scale per output
column.  It leaves activations to be scaled by the largest value in each run; here their scales are
fixed instead, from the labelled rows, because an applicant's answer must not depend on whose rows
share the batch.  The file uses standard ONNX operators only and answers about three times as many
rows a second on a CPU with VNNI.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from cipherscore.dataset import TokenDataset
from cipherscore.errors import ExportError
from cipherscore.files import write_bytes
from export import parity
from export.classifier import INPUT, OUTPUT, parity_rows
from export.onnx_file import IR_VERSION, OPSET
from training.evaluation import auc
from training.runs import Run

DYNAMIC = "DynamicQuantizeLinear"
CODES = 255
"""Steps of an unsigned 8-bit code."""

AUC_TOLERANCE = 0.001
"""Largest accepted loss or gain of AUC over all labelled rows."""


@dataclass(frozen=True)
class Quantised:
    """What quantisation changed.

    Attributes:
        max_abs_diff: Largest difference of a probability to the fp32 model.
        auc_difference: AUC of int8 less AUC of fp32, over all labelled rows.
        rows: Rows compared.
        kept: Whether the variant is within `AUC_TOLERANCE`; if not, there is no file.
    """

    max_abs_diff: float
    auc_difference: float
    rows: int
    kept: bool


def quantise(model: Path, run: Run, dataset: TokenDataset, target: Path) -> Quantised:
    """Write the int8 variant of an exported classifier to ``target``, unless it ranks otherwise.

    Raises:
        ExportError: The model cannot be quantised, or its variant cannot be run.
    """
    vocabulary = run.vocabulary()
    labelled = dataset.indices(vocabulary).astype(np.int32)
    rows = np.concatenate([labelled, parity_rows(dataset, vocabulary, run.seed)])
    write(model, target, rows)
    (full,) = parity.run_onnx(model, {INPUT: rows}, [OUTPUT])
    (small,) = parity.run_onnx(target, {INPUT: rows}, [OUTPUT])
    if not np.isfinite(small).all():
        target.unlink()
        raise ExportError("the int8 variant answers with a value that is not finite")
    known = slice(0, len(labelled))
    difference = auc(dataset.label, small[known]) - auc(dataset.label, full[known])
    kept = abs(difference) <= AUC_TOLERANCE
    if not kept:
        target.unlink()
    return Quantised(float(np.abs(small - full).max()), float(difference), len(rows), kept)


def write(model: Path, target: Path, rows: np.ndarray) -> None:
    """Write the int8 variant of ``model``, its activations scaled to fit ``rows``.

    Args:
        model: The fp32 model.
        target: Where to write.
        rows: int32 [rows, fields] as the model takes them.

    Raises:
        ExportError: The model cannot be quantised, or needs operators outside of ONNX.
    """
    source = onnx.load(model)
    # The quantiser splits and transposes Gemm nodes and then trips over the old shapes.
    del source.graph.value_info[:]
    quantised = _quantised(source, target)
    _fix_scales(quantised, _ranges(model, quantised, rows))
    own = [entry for entry in quantised.opset_import if entry.domain in {"", "ai.onnx"}]
    if {node.domain for node in quantised.graph.node} - {""} or own[0].version > OPSET:
        raise ExportError("the int8 variant uses operators outside of the served ONNX opset")
    del quantised.opset_import[:]
    quantised.opset_import.extend(own)
    quantised.ir_version = IR_VERSION
    onnx.checker.check_model(quantised, full_check=True)
    write_bytes(target, quantised.SerializeToString(deterministic=True))


def _quantised(source: onnx.ModelProto, target: Path) -> onnx.ModelProto:
    """Return what the quantiser makes of ``source``; it writes to ``target`` on the way."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends a pre-processing that changes nothing here
    try:
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        return onnx.load(target)
    except Exception as error:
        # The quantiser's exceptions have no common base below `Exception`.
        raise ExportError(f"the classifier cannot be quantised: {error}") from error
    finally:
        logger.setLevel(level)
        target.unlink(missing_ok=True)


def _ranges(
    model: Path, quantised: onnx.ModelProto, rows: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value over ``rows`` of each activation that is quantised."""
    names = [n.input[0] for n in quantised.graph.node if n.op_type == DYNAMIC]
    opened = onnx.load(model)
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    with tempfile.TemporaryDirectory(prefix="cipherscore-int8-") as folder:
        path = Path(folder) / "opened.onnx"
        path.write_bytes(opened.SerializeToString())
        found = parity.run_onnx(path, {INPUT: rows}, names)
    return {
        # Zero itself must have an exact code: most activations are zero.
        name: (min(0.0, float(values.min())), max(0.0, float(values.max())))
        for name, values in zip(names, found, strict=True)
    }


def _fix_scales(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Replace each scale that is computed in the run by one from ``ranges``."""
    nodes = []
    for node in model.graph.node:
        if node.op_type != DYNAMIC:
            nodes.append(node)
            continue
        (activation,), (codes, scale, zero) = node.input, node.output
        low, high = ranges[activation]
        step = np.float32((high - low) / CODES or 1.0)
        constants = {scale: step, zero: np.uint8(np.clip(np.rint(-low / step), 0, CODES))}
        for name, value in constants.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
        nodes.append(
            onnx.helper.make_node("QuantizeLinear", [activation, scale, zero], [codes], node.name)
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
