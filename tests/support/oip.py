"""The Open Inference Protocol's handlers in this process, on tiny real models."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from cipherscore.proto.inference import grpc_service_pb2 as pb
from serving import models as loading
from serving.access import Access
from serving.call import Call
from serving.dataplane import Dataplane
from serving.gate import Gate
from serving.generation import Generator
from serving.live import Crew, Roles
from serving.oip.grpc import SERVICE, methods
from serving.oip.http import OipHttp
from serving.providers import CPU, Provider
from serving.rpc import Stream, Unary
from serving.scorer import Scorer
from serving.settings import Settings
from serving.work import Workshop
from tests.support.models import SIZES, TinyModels, vocabulary

SCOPES = frozenset({"score", "generate", "admin"})
FIELDS = len(SIZES)
_COLUMNS = tuple(vocabulary().tokens.values())


class Lineup:
    """What `serving.lineup.Lineup` is to the handlers, with fixed versions."""

    def __init__(
        self, tiny: TinyModels, settings: Settings, workshop: Workshop, observer: Any
    ) -> None:
        provider = Provider(CPU, "test")
        self._crews: dict[str, Crew[Any]] = {}
        for version in (tiny.classifier, tiny.generator):
            model = loading.load(version, provider, 1)
            served: Any = (
                Scorer(model, settings, workshop.executor, observer)
                if model.kind == "classifier"
                else Generator(model, settings.max_generated_rows)
            )
            self._crews[model.kind] = Crew(
                model.kind, Roles(production=model.tag), {model.tag: served}
            )
        self.ready = True
        self.changes: list[tuple[str, str]] = []

    def classifier(self, wanted: str = "", *, explained: bool = False) -> Scorer:
        return self._crews["classifier"].pick(wanted)

    def generator(self, wanted: str = "") -> Generator:
        return self._crews["generator"].pick(wanted)

    def shadows(self) -> tuple[Scorer, ...]:
        return ()

    def crew(self, kind: str) -> Crew[Any]:
        return self._crews[kind]

    async def index(self) -> list[Any]:
        tags = [tag.split(":") for crew in self._crews.values() for tag, _, _ in crew]
        return [
            *(SimpleNamespace(name=n, version=v, state="READY", reason="") for n, v in tags),
            SimpleNamespace(name="other", version="1", state="UNAVAILABLE", reason="not loaded"),
        ]

    async def load(self, tag: str) -> str:
        self.changes.append(("load", tag))
        return tag

    async def unload(self, tag: str) -> None:
        self.changes.append(("unload", tag))


class _Observer:
    def __init__(self) -> None:
        self.finished_codes: list[tuple[str, str]] = []

    def started(self, call: Call) -> None:
        pass

    def finished(self, call: Call, code: str) -> None:
        self.finished_codes.append((call.method, code))

    def batch(self, *_: object) -> None:
        pass

    def explained(self, *_: object) -> None:
        pass

    def traced(self, *_: object, **__: object) -> None:
        return None

    def refused(self, transport: str, method: str, code: str) -> None:
        self.finished_codes.append((method, code))


@dataclass
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Host:
    """Both transports' handlers."""

    def __init__(self, tiny: TinyModels, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.tiny = tiny
        self.workshop = Workshop()
        self.observer = _Observer()
        self.lineup: Any = Lineup(tiny, self.settings, self.workshop, self.observer)
        dataplane = Dataplane(self.lineup, self.workshop, lambda *_: None)
        self.gate = Gate(Access(self.settings), self.observer, 60.0)
        self.methods = methods(dataplane, self.lineup, self.settings, self.gate)
        self.http_app = OipHttp(self.gate, dataplane, self.lineup, self.settings)
        self.classifier = tiny.classifier.name
        self.generator = tiny.generator.name

    def call(self, scopes: frozenset[Any] = SCOPES) -> Call:
        now = time.monotonic()
        return Call("grpc", "test", "test", now, now + 60, scopes=scopes)

    async def unary(self, name: str, content: bytes, call: Call | None = None) -> bytes:
        """Call a unary method as an engine does."""
        method = self.methods[f"/{SERVICE}/{name}"]
        assert isinstance(method, Unary)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def respond(answer: bytes | BaseException) -> None:
            assert not future.done(), "answered twice"
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        method.start(content, call or self.call(), respond)
        return await future

    async def infer(
        self, request: pb.ModelInferRequest, call: Call | None = None
    ) -> pb.ModelInferResponse:
        answer = await self.unary("ModelInfer", request.SerializeToString(), call)
        return pb.ModelInferResponse.FromString(answer)

    async def stream(
        self, requests: Iterable[bytes], call: Call | None = None
    ) -> list[pb.ModelStreamInferResponse]:
        method = self.methods[f"/{SERVICE}/ModelStreamInfer"]
        assert isinstance(method, Stream)

        async def contents() -> AsyncIterator[bytes]:
            for request in requests:
                yield request

        return [
            pb.ModelStreamInferResponse.FromString(response)
            async for response in method.run(contents(), call or self.call())
        ]

    async def http(
        self,
        method: str,
        path: str,
        body: bytes | Any = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-length": str(len(content)), **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
        }
        sent: list[Any] = []
        pending = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Any:
            if pending:
                return pending.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        await self.http_app(scope, receive, send)
        start, *parts = sent
        return Reply(
            start["status"],
            {k.decode(): v.decode() for k, v in start["headers"]},
            b"".join(part["body"] for part in parts),
        )

    def close(self) -> None:
        self.workshop.close()


def random_indices(rows: int, seed: int = 0) -> np.ndarray:
    """Return valid indices, int32 [rows, fields]."""
    random = np.random.default_rng(seed)
    columns = [random.integers(size, size=rows) for size in SIZES.values()]
    return np.stack(columns, axis=1).astype(np.int32)


def cells_of(indices: np.ndarray) -> list[bytes]:
    """Return the tokens of rows, flattened."""
    columns = _COLUMNS
    return [columns[i % FIELDS][index] for i, index in enumerate(indices.ravel().tolist())]


def raw_bytes(elements: Iterable[bytes]) -> bytes:
    """Return elements as a raw BYTES tensor."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def tokens_request(model: str, indices: np.ndarray, **fields: Any) -> pb.ModelInferRequest:
    """Return a raw request to score rows."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name="tokens", datatype="BYTES", shape=indices.shape)
    request.raw_input_contents.append(raw_bytes(cells_of(indices)))
    return request


def elements(content: bytes) -> list[bytes]:
    """Return the elements of a raw BYTES tensor."""
    found, position = [], 0
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "little")
        found.append(content[position + 4 : position + 4 + length])
        position += 4 + length
    return found
