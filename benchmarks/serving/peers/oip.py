"""The Open Inference Protocol and the columnar protocol, answered by hand-written peers."""

from __future__ import annotations

import numpy as np

from benchmarks.serving.peers.common import MODEL_NAME, Indexer, split_bytes
from cipherscore.proto.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from cipherscore.proto.v1.cipherscore_pb2 import (
    CREDIT_CLASS_BAD,
    CREDIT_CLASS_GOOD,
    ScoreRequest,
    ScoreResponse,
)

SERVICE, METHOD = "inference.GRPCInferenceService", "ModelInfer"
INFER = f"/{SERVICE}/{METHOD}"
SCORE = "/cipherscore.v1.CipherScore/Score"


def infer_indices(indexer: Indexer, request: ModelInferRequest) -> np.ndarray:
    """Return int32 [rows, fields] of an inference request with raw BYTES contents."""
    return indexer.rows(split_bytes(request.raw_input_contents[0]))


def infer_response(probability: np.ndarray) -> ModelInferResponse:
    """Return the answer to an inference request."""
    output = ModelInferResponse.InferOutputTensor(
        name="probability", datatype="FP32", shape=[len(probability)]
    )
    return ModelInferResponse(
        model_name=MODEL_NAME, outputs=[output], raw_output_contents=[probability.tobytes()]
    )


def score_indices(indexer: Indexer, request: ScoreRequest) -> np.ndarray:
    """Return int32 [rows, fields] of a columnar request; its fields come in vocabulary order."""
    columns = request.table.columns
    return indexer.columns([c.dictionary for c in columns], [c.indices for c in columns])


def score_response(probability: np.ndarray) -> ScoreResponse:
    """Return the answer to a columnar request."""
    decision = np.where(probability >= 0.5, CREDIT_CLASS_BAD, CREDIT_CLASS_GOOD)
    return ScoreResponse(probability=probability, decision=decision, model=MODEL_NAME)
