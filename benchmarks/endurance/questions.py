"""Requests whose right answers are known, and the models that answer them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from benchmarks.serving import payloads, rows
from cipherscore.proto.v1 import cipherscore_pb2 as pb

if TYPE_CHECKING:
    from benchmarks.serving.model import Files

TOLERANCE = 1e-5
GENERATOR = "endurance-generator"
_NOISE_WIDTH = 8
_SEED = 11


@dataclass(frozen=True)
class Question:
    """Rows to be scored, in each form, and what must come back.

    Attributes:
        expected: Probabilities, float32 [rows].
        columnar: A serialized ``ScoreRequest``.
        json: The body of ``POST /v1/score``.
    """

    expected: np.ndarray
    columnar: bytes
    json: bytes

    def answered_by(self, probability: Sequence[float] | np.ndarray) -> bool:
        """Return whether these are the right answers."""
        found = np.asarray(probability, np.float32).ravel()
        if found.shape != self.expected.shape:
            return False
        return bool(np.abs(found - self.expected).max() <= TOLERANCE)


@dataclass(frozen=True)
class Questions:
    """What clients ask.

    Attributes:
        small: Requests of a few rows.
        large: Requests of a thousand rows.
        generate: A serialized ``GenerateRequest`` with a seed, so that its answer is always the
            same.
        generated: Rows it makes.
    """

    small: tuple[Question, ...]
    large: tuple[Question, ...]
    generate: bytes
    generated: int


def make(files: Files, generated: int = 50_000) -> Questions:
    """Return questions to the benchmark's model; its answers are computed in this process."""
    session = onnxruntime.InferenceSession(str(files.fp32), providers=["CPUExecutionProvider"])
    small = [_question(session, count, seed) for seed, count in enumerate((1, 1, 2, 3, 5) * 8)]
    large = [_question(session, 1_000, 100 + seed) for seed in range(4)]
    order = pb.GenerateRequest(key_id=rows.KEY_ID, count=generated, seed=_SEED)
    return Questions(tuple(small), tuple(large), order.SerializeToString(), generated)


def _question(session: onnxruntime.InferenceSession, count: int, seed: int) -> Question:
    indices = rows.random_indices(count, seed)
    (expected,) = session.run(["probability"], {"indices": indices})
    vocabulary = rows.vocabulary()
    columnar = payloads.make("columnar", rows.NAME, vocabulary, indices).content[5:]
    return Question(
        expected, columnar, payloads.make("json", rows.NAME, vocabulary, indices).content
    )


def models(folder: Path) -> Files:
    """Return the benchmark's model, with a small generator registered beside it."""
    from benchmarks.serving import model  # noqa: PLC0415 - loads torch

    files = model.make(folder)
    done = folder / ".generator"
    if not done.exists():
        _register_generator(files)
        done.touch()
    return files


def _register_generator(files: Files) -> None:
    from cipherscore.schema import PublicField, PublicSchema  # noqa: PLC0415
    from registry.store import Registry  # noqa: PLC0415
    from registry.version import MODEL, SCHEMA, VOCABULARY, VersionRecord  # noqa: PLC0415

    fields = tuple(PublicField(name, "categorical") for name in rows.SIZES)
    digest = hashlib.sha256(b"benchmark").hexdigest()
    schema = PublicSchema(rows.NAME, digest, fields, "risk", 5.0, 1.0)
    record = VersionRecord(
        kind="generator", key_id=rows.KEY_ID, dataset_digest=digest, code_version="benchmark",
        preset="endurance", seed=_SEED, metrics={}, noise_width=_NOISE_WIDTH, class_prior=0.3,
    )  # fmt: skip
    contents: dict[str, Path | bytes] = {
        MODEL: _generator(),
        VOCABULARY: files.vocabulary,
        SCHEMA: schema.to_json().encode(),
    }
    registry = Registry(files.home)
    registry.promote(registry.register(GENERATOR, contents, record).tag)


def _generator() -> bytes:
    """Return a generator: per field the largest of random projections of noise and class."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    random = np.random.default_rng(_SEED)
    constants = [numpy_helper.from_array(np.array([-1, 1]), "as_column")]
    nodes = [
        helper.make_node("Cast", ["credit_class"], ["class_float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["class_float", "as_column"], ["class_column"]),
        helper.make_node("Concat", ["noise", "class_column"], ["latent"], axis=1),
    ]
    for field, size in rows.SIZES.items():
        weights = random.normal(size=(_NOISE_WIDTH + 1, size)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"{field}_weights"))
        nodes += [
            helper.make_node("MatMul", ["latent", f"{field}_weights"], [f"{field}_logits"]),
            helper.make_node("ArgMax", [f"{field}_logits"], [f"{field}_best"], axis=1, keepdims=1),
            helper.make_node("Cast", [f"{field}_best"], [f"{field}_index"], to=TensorProto.INT32),
        ]
    nodes.append(
        helper.make_node("Concat", [f"{f}_index" for f in rows.SIZES], ["indices"], axis=1)
    )
    graph = helper.make_graph(
        nodes,
        "generator",
        [
            helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["batch", _NOISE_WIDTH]),
            helper.make_tensor_value_info("credit_class", TensorProto.INT32, ["batch"]),
        ],
        [helper.make_tensor_value_info("indices", TensorProto.INT32, ["batch", len(rows.SIZES)])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content
