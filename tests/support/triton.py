"""The real tritonclient, in a process of its own: its stubs and ours define the same names.

Nothing here may import our stubs of that protocol.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import multiprocessing
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = ("grpc", "grpc.aio", "http", "http.aio")
_SECONDS = 60


@dataclass
class Inferred:
    """An answer to an inference request."""

    outputs: dict[str, np.ndarray]
    model: str
    version: str
    id: str
    parameters: dict[str, Any] = field(default_factory=dict)


class Failed(Exception):
    """The client raised InferenceServerException."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Session:
    """One of the clients against one server; what it does happens in the other process."""

    pool: ProcessPoolExecutor
    kind: str
    address: str

    def infer(
        self, model: str, inputs: Sequence[tuple[str, np.ndarray]], **options: Any
    ) -> Inferred:
        return self.pool.submit(_infer, self.kind, self.address, model, inputs, options).result()

    def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the client; a message is returned as its JSON."""
        work = self.pool.submit(_ask, self.kind, self.address, method, arguments, named)
        return work.result()

    def stream(
        self, requests: Sequence[tuple[str, list[tuple[str, np.ndarray]], dict[str, Any]]]
    ) -> list[Any]:
        """Send requests over one stream; return what comes back: `Inferred` or a message."""
        return self.pool.submit(_stream, self.address, requests).result()


@contextmanager
def client_process() -> Iterator[ProcessPoolExecutor]:
    """Have a process in which the clients run."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


# ---- in the other process


def _module(kind: str) -> Any:
    import importlib

    return importlib.import_module(f"tritonclient.{kind}")


def _client(kind: str, address: str) -> Any:
    return _module(kind).InferenceServerClient(address.removeprefix("http://"))


def _run(kind: str, address: str, use: Any) -> Any:
    """Return ``use(client)``; the client is closed, and its error made one of ours."""
    from tritonclient.utils import InferenceServerException

    async def run_async() -> Any:
        async with _client(kind, address) as client:
            return await asyncio.wait_for(use(client), _SECONDS)

    try:
        if kind.endswith(".aio"):
            return asyncio.run(run_async())
        with _client(kind, address) as client:
            return use(client)
    except InferenceServerException as error:
        raise Failed(str(error.status()), str(error.message())) from None


def _input(kind: str, name: str, values: np.ndarray, binary: bool) -> Any:
    from tritonclient.utils import np_to_triton_dtype

    tensor = _module(kind.removesuffix(".aio")).InferInput(
        name, values.shape, np_to_triton_dtype(values.dtype)
    )
    if kind.startswith("http"):
        tensor.set_data_from_numpy(values, binary_data=binary)
    else:
        tensor.set_data_from_numpy(values)
    return tensor


def _output(kind: str, name: str, binary: bool) -> Any:
    make = _module(kind.removesuffix(".aio")).InferRequestedOutput
    return make(name, binary_data=binary) if kind.startswith("http") else make(name)


def _infer(kind: str, address: str, model: str, inputs: Any, options: dict[str, Any]) -> Inferred:
    binary = options.pop("binary", True)
    if "outputs" in options:
        options["outputs"] = [_output(kind, name, binary) for name in options["outputs"]]
    tensors = [_input(kind, name, values, binary) for name, values in inputs]
    return _inferred(_run(kind, address, lambda client: client.infer(model, tensors, **options)))


def _inferred(result: Any) -> Inferred:
    response = result.get_response()
    if not isinstance(response, dict):
        from google.protobuf.json_format import MessageToDict

        response = MessageToDict(response, preserving_proto_field_name=True)
    outputs = response.get("outputs", [])
    return Inferred(
        {output["name"]: result.as_numpy(output["name"]) for output in outputs},
        response.get("model_name", ""),
        response.get("model_version", ""),
        response.get("id", ""),
        response.get("parameters", {}),
    )


def _ask(kind: str, address: str, method: str, arguments: Any, named: Any) -> Any:
    if (
        kind.startswith("grpc")
        and "as_json"
        in inspect.signature(getattr(_module(kind).InferenceServerClient, method)).parameters
    ):
        named = {**named, "as_json": True}
    found = _run(kind, address, lambda client: getattr(client, method)(*arguments, **named))
    return json.loads(json.dumps(found))


def _stream(address: str, requests: Any) -> list[Any]:
    with _client("grpc", address) as client:
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        found: list[Any] = []
        for model, inputs, options in requests:
            tensors = [_input("grpc", name, values, binary=True) for name, values in inputs]
            client.async_stream_infer(model, tensors, **options)
            while True:
                result, error = answers.get(timeout=_SECONDS)
                if error is not None:
                    found.append(str(error.message()))
                    break
                answer = _inferred(result)
                found.append(answer)
                if answer.parameters.get("triton_final_response", {}).get("bool_param"):
                    break
        client.stop_stream()
        return found
