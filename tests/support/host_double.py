"""A stand-in for the remote host: real gRPC over a real socket, answers that a test can foresee."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.proto.v1 import cipherscore_pb2_grpc as pb_grpc

THRESHOLD = 0.5
MODEL = "test-classifier:1"


def probability(tokens: Sequence[bytes]) -> float:
    """The double's "model": any change of any token or of their order changes the answer."""
    return (zlib.crc32(b"".join(tokens)) % 10_000) / 10_000


def contribution(token: bytes) -> float:
    """The double's reasons: a token decides what its field contributes, exactly in float32."""
    return (zlib.crc32(token) % 4_001 - 2_000) / 1_024


def fail(code: grpc.StatusCode, detail: str = "as told", **metadata: str) -> Callable[..., None]:
    def act(context: Any) -> None:
        context.set_trailing_metadata(
            tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        )
        context.abort(code, detail)

    return act


def sleep(seconds: float) -> Callable[..., None]:
    return lambda _context: time.sleep(seconds)


class HostDouble(pb_grpc.CipherScoreServicer):
    """Answers from tokens alone; before each call it does the next of ``script``."""

    def __init__(self, tokens: Mapping[str, Sequence[bytes]], key_id: str) -> None:
        self.tokens = tokens
        self.key_id = key_id
        self.script: list[Callable[[Any], None]] = []
        self.requests: list[Any] = []
        self.edit: Callable[[Any], None] = lambda _answer: None
        self.chunk = 7

    def _begin(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        if self.script:
            self.script.pop(0)(context)

    def Score(self, request: Any, context: Any) -> Any:
        self._begin(request, context)
        columns = [unpack(column) for column in request.table.columns]
        values = [probability(row) for row in zip(*columns, strict=True)]
        answer = pb.ScoreResponse(
            probability=values,
            decision=[
                pb.CREDIT_CLASS_BAD if v >= THRESHOLD else pb.CREDIT_CLASS_GOOD for v in values
            ],
            model=MODEL,
            threshold=THRESHOLD,
        )
        if request.reasons:
            fields = [column.field for column in request.table.columns]
            explain(answer, fields, list(zip(*columns, strict=True)), request.reasons)
        self.edit(answer)
        return answer

    def Generate(self, request: Any, context: Any) -> Iterator[Any]:
        self._begin(request, context)
        draw = random.Random(request.seed)
        for start in range(0, request.count, self.chunk):
            rows = min(self.chunk, request.count - start)
            columns = [
                pb.TokenColumn(
                    field=field,
                    dictionary=tokens,
                    indices=pack([draw.randrange(len(tokens)) for _ in range(rows)], len(tokens)),
                )
                for field, tokens in self.tokens.items()
            ]
            classes = [request.credit_class or draw.choice((1, 2)) for _ in range(rows)]
            answer = pb.GenerateResponse(
                table=pb.TokenTable(rows=rows, columns=columns), credit_class=classes, model=MODEL
            )
            self.edit(answer)
            yield answer

    def GetModel(self, request: Any, context: Any) -> Any:
        self._begin(request, context)
        answer = pb.Model(
            kind=request.kind,
            model=MODEL,
            key_id=self.key_id,
            fields=list(self.tokens),
            threshold=THRESHOLD,
            metrics={"auc": 0.5},
            max_rows=100,
        )
        self.edit(answer)
        return answer


def explain(answer: Any, fields: Sequence[str], rows: Sequence[Any], count: int) -> None:
    """Add the ``count`` largest contributions of each row to an answer."""
    chosen = []
    for row in rows:
        values = [contribution(token) for token in row]
        order = sorted(range(len(fields)), key=lambda place: -values[place])[:count]
        chosen += [(place, values[place]) for place in order]
    answer.reasons.per_row = count
    answer.reasons.fields.extend(fields)
    answer.reasons.indices = pack([place for place, _ in chosen], len(fields))
    answer.reasons.contribution.extend(value for _, value in chosen)
    answer.reasons.base = -0.75


def pack(indices: Sequence[int], size: int) -> bytes:
    """Written apart from the client's code: one byte each up to 256 entries, else two."""
    width = 1 if size <= 256 else 2
    return b"".join(index.to_bytes(width, "little") for index in indices)


def unpack(column: Any) -> list[bytes]:
    """The token of each row of a ``TokenColumn``."""
    width = 1 if len(column.dictionary) <= 256 else 2
    raw = column.indices
    return [
        column.dictionary[int.from_bytes(raw[at : at + width], "little")]
        for at in range(0, len(raw), width)
    ]


@contextmanager
def serve(host: HostDouble, port: int = 0, credentials: Any = None) -> Iterator[int]:
    """Serve ``host`` on loopback; yields the port."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_CipherScoreServicer_to_server(host, server)
    address = f"127.0.0.1:{port}"
    bound = (
        server.add_secure_port(address, credentials)
        if credentials
        else server.add_insecure_port(address)
    )
    server.start()
    try:
        yield bound
    finally:
        server.stop(None).wait()
