"""KServe's model server: one process, gRPC, latency logging off."""

from __future__ import annotations

from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, ModelServer
from kserve import Model as KServeModel

from benchmarks.serving.peers.common import MODEL_NAME, PORT, SPARE_PORT, Indexer, Model


class Credit(KServeModel):
    """Scores tokens."""

    def __init__(self) -> None:
        super().__init__(MODEL_NAME)
        self.load()

    def load(self) -> bool:
        """Load the model."""
        self._indexer, self._model = Indexer(), Model()
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        """Return the probability of each row."""
        tokens = payload.inputs[0].as_numpy().ravel().tolist()
        probability = self._model(self._indexer.rows(tokens))
        output = InferOutput("probability", [len(probability)], "FP32")
        output.set_data_from_numpy(probability, binary_data=True)
        return InferResponse(payload.id or "", MODEL_NAME, [output])


if __name__ == "__main__":
    ModelServer(
        http_port=SPARE_PORT, grpc_port=PORT, workers=1, enable_grpc=True,
        enable_latency_logging=False, event_loop="uvloop",
    ).start([Credit()])  # fmt: skip
