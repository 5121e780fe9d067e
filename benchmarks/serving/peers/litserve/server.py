"""LitServe: one API server, one worker, its fast queue (ZeroMQ), no batching timer."""

from typing import Any

import litserve
from fastapi import Request

from benchmarks.serving.peers.common import PORT, Indexer, Model


class Credit(litserve.LitAPI):
    """Scores records."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        del device
        self._indexer, self._model = Indexer(), Model()

    def decode_request(self, request: Request) -> Any:
        """Return the request's rows as indices."""
        return self._indexer.records(request["records"])

    def predict(self, x: Any) -> Any:
        """Run the model."""
        return self._model(x)

    def encode_response(self, output: Any) -> Any:
        """Return the probability of each record."""
        return {"probability": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(
        Credit(api_path="/v1/score"), accelerator="cpu", workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False,
        log_level="warning", access_log=False,
    )  # fmt: skip
