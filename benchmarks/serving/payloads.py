"""Request bodies, and the probability that an answer holds, for each protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cipherscore.proto.inference import grpc_service_pb2 as oip
from cipherscore.proto.v1 import cipherscore_pb2 as columnar
from cipherscore.tokens import to_text
from cipherscore.vocabulary import Vocabulary

Protocol = Literal["oip", "columnar", "json"]
PATHS: dict[Protocol, str] = {
    "oip": "/inference.GRPCInferenceService/ModelInfer",
    "columnar": "/cipherscore.v1.CipherScore/Score",
    "json": "/v1/score",
}


@dataclass(frozen=True)
class Body:
    """One request, ready to be sent again and again.

    Attributes:
        protocol: ``oip`` and ``columnar`` are gRPC messages with their five-byte prefix.
        rows: Rows it asks to be scored.
        content: The bytes of the HTTP body.
        indices: The rows as the model takes them.
    """

    protocol: Protocol
    rows: int
    content: bytes
    indices: np.ndarray

    @property
    def grpc(self) -> bool:
        """Whether it goes over HTTP/2 as gRPC."""
        return self.protocol != "json"


def make(protocol: Protocol, name: str, vocabulary: Vocabulary, indices: np.ndarray) -> Body:
    """Return the request of int32 [rows, fields] for the model called ``name``."""
    if protocol == "oip":
        content = framed(_infer(name, vocabulary, indices))
    elif protocol == "columnar":
        content = framed(_score(vocabulary, indices))
    else:
        content = _json(vocabulary, indices)
    return Body(protocol, len(indices), content, indices)


def framed(message: bytes) -> bytes:
    """Return a gRPC message with its prefix: not compressed, length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def read(protocol: Protocol, content: bytes) -> np.ndarray:
    """Return the probabilities, float32 [rows], in an answer (a gRPC one without its prefix).

    Raises:
        ValueError: The answer holds none.
    """
    if protocol == "oip":
        return _read_infer(content)
    if protocol == "columnar":
        return np.array(columnar.ScoreResponse.FromString(content).probability, np.float32)
    answer = json.loads(content)
    if isinstance(answer, list):
        return np.array(answer, np.float32)
    if "probability" in answer:
        return np.array(answer["probability"], np.float32)
    if "results" in answer:
        return np.array([result["probability"] for result in answer["results"]], np.float32)
    raise ValueError("the answer holds no probability")


def _infer(name: str, vocabulary: Vocabulary, indices: np.ndarray) -> bytes:
    columns = list(vocabulary.tokens.values())
    tokens = [columns[i][index] for row in indices.tolist() for i, index in enumerate(row)]
    raw = b"".join(len(token).to_bytes(4, "little") + token for token in tokens)
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="tokens", datatype="BYTES", shape=list(indices.shape)
    )
    request = oip.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[raw])
    content: bytes = request.SerializeToString()
    return content


def _read_infer(content: bytes) -> np.ndarray:
    response = oip.ModelInferResponse.FromString(content)
    names = [output.name for output in response.outputs]
    if "probability" not in names:
        raise ValueError("the answer holds no probability")
    position = names.index("probability")
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[position], "<f4")
    return np.array(response.outputs[position].contents.fp32_contents, np.float32)


def _score(vocabulary: Vocabulary, indices: np.ndarray) -> bytes:
    columns = [
        columnar.TokenColumn(
            field=field, dictionary=tokens, indices=indices[:, i].astype(np.uint8).tobytes()
        )
        for i, (field, tokens) in enumerate(vocabulary.tokens.items())
    ]
    table = columnar.TokenTable(rows=len(indices), columns=columns)
    request = columnar.ScoreRequest(key_id=vocabulary.key_id, table=table)
    content: bytes = request.SerializeToString()
    return content


def _json(vocabulary: Vocabulary, indices: np.ndarray) -> bytes:
    texts = {
        field: [to_text(token) for token in tokens] for field, tokens in vocabulary.tokens.items()
    }
    records = [
        {field: texts[field][index] for field, index in zip(texts, row, strict=True)}
        for row in indices.tolist()
    ]
    body = {"key_id": vocabulary.key_id, "records": records}
    return json.dumps(body, separators=(",", ":")).encode()
