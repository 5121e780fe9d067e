"""Plain grpc.aio on uvloop: decode, look up, run the model inline, encode.  No batching."""

from __future__ import annotations

from typing import Any

import grpc
import uvloop

from benchmarks.serving.peers import oip
from benchmarks.serving.peers.common import PORT, Indexer, Model

indexer, model = Indexer(), Model()


async def infer(request: Any, context: object) -> Any:
    """Answer ModelInfer."""
    del context
    return oip.infer_response(model(oip.infer_indices(indexer, request)))


async def score(request: Any, context: object) -> Any:
    """Answer Score."""
    del context
    return oip.score_response(model(oip.score_indices(indexer, request)))


def _unary(behaviour: Any, request: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        behaviour, request.FromString, lambda response: response.SerializeToString()
    )


async def main() -> None:
    """Serve."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    handlers = {
        oip.SERVICE: {oip.METHOD: _unary(infer, oip.ModelInferRequest)},
        "cipherscore.v1.CipherScore": {"Score": _unary(score, oip.ScoreRequest)},
    }
    for service, methods in handlers.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
