"""What both exports share: opset and IR limits, one file, metadata, checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from cipherscore.errors import ExportError
from cipherscore.files import write_bytes
from training.runs import Run

MODEL_FILE = "model.onnx"

OPSET = 18
"""Newest operator set that ONNX Runtime 1.14, the last one for Maxwell cards, can run."""

IR_VERSION = 8
"""Newest file format version that ONNX Runtime 1.14 reads."""

BATCH = "batch"
"""Name of the dynamic dimension."""


def finish(model: onnx.ModelProto, run: Run, target: Path) -> None:
    """Set the IR version and metadata, check the model and write it as one file, atomically.

    Raises:
        ExportError: A newer opset is used, weights lie outside the file, the batch dimension is
            not dynamic, or the checker refuses the model.
    """
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"} and entry.version > OPSET:
            raise ExportError(f"the model uses opset {entry.version}; at most {OPSET} is served")
        if entry.domain not in {"", "ai.onnx"}:
            raise ExportError(f"the model uses operators of {entry.domain!r}, outside of ONNX")
    if any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in model.graph.initializer):
        raise ExportError("the model keeps weights in a side file")
    model.ir_version = IR_VERSION
    for value in (*model.graph.input, *model.graph.output):
        _name_batch(value)
    _strip(model)
    onnx.helper.set_model_props(model, metadata(run))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported model is not valid ONNX: {error}") from error
    write_bytes(target, model.SerializeToString(deterministic=True))


def metadata(run: Run) -> dict[str, str]:
    """Return the metadata that an exported model carries."""
    facts: dict[str, Any] = {
        "model_name": run.model_name,
        "kind": run.kind,
        "preset": run.preset,
        "seed": run.seed,
        "key_id": run.key_id,
        "schema_digest": run.schema.digest,
        "vocabulary_digest": run.vocabulary_digest,
        "dataset_digest": run.dataset_digest,
        "code_version": run.code_version,
        "metrics": json.dumps(run.metrics, sort_keys=True),
    }
    return {name: str(value) for name, value in facts.items()}


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold source paths, and fields newer than the IR version."""
    graph = model.graph
    parts = (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *parts):
        if part.DESCRIPTOR.fields_by_name.get("metadata_props") is not None:
            part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _name_batch(value: onnx.ValueInfoProto) -> None:
    dimensions = value.type.tensor_type.shape.dim
    if not dimensions or dimensions[0].HasField("dim_value"):
        raise ExportError(f"{value.name!r} of the exported model has a fixed number of rows")
    dimensions[0].dim_param = BATCH
