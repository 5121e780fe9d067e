"""The gRPC transport: ``cipherscore.v1.CipherScore``, standard health and reflection."""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cipherscore.errors import InvalidRequest, RequestError, UnknownClass
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from serving.generation import BAD, GOOD, Chunk, GenerateOrder
from serving.scorer import Scores
from serving.status import Host
from serving.tables import ProtoTable
from serving.work import Workshop

logger = logging.getLogger("bentoml.cipherscore")

SERVICE = pb.DESCRIPTOR.services_by_name["CipherScore"].full_name
CODE_KEY, FIELD_KEY, ROW_KEY = (
    "cipherscore-error-code",
    "cipherscore-error-field",
    "cipherscore-error-row",
)
_CLASSES = {
    pb.CREDIT_CLASS_UNSPECIFIED: None,
    pb.CREDIT_CLASS_GOOD: GOOD,
    pb.CREDIT_CLASS_BAD: BAD,
}
_WIRE_CLASSES = np.array([pb.CREDIT_CLASS_GOOD, pb.CREDIT_CLASS_BAD])
_NARROW = 256
_LAST_MOMENT = 0.2
"""Seconds left to connections once no call of ours runs; only health watches are still open."""

_Request = TypeVar("_Request", bound=Message)
_Result = TypeVar("_Result")
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class GrpcServer:
    """The gRPC server of one worker.

    Args:
        host: What answers.
        workshop: Where big batches are computed.
    """

    def __init__(self, host: Host, workshop: Workshop) -> None:
        self._host = host
        self._workshop = workshop
        self._settings = host.settings
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # lazily made
        self._server = self._build()

    def _build(self) -> grpc.aio.Server:
        limit = self._settings.max_message_bytes
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limit),
                # Several workers share the port; a single one must notice that it is taken.
                ("grpc.so_reuseport", int(self._settings.workers > 1)),
            ]
        )
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Score": grpc.unary_unary_rpc_method_handler(self.score),
            "ScoreStream": grpc.stream_stream_rpc_method_handler(self.score_stream),
            "Generate": grpc.unary_stream_rpc_method_handler(self.generate),
            "GetModel": grpc.unary_unary_rpc_method_handler(self.get_model),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        return server

    async def start(self) -> None:
        """Bind and serve; from here on health says SERVING.  The models are loaded by now."""
        address = f"{self._settings.grpc_host}:{self._settings.grpc_port}"
        self._server.add_insecure_port(address)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        logger.info("gRPC on %s", address)

    async def drain(self) -> None:
        """Say NOT_SERVING, take no new call, let running ones end, then close."""
        self._host.draining = True
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.ensure_future(self._server.stop(self._settings.drain_seconds))
        idle = asyncio.ensure_future(self._idle.wait())
        await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # An open health watch would hold the whole grace period.
        await self._server.stop(_LAST_MOMENT)
        await stopping

    # ---- methods; they take and give bytes, so that a malformed message is answered here

    async def score(self, content: bytes, context: _Context) -> bytes:
        """Answer ``Score``."""
        return await self._answer(context, lambda: self._score(content))

    async def score_stream(
        self, contents: AsyncIterator[bytes], context: _Context
    ) -> AsyncIterator[bytes]:
        """Answer ``ScoreStream``: one response per request, in order."""
        with self._counted():
            async for content in contents:
                yield await self._answer(context, functools.partial(self._score, content))

    async def generate(self, content: bytes, context: _Context) -> AsyncIterator[bytes]:
        """Answer ``Generate``: chunks are made as fast as the client takes them."""
        with self._counted():
            responses = self._generate(content)
            while True:
                response = await self._answer(context, lambda: anext_or_none(responses))
                if response is None:
                    return
                yield response

    async def get_model(self, content: bytes, context: _Context) -> bytes:
        """Answer ``GetModel``."""
        return await self._answer(context, lambda: self._get_model(content))

    async def _score(self, content: bytes) -> bytes:
        request = _parse(pb.ScoreRequest(), content)
        scorer = self._host.scorer
        table = ProtoTable(request.table)

        def compute() -> bytes:
            return _score_response(scorer.score(request.key_id, table)).SerializeToString()

        return await self._workshop.run(table.rows, compute)

    async def _generate(self, content: bytes) -> AsyncIterator[bytes]:
        request = _parse(pb.GenerateRequest(), content)
        generator = self._host.generator
        if request.credit_class not in _CLASSES:
            raise UnknownClass("credit_class is none of those known", field="credit_class")
        order = GenerateOrder(
            key_id=request.key_id,
            count=request.count,
            credit_class=_CLASSES[request.credit_class],
            seed=request.seed if request.HasField("seed") else None,
            noise=_noise(request, generator.model.record.noise_width or 1),
        )
        seed, chunks = generator.start(order)
        vocabulary = generator.model.vocabulary

        def compute() -> Iterator[bytes]:
            for chunk in chunks:
                response = pb.GenerateResponse(
                    table=_table(chunk, vocabulary.tokens),
                    credit_class=_WIRE_CLASSES[chunk.credit_class].tolist(),
                    model=generator.model.tag,
                    seed=seed,
                )
                yield response.SerializeToString()

        async for response in self._workshop.iterate(order.count, compute()):
            yield response

    async def _get_model(self, content: bytes) -> bytes:
        request = _parse(pb.GetModelRequest(), content)
        return pb.Model(**self._host.model_facts(request.kind)).SerializeToString()

    # ---- errors and counting

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _answer(self, context: _Context, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return what ``work`` gives; end the call with a status when it refuses or fails."""
        with self._counted():
            try:
                return await work()
            except RequestError as error:
                await context.abort(
                    getattr(grpc.StatusCode, error.grpc_status), error.detail, _metadata(error)
                )
            except Exception as error:  # noqa: BLE001 - the last resort; it is logged
                log_failure("gRPC", error)
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")


async def anext_or_none(items: AsyncIterator[bytes]) -> bytes | None:
    """Return the next item, or None at the end."""
    with suppress(StopAsyncIteration):
        return await items.__anext__()
    return None


def log_failure(transport: str, error: BaseException) -> None:
    """Log where a bug struck, but not its message, which may hold a part of the request."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: internal error %s\n%s", transport, type(error).__name__, where)


