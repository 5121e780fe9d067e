"""gRPC by hand on ASGI with a micro-batch: rows that wait while a batch runs share the next one."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from benchmarks.serving.peers import oip
from benchmarks.serving.peers.common import Indexer, Model

_HEADERS = [(b"content-type", b"application/grpc")]
_START = {"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": True}
_TRAILERS = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
_METHODS = {
    oip.INFER: (oip.ModelInferRequest, oip.infer_indices, oip.infer_response),
    oip.SCORE: (oip.ScoreRequest, oip.score_indices, oip.score_response),
}

indexer, model = Indexer(), Model()


class Batcher:
    """Runs what waits as one batch, at once when idle."""

    def __init__(self) -> None:
        self._waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []

    def submit(self, indices: np.ndarray) -> asyncio.Future[np.ndarray]:
        """Return a future of the rows' probabilities."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[np.ndarray] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._run)
        self._waiting.append((indices, future))
        return future

    def _run(self) -> None:
        batch, self._waiting = self._waiting, []
        answers = model(np.concatenate([indices for indices, _ in batch]))
        at = 0
        for indices, future in batch:
            if not future.done():
                future.set_result(answers[at : at + len(indices)])
            at += len(indices)


batcher = Batcher()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one gRPC call."""
    kind, decode, encode = _METHODS[scope["path"]]
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    probability = await batcher.submit(decode(indexer, kind.FromString(body[5:])))
    answer = encode(probability).SerializeToString()
    await send(_START)
    framed = b"\0" + len(answer).to_bytes(4, "big") + answer
    await send({"type": "http.response.body", "body": framed, "more_body": False})
    await send(_TRAILERS)
