"""Ray Serve through its gRPC proxy: one replica, model run inline in an async method."""

from __future__ import annotations

import os
import signal
from typing import Any

import grpc
import ray
from ray import serve

from benchmarks.serving.peers import oip
from benchmarks.serving.peers.common import PORT, SPARE_PORT, Indexer, Model


def add_servicer(servicer: Any, server: Any) -> None:
    """Register the inference service; Ray Serve imports this by name."""
    method = grpc.unary_unary_rpc_method_handler(
        servicer.ModelInfer,
        request_deserializer=oip.ModelInferRequest.FromString,
        response_serializer=oip.ModelInferResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(oip.SERVICE, {oip.METHOD: method})
    server.add_generic_rpc_handlers((handler,))


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5})
class Credit:
    """Scores tokens."""

    def __init__(self) -> None:
        self._indexer, self._model = Indexer(), Model()

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802 - the method's name on the wire
        """Return the probability of each row."""
        return oip.infer_response(self._model(oip.infer_indices(self._indexer, request)))


def main() -> None:
    """Serve until a signal comes."""
    passed = {k: v for k, v in os.environ.items() if k.startswith("BENCH_") or k == "PYTHONPATH"}
    ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20,
        runtime_env={"env_vars": passed},
    )  # fmt: skip
    serve.start(
        http_options={"host": "127.0.0.1", "port": SPARE_PORT},
        grpc_options={
            "port": PORT,
            "grpc_servicer_functions": ["benchmarks.serving.peers.ray_serve.server.add_servicer"],
        },
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    serve.run(Credit.bind(), name="credit", route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    # Under its importable name: `__main__` is another module in Ray's own processes.
    from benchmarks.serving.peers.ray_serve import server

    server.main()
