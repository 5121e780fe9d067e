"""What a protection costs: AUC, bytes, vocabulary and time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.frontier.protections import Protection
from benchmarks.smoothing_training import fixed_keyset
from cipherscore.client.keys import Keyset
from cipherscore.dataset import TokenDataset
from evaluation.drawn import drawn_fold
from evaluation.folds import Fold, RawData, folds
from export.classifier import INPUT, to_onnx
from export.onnx_file import IR_VERSION
from training.classifier import fit_classifier, predict
from training.evaluation import auc
from training.network import FieldNetwork
from training.presets import DEFAULT

CALLS = 2_000
"""Calls of the model whose median is the latency of one row."""


@dataclass(frozen=True)
class Cost:
    """Of one fold.

    Args:
        auc: On the fold's test rows, each sent once.
        tokens: In the vocabulary, of all fields.
        row_bytes: Of a request's tokens, mean per row.
        row_seconds: One row through the ONNX model, one thread, median.
        training_seconds: Of the classifier.
    """

    auc: float
    tokens: int
    row_bytes: float
    row_seconds: float
    training_seconds: float


def costs(raw: RawData, protection: Protection, count: int, take: int, seed: int) -> list[Cost]:
    """Return the costs of the first ``take`` of ``count`` folds."""
    keyset = fixed_keyset(seed)
    chosen = islice(folds(raw, 1, count, seed), take)
    return [_cost(raw, protection, fold, keyset, seed) for fold in chosen]


def _cost(raw: RawData, protection: Protection, fold: Fold, keyset: Keyset, seed: int) -> Cost:
    view = protection.view(raw, fold.train)
    drawn = drawn_fold(view, fold, keyset, draws=protection.draws, requests=1)
    vocabulary = drawn.dataset.build_vocabulary()
    begun = time.perf_counter()
    fitted = fit_classifier(drawn.dataset, vocabulary, DEFAULT, seed=fold.training_seed(seed))
    seconds = time.perf_counter() - begun
    request = drawn.requests[0]
    indices = request.indices(vocabulary)
    return Cost(
        auc=float(auc(request.label, predict(fitted.network, indices))),
        tokens=sum(vocabulary.sizes),
        row_bytes=_row_bytes(request),
        row_seconds=_row_seconds(fitted.network, indices),
        training_seconds=seconds,
    )


def _row_bytes(request: TokenDataset) -> float:
    lengths = [
        np.array([len(token) for token in column.dictionary])[column.indices].mean()
        for column in request.columns.values()
    ]
    return float(sum(lengths))


def _row_seconds(network: FieldNetwork, indices: np.ndarray) -> float:
    model = to_onnx(network, indices.shape[1])
    model.ir_version = IR_VERSION
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    times: list[Any] = []
    for call in range(CALLS):
        row = np.ascontiguousarray(indices[call % len(indices)][None])
        begun = time.perf_counter()
        session.run(None, {INPUT: row})
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
