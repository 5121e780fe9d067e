"""The compatible gRPC engine: ``grpc.aio``.  See `serving.http2` for the fast one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import grpc
import grpc.aio

from cipherscore.errors import ConfigurationError, RequestError
from serving import rpc
from serving.call import Call
from serving.futures import settle
from serving.rpc import GrpcApp, Method, Stream, Unary
from serving.settings import Settings
from serving.tls import grpc_certificate

logger = logging.getLogger("bentoml.cipherscore")

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_LAST_MOMENT = 0.2
"""Seconds left to connections once no call of ours runs."""


class GrpcServer:
    """A gRPC server of one worker on the grpcio library.

    Args:
        app: What it serves.
        settings: Address, limits and so on.
        credentials: TLS; None serves plain text.
    """

    def __init__(
        self, app: GrpcApp, settings: Settings, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._app = app
        self._settings = settings
        self._credentials = credentials
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_concurrent_streams", settings.max_streams),
                # Several workers share the port; a single one must notice that it is taken.
                ("grpc.so_reuseport", int(settings.workers > 1)),
            ]
        )
        self._server.add_generic_rpc_handlers((_Handlers(app),))

    @property
    def connections(self) -> int:
        """Always 0: grpc.aio does not tell."""
        return 0

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            ConfigurationError: The address cannot be bound.
        """
        address = f"{self._settings.grpc_host}:{self._settings.grpc_port}"
        try:
            if self._credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise ConfigurationError(f"the gRPC address {address} cannot be bound") from error
        await self._server.start()
        logger.info("gRPC on %s (grpcio)", address)

    async def drain(self) -> None:
        """Take no new call, let running ones end, then close."""
        stopping = asyncio.ensure_future(self._server.stop(self._settings.drain_seconds))
        idle = asyncio.ensure_future(self._app.gate.idle())
        await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await self._server.stop(_LAST_MOMENT)
        await stopping


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # no generic when run
    """Finds the method of a call; grpcio answers UNIMPLEMENTED where there is none."""

    def __init__(self, app: GrpcApp) -> None:
        self._found = {path: _handler(app, method) for path, method in app.methods.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._found.get(handler_call_details.method)


def _handler(app: GrpcApp, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(_unary(app, method))
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(_stream(app, method))
    return grpc.unary_stream_rpc_method_handler(_answered(_stream(app, method)))


def _answered(
    stream: Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]],
) -> Callable[[bytes, _Context], AsyncIterator[bytes]]:
    """Return ``stream`` for a single request; grpcio wants a generator function."""

    async def run(content: bytes, context: _Context) -> AsyncIterator[bytes]:
        async for response in stream(_once(content), context):
            yield response

    return run


def _unary(app: GrpcApp, method: Unary) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def run(content: bytes, context: _Context) -> bytes:
        call = await _admit(app, method, context)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        code = rpc.CANCELLED
        try:
            method.start(content, call, settle(future))
            answer = await future
            code = rpc.OK
        except Exception as error:
            code = rpc.outcome(error)
            await _abort(context, error)
            raise
        else:
            return answer
        finally:
            call.cancelled = code == rpc.CANCELLED
            app.gate.finish(call, code)

    return run


def _stream(
    app: GrpcApp, method: Stream
) -> Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]]:
    async def run(contents: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        call = await _admit(app, method, context)
        code = rpc.CANCELLED
        try:
            async for response in method.run(contents, call):
                yield response
            code = rpc.OK
        except Exception as error:  # noqa: BLE001 - turned into a status
            code = rpc.outcome(error)
            await _abort(context, error)
        finally:
            call.cancelled = code == rpc.CANCELLED
            app.gate.finish(call, code)

    return run


async def _admit(app: GrpcApp, method: Method, context: _Context) -> Call:
    headers = {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }
    try:
        return app.gate.admit(
            "grpc",
            method.name,
            method.scope,
            headers,
            grpc_certificate(context.auth_context()),
            context.time_remaining(),
        )
    except RequestError as error:
        await _abort(context, error)
        raise


async def _abort(context: _Context, error: BaseException) -> None:
    code, message, metadata = rpc.trailers(error)
    status = next(status for status in grpc.StatusCode if status.value[0] == code)
    await context.abort(status, message, metadata)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
