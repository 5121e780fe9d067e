"""What every peer runs, whatever its transport: token lookup, one ONNX session with one thread.

The harness passes four environment variables: ``BENCH_PORT``, ``BENCH_SPARE_PORT`` (for a second
port where a framework insists on one), ``BENCH_MODEL`` and ``BENCH_VOCABULARY``.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

PORT = int(os.environ.get("BENCH_PORT", "0"))
SPARE_PORT = int(os.environ.get("BENCH_SPARE_PORT", "0"))
MODEL_NAME = "credit"


def vocabulary() -> list[tuple[str, list[bytes]]]:
    """Return per field its name and its tokens; a token's position is its index."""
    content = json.loads(Path(os.environ["BENCH_VOCABULARY"]).read_text())
    return [(f["field"], [base64.b64decode(t) for t in f["tokens"]]) for f in content["fields"]]


def as_text(token: bytes) -> str:
    """Return a token as JSON carries it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


class Indexer:
    """Tokens to vocabulary indices, in the three forms requests come in."""

    def __init__(self) -> None:
        fields = vocabulary()
        self.width = len(fields)
        self._known = [{token: i for i, token in enumerate(known)} for _, known in fields]
        self._text = {
            name: (column, {as_text(token): i for i, token in enumerate(known)})
            for column, (name, known) in enumerate(fields)
        }

    def rows(self, tokens: Sequence[bytes]) -> np.ndarray:
        """Return int32 [rows, fields] for row-major tokens."""
        width = self.width
        if len(tokens) == width:
            row = [known[token] for known, token in zip(self._known, tokens, strict=True)]
            return np.array([row], np.int32)
        indices = np.empty((len(tokens) // width, width), np.int32)
        for column, known in enumerate(self._known):
            indices[:, column] = list(map(known.__getitem__, tokens[column::width]))
        return indices

    def records(self, records: Sequence[Mapping[str, str]]) -> np.ndarray:
        """Return int32 [rows, fields] for JSON records: field name to token."""
        indices = np.empty((len(records), self.width), np.int32)
        for name, (column, known) in self._text.items():
            indices[:, column] = [known[record[name]] for record in records]
        return indices

    def columns(
        self, dictionaries: Sequence[Sequence[bytes]], packed: Sequence[bytes]
    ) -> np.ndarray:
        """Return int32 [rows, fields] for distinct tokens and one byte per row and field."""
        rows = len(packed[0])
        indices = np.empty((rows, self.width), np.int32)
        for column, known in enumerate(self._known):
            table = np.array([known[token] for token in dictionaries[column]], np.int32)
            np.take(table, np.frombuffer(packed[column], np.uint8), out=indices[:, column])
        return indices


class Model:
    """The network on ONNX Runtime, one thread, as every server of the benchmark runs it."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Return the probability per row, float32 [rows]."""
        (probability,) = self._session.run(["probability"], {"indices": indices})
        return probability


def split_bytes(raw: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor as the Open Inference Protocol packs it."""
    elements, at, end = [], 0, len(raw)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        elements.append(raw[start:at])
    return elements
