"""MLServer with a custom runtime: no worker processes, no adaptive batching (its timer hurts)."""

from __future__ import annotations

import asyncio

import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.peers.common import MODEL_NAME, PORT, SPARE_PORT, Indexer, Model


class Credit(MLModel):
    """Scores tokens."""

    async def load(self) -> bool:
        """Load the model."""
        self._indexer, self._model = Indexer(), Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the probability of each row."""
        data = payload.inputs[0].data
        probability = self._model(self._indexer.rows(getattr(data, "root", data)))
        output = NumpyCodec.encode_output("probability", probability)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve."""
    settings = Settings(
        host="127.0.0.1", http_port=SPARE_PORT, grpc_port=PORT, parallel_workers=0, debug=False,
        metrics_endpoint=None, grpc_max_message_length=64 << 20, logging_settings=None,
        use_structured_logging=False,
    )  # fmt: skip
    server = MLServer(settings)
    await server.start([ModelSettings(name=MODEL_NAME, implementation=Credit)])


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
