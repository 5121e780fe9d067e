"""Export the generator to ONNX: noise and class in, one column index per field out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from cipherscore.errors import ExportError, ParityError
from export import parity
from export.onnx_file import MODEL_FILE, OPSET, finish
from training.generator_weights import Sampler, load_sampler
from training.runs import Run
from training.tensorflow_setup import configure, tf

NOISE, CREDIT_CLASS = "noise", "credit_class"
INDICES, PROBABILITIES = "indices", "probabilities"
PARITY_ROWS = 10_000


def export_generator(run: Path, out: Path) -> parity.ParityReport:
    """Write ``out/model.onnx`` and compare it with its source over `PARITY_ROWS` noise rows.

    The graph takes ``noise`` float32 [batch, noise_width], standard normal, and ``credit_class``
    int32 [batch] (0 good, 1 bad), and answers ``indices`` int32 [batch, fields] in vocabulary order
    and ``probabilities`` float32 [batch, width], what the heads gave each column.

    Raises:
        TrainingError: There is no finished generator in ``run``.
        ExportError: It cannot be exported; no file is left.
        ParityError: The exported model differs from its source; no file is left.
    """
    facts = Run.load(run)
    if facts.kind != "generator":
        raise ExportError(f"{run}: holds a {facts.kind}, not a generator")
    configure(1)
    sampler = load_sampler(facts)
    if facts.noise_width != sampler.noise_width:
        raise ExportError(f"{run}: says noise width {facts.noise_width}, its weights need another")
    target = out / MODEL_FILE
    finish(to_onnx(sampler), facts, target)
    try:
        return compare(sampler, target, facts.seed)
    except ExportError:
        target.unlink(missing_ok=True)
        raise


def to_onnx(sampler: Sampler) -> onnx.ModelProto:
    """Return the ONNX graph of a sampler.

    Raises:
        ExportError: tf2onnx cannot convert it.
    """

    def serve(noise: tf.Tensor, credit_class: tf.Tensor) -> dict[str, tf.Tensor]:
        indices, probabilities = sampler(noise, credit_class)
        return {INDICES: indices, PROBABILITIES: probabilities}

    signature = [
        tf.TensorSpec((None, sampler.noise_width), tf.float32, name=NOISE),
        tf.TensorSpec((None,), tf.int32, name=CREDIT_CLASS),
    ]
    try:
        with _quiet():
            import tf2onnx  # noqa: PLC0415 - loads slowly

            model, _ = tf2onnx.convert.from_function(
                tf.function(serve, input_signature=signature),
                input_signature=signature,
                opset=OPSET,
            )
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ExportError(f"tf2onnx cannot convert the generator: {error}") from error
    assert isinstance(model, onnx.ModelProto)
    _drop_unused_domains(model)
    _order_outputs(model)
    return model


def compare(sampler: Sampler, target: Path, seed: int) -> parity.ParityReport:
    """Compare source and export over the same noise; both classes in turn.

    An index may differ only where rounding could tip the decision: where the source was within the
    float tolerance of another index.

    Raises:
        ParityError: A float differs by more than the tolerance, or an index without that excuse.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    shape = (PARITY_ROWS, sampler.noise_width)
    noise = random.standard_normal(shape, dtype=np.float32)
    classes = (np.arange(PARITY_ROWS) % 2).astype(np.int32)
    expected = [part.numpy() for part in sampler(tf.constant(noise), tf.constant(classes))]
    inputs = {NOISE: noise, CREDIT_CLASS: classes}
    indices, probabilities = parity.run_onnx(target, inputs, [INDICES, PROBABILITIES])
    report = parity.check(expected[1], probabilities)
    if indices.dtype != np.int32 or indices.shape != expected[0].shape:
        raise ParityError(f"the export answers with {indices.dtype} indices {indices.shape}")
    firm = sampler.margins(noise, expected[1]) > parity.TOLERANCE
    wrong = int(((indices != expected[0]) & firm).sum())
    if wrong:
        raise ParityError(f"{wrong} of {indices.size} indices differ from the source's")
    return report


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """Forget operator sets that no node uses; tf2onnx always names that of classical ML."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _order_outputs(model: onnx.ModelProto) -> None:
    """Name the outputs in a fixed order; tf2onnx sorts them as it likes."""
    found = {output.name: output for output in model.graph.output}
    if set(found) != {INDICES, PROBABILITIES}:
        raise ExportError(f"tf2onnx named the outputs {sorted(found)}")
    del model.graph.output[:]
    model.graph.output.extend([found[INDICES], found[PROBABILITIES]])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's notes about its own internals off the screen."""
    os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
