"""Small real classifiers with reason codes, of the vocabulary of `tests.support.models`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.reasons import BASE, to_onnx
from registry.store import Registry
from registry.version import MODEL, MODEL_INT8, REASONS, SCHEMA, VOCABULARY, Version, VersionRecord
from tests.support import models
from tests.support.ensembles import made
from tests.support.models import CLASS_PRIOR, KEY_ID, SCHEMA_NAME, SIZES, THRESHOLD
from training.attribution import OneHiddenLayer

NAME = f"{SCHEMA_NAME}-classifier"


def exact_of(seed: int = 0) -> OneHiddenLayer:
    """Return the network of `seed` and the row its reasons compare with."""
    return made(seed, tuple(SIZES.values()), members=2, hidden=4)[1]


def classifier_of(exact: OneHiddenLayer) -> bytes:
    """Return the classifier as ONNX: sums of table rows, written apart from the code under test."""
    nodes, constants = [], []
    for position, (start, size) in enumerate(zip(exact.starts, exact.sizes, strict=True)):
        own = slice(start, start + size)
        tables = {"first": exact.first[own], "wide": exact.wide[own][:, None]}
        constants.append(numpy_helper.from_array(np.array(position), f"position{position}"))
        nodes.append(
            helper.make_node("Gather", ["indices", f"position{position}"], [f"i{position}"], axis=1)
        )
        for name, table in tables.items():
            # Index -1 is the last row, which is zero.
            rows = np.vstack([table, np.zeros(table.shape[1])]).astype(np.float32)
            constants.append(numpy_helper.from_array(rows, f"{name}{position}"))
            nodes.append(
                helper.make_node(
                    "Gather", [f"{name}{position}", f"i{position}"], [f"{name}_of{position}"]
                )
            )
    for name, array in {
        "first_bias": exact.first_bias,
        "last": exact.last[:, None],
        "bias": np.array(exact.bias),
    }.items():
        constants.append(numpy_helper.from_array(array.astype(np.float32), name))
    constants.append(numpy_helper.from_array(np.array([1]), "axis"))
    places = range(len(exact.sizes))
    nodes += [
        helper.make_node("Sum", [*(f"first_of{p}" for p in places), "first_bias"], ["inputs"]),
        helper.make_node("Relu", ["inputs"], ["units"]),
        helper.make_node("MatMul", ["units", "last"], ["deep"]),
        helper.make_node("Sum", ["deep", *(f"wide_of{p}" for p in places), "bias"], ["logits"]),
        helper.make_node("Squeeze", ["logits", "axis"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("indices", TensorProto.INT32, ["batch", len(exact.sizes)])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def reasons_of(exact: OneHiddenLayer, base: str | None = None) -> bytes:
    """Return the reason codes as ONNX; ``base`` replaces what the metadata say."""
    model = to_onnx(exact)
    model.metadata_props.add(key=BASE, value=repr(exact.base) if base is None else base)
    return model.SerializeToString()


def register(
    registry: Registry, seed: int = 0, *, reasons: bytes | None = None, without: bool = False
) -> Version:
    """Register the classifier of ``seed`` as a candidate.

    Args:
        registry: Where.
        seed: Of its weights.
        reasons: Replaces its reason codes.
        without: Whether it has none.
    """
    exact = exact_of(seed)
    record = VersionRecord(
        kind="classifier", key_id=KEY_ID, dataset_digest="d" * 64, code_version="test",
        preset="tiny", seed=seed, metrics={"test": {"auc": 0.75}}, threshold=THRESHOLD,
        class_prior=CLASS_PRIOR,
    )  # fmt: skip
    model = classifier_of(exact)
    files: dict[str, Path | bytes] = {
        MODEL: model,
        MODEL_INT8: models.classifier(seed),  # another model altogether, to tell which one answers
        VOCABULARY: models.vocabulary().to_json().encode(),
        SCHEMA: models.public_schema().to_json().encode(),
    }
    if not without:
        files[REASONS] = reasons_of(exact) if reasons is None else reasons
    return registry.register(NAME, files, record)


@dataclass(frozen=True)
class Explained:
    """A registry with a classifier with reasons and a generator, both in production."""

    registry: Registry
    classifier: Version
    generator: Version


def explained_models(home: Path) -> Explained:
    """Make such a registry in ``home``."""
    registry = Registry(home)
    version, generator = register(registry), models.register(registry, "generator")
    for one in (version, generator):
        registry.promote(one.tag)
    return Explained(registry, version, generator)


def drawn(count: int, seed: int = 0) -> tuple[list[dict[str, bytes]], np.ndarray]:
    """Return random known rows and their indices, int32 [count, fields]."""
    tokens = models.vocabulary().tokens
    random = np.random.default_rng(seed)
    columns = [random.integers(size, size=count) for size in SIZES.values()]
    indices = np.stack(columns, axis=1).astype(np.int32)
    rows = [{f: tokens[f][i] for f, i in zip(SIZES, row, strict=True)} for row in indices]
    return rows, indices
