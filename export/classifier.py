"""Export the classifier to ONNX: int32 column indices in, probability of bad credit out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch

from cipherscore.dataset import TEST, TokenDataset
from cipherscore.errors import ExportError
from cipherscore.vocabulary import Vocabulary
from export import parity
from export.onnx_file import MODEL_FILE, OPSET, finish
from training.classifier import load_network, predict
from training.network import FieldNetwork
from training.runs import Run

INPUT, OUTPUT = "indices", "probability"
RANDOM_ROWS = 10_000
"""Rows of random indices, unseen tokens among them, compared besides the test rows."""


def export_classifier(run: Path, dataset: TokenDataset, out: Path) -> parity.ParityReport:
    """Write ``out/model.onnx`` and compare it with its source over the test and random rows.

    The graph takes ``indices`` int32 [batch, fields] in vocabulary order, -1 for an unseen token,
    and answers ``probability`` float32 [batch].

    Raises:
        TrainingError: There is no finished classifier in ``run``.
        ExportError: It cannot be exported; no file is left.
        ParityError: The exported model differs from its source; no file is left.
    """
    facts = Run.load(run)
    if facts.kind != "classifier":
        raise ExportError(f"{run}: holds a {facts.kind}, not a classifier")
    network = load_network(facts)
    vocabulary = facts.vocabulary()
    target = out / MODEL_FILE
    finish(to_onnx(network, len(vocabulary.fields)), facts, target)
    try:
        rows = parity_rows(dataset, vocabulary, facts.seed)
        (exported,) = parity.run_onnx(target, {INPUT: rows}, [OUTPUT])
        return parity.check(predict(network, rows), exported)
    except ExportError:
        target.unlink(missing_ok=True)
        raise


def to_onnx(network: FieldNetwork, fields: int) -> onnx.ModelProto:
    """Return the ONNX graph of a network in evaluation mode.

    Raises:
        ExportError: torch cannot export it.
    """
    example = torch.zeros(2, fields, dtype=torch.int32)
    try:
        with _quiet():
            program = torch.onnx.export(
                network.eval(),
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                opset_version=OPSET,
                verbose=False,
            )
            if program is None:
                raise ExportError("torch returned no model")
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"torch cannot export the classifier: {error}") from error
    return program.model_proto


def parity_rows(dataset: TokenDataset, vocabulary: Vocabulary, seed: int) -> np.ndarray:
    """Return int32 [rows, fields]: the test rows, then random rows with unseen tokens."""
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [generator.integers(-1, size, RANDOM_ROWS) for size in vocabulary.sizes]
    tests = dataset.indices(vocabulary)[dataset.split == TEST]
    return np.concatenate([tests, np.stack(drawn, axis=1)]).astype(np.int32)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about its own internals off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.utils.flop_counter")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