def _metadata(error: RequestError) -> tuple[tuple[str, str], ...]:
    found = [(CODE_KEY, error.code)]
    if error.field is not None:
        found.append((FIELD_KEY, error.field))
    if error.row is not None:
        found.append((ROW_KEY, str(error.row)))
    return tuple(found)


def _parse(message: _Request, content: bytes) -> _Request:
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise InvalidRequest("the message is malformed") from error
    return message


def _score_response(scores: Scores) -> pb.ScoreResponse:
    return pb.ScoreResponse(
        probability=scores.probability.tolist(),
        decision=_WIRE_CLASSES[scores.bad.astype(np.intp)].tolist(),
        model=scores.model,
        threshold=scores.threshold,
    )


def _noise(request: pb.GenerateRequest, width: int) -> np.ndarray | None:
    """Return float32 [rows, width]; a length that fits no row is left for the check to refuse."""
    if not request.noise:
        return None
    flat = np.array(request.noise, dtype=np.float32)
    return flat.reshape(-1, width) if len(flat) % width == 0 else flat.reshape(1, -1)


def _table(chunk: Chunk, tokens: Any) -> pb.TokenTable:
    """Return a chunk as wire columns; a field's dictionary is its vocabulary, or what is used."""
    table = pb.TokenTable(rows=len(chunk.indices))
    for position, (field, vocabulary) in enumerate(tokens.items()):
        indices = chunk.indices[:, position]
        dictionary = vocabulary
        if len(vocabulary) > _NARROW:
            used, indices = np.unique(indices, return_inverse=True)
            dictionary = [vocabulary[index] for index in used]
        width = np.uint8 if len(dictionary) <= _NARROW else np.dtype("<u2")
        table.columns.add(
            field=field, dictionary=dictionary, indices=indices.astype(width).tobytes()
        )
    return table
