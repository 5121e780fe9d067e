"""Tiny real ONNX models of both kinds, with a vocabulary of well-formed tokens, for tests.

The tokens are of the right form but encrypt nothing; the service cannot tell, it has no key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cipherscore.schema import PublicField, PublicSchema
from cipherscore.tokens import BLOCK_LENGTH, SIV_LENGTH, header
from cipherscore.vocabulary import Vocabulary
from registry.store import Registry
from registry.version import MODEL, SCHEMA, VOCABULARY, Version, VersionRecord

KEY_ID = "0aab8d7c"
OTHER_KEY_ID = "1badc0de"
SIZES = {"alpha": 3, "beta": 2, "gamma": 300}
"""Fields and their numbers of tokens; one needs two bytes an index on the wire."""
NOISE_WIDTH = 5
THRESHOLD = 0.4
CLASS_PRIOR = 0.3
SCHEMA_NAME = "tiny-credit"
OPSET, IR_VERSION = 18, 8


def token(field: str, level: int, key_id: str = KEY_ID) -> bytes:
    """Return a well-formed token that is always the same for the same arguments."""
    body = hashlib.sha256(f"{field}/{level}/{key_id}".encode()).digest()
    return header(key_id) + body[: SIV_LENGTH + BLOCK_LENGTH]


def vocabulary(key_id: str = KEY_ID) -> Vocabulary:
    """Return the vocabulary of both models."""
    return Vocabulary(
        key_id,
        {
            field: tuple(sorted(token(field, level, key_id) for level in range(size)))
            for field, size in SIZES.items()
        },
    )


def public_schema() -> PublicSchema:
    """Return the schema of both models."""
    fields = tuple(PublicField(name, "categorical") for name in SIZES)
    return PublicSchema(
        name=SCHEMA_NAME,
        digest=hashlib.sha256(SCHEMA_NAME.encode()).hexdigest(),
        fields=fields,
        target="risk",
        cost_false_good=5.0,
        cost_false_bad=1.0,
    )


def classifier_weights(seed: int) -> list[np.ndarray]:
    """Return per field the contribution of each token, float32 [size + 1]; the last is 0."""
    random = np.random.default_rng(seed)
    return [np.append(random.normal(size=size), 0.0).astype(np.float32) for size in SIZES.values()]


def expected_probability(indices: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return what the classifier of `seed` gives for int [rows, fields], computed in numpy."""
    logit = sum(weights[indices[:, i]] for i, weights in enumerate(classifier_weights(seed)))
    return np.asarray(1 / (1 + np.exp(-np.asarray(logit))), dtype=np.float32)


def classifier(seed: int = 0) -> bytes:
    """Return a classifier: the logistic of one weight per token, none for index -1."""
    nodes, constants = [], []
    for position, weights in enumerate(classifier_weights(seed)):
        constants += [
            numpy_helper.from_array(weights, f"weights{position}"),
            numpy_helper.from_array(np.array(position), f"position{position}"),
        ]
        nodes += [
            # Index -1 is the last entry, which is 0.
            helper.make_node(
                "Gather", ["indices", f"position{position}"], [f"i{position}"], axis=1
            ),
            helper.make_node("Gather", [f"weights{position}", f"i{position}"], [f"w{position}"]),
        ]
    nodes += [
        helper.make_node("Sum", [f"w{position}" for position in range(len(SIZES))], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    indices = helper.make_tensor_value_info("indices", TensorProto.INT32, ["batch", len(SIZES)])
    output = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch"])
    return _model(nodes, [indices], [output], constants)


def generator(seed: int = 0) -> bytes:
    """Return a generator: per field the largest of random projections of noise and class."""
    random = np.random.default_rng(seed)
    minus_one = numpy_helper.from_array(np.array([-1, 1]), "as_column")
    nodes = [
        helper.make_node("Cast", ["credit_class"], ["class_float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["class_float", "as_column"], ["class_column"]),
        helper.make_node("Concat", ["noise", "class_column"], ["latent"], axis=1),
    ]
    constants = [minus_one]
    for field, size in SIZES.items():
        weights = random.normal(size=(NOISE_WIDTH + 1, size)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"{field}_weights"))
        nodes += [
            helper.make_node("MatMul", ["latent", f"{field}_weights"], [f"{field}_logits"]),
            helper.make_node("ArgMax", [f"{field}_logits"], [f"{field}_best"], axis=1, keepdims=1),
            helper.make_node("Cast", [f"{field}_best"], [f"{field}_index"], to=TensorProto.INT32),
        ]
    nodes.append(
        helper.make_node("Concat", [f"{field}_index" for field in SIZES], ["indices"], axis=1)
    )
    inputs = [
        helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["batch", NOISE_WIDTH]),
        helper.make_tensor_value_info("credit_class", TensorProto.INT32, ["batch"]),
    ]
    output = helper.make_tensor_value_info("indices", TensorProto.INT32, ["batch", len(SIZES)])
    return _model(nodes, inputs, [output], constants)


def register(
    registry: Registry, kind: str, *, seed: int = 0, name: str = "", model: bytes | None = None
) -> Version:
    """Register a model of ``kind`` as a candidate; ``model`` replaces the ONNX file."""
    content = {"classifier": classifier, "generator": generator}[kind](seed)
    record = VersionRecord(
        kind=kind,
        key_id=KEY_ID,
        dataset_digest="d" * 64,
        code_version="test",
        preset="tiny",
        seed=seed,
        metrics={"test": {"auc": 0.75}},
        threshold=THRESHOLD if kind == "classifier" else None,
        noise_width=NOISE_WIDTH if kind == "generator" else None,
        class_prior=CLASS_PRIOR,
    )
    files: dict[str, Path | bytes] = {
        MODEL: content if model is None else model,
        VOCABULARY: vocabulary().to_json().encode(),
        SCHEMA: public_schema().to_json().encode(),
    }
    return registry.register(name or f"{SCHEMA_NAME}-{kind}", files, record)


@dataclass(frozen=True)
class TinyModels:
    """A registry with one promoted version of each kind."""

    home: Path
    registry: Registry
    classifier: Version
    generator: Version


def tiny_models(home: Path) -> TinyModels:
    """Make a registry in ``home`` with both models in production."""
    registry = Registry(home)
    versions = {kind: register(registry, kind) for kind in ("classifier", "generator")}
    for version in versions.values():
        registry.promote(version.tag)
    return TinyModels(home, registry, versions["classifier"], versions["generator"])


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> bytes:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
