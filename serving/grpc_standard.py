"""Standard gRPC services, for either engine: health checking and server reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from cipherscore.errors import UnknownModel
from serving.call import Call
from serving.rpc import Method, Respond, Stream, Unary, parse

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """``grpc.health.v1.Health`` (gRPC health checking protocol).

    Args:
        services: Full names that are served; the empty name, the server as a whole, is added.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()

    def set(self, serving: bool) -> None:
        """Say whether the server serves."""
        if serving != self._serving:
            self._serving = serving
            self._notify()

    def end(self) -> None:
        """Say that it does not, and end all watches, which would hold up a shutdown."""
        self._serving = False
        self._ended = True
        self._notify()

    def methods(self) -> dict[str, Method]:
        """Return the methods by path."""
        return {
            f"/{HEALTH}/Check": Unary("HealthCheck", None, self._check),
            f"/{HEALTH}/List": Unary("HealthList", None, self._list),
            f"/{HEALTH}/Watch": Stream("HealthWatch", None, self._watch, client_streaming=False),
        }

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        status = _SERVING if self._serving else _NOT_SERVING
        return health_pb2.HealthCheckResponse(
            status=status if service in self._services else _UNKNOWN
        )

    def _check(self, content: bytes, _: Call, respond: Respond) -> None:
        request = parse(health_pb2.HealthCheckRequest(), content)
        if request.service not in self._services:
            raise UnknownModel("the server has no service of this name", field="service")
        respond(self._status(request.service).SerializeToString())

    def _list(self, content: bytes, _: Call, respond: Respond) -> None:
        parse(health_pb2.HealthListRequest(), content)
        statuses = {service: self._status(service) for service in self._services}
        respond(health_pb2.HealthListResponse(statuses=statuses).SerializeToString())

    async def _watch(self, contents: AsyncIterator[bytes], _: Call) -> AsyncIterator[bytes]:
        request = parse(health_pb2.HealthCheckRequest(), await contents.__anext__())
        last = None
        while True:
            changed = self._changed
            answer = self._status(request.service).SerializeToString()
            if answer != last:
                last = answer
                yield answer
            if self._ended:
                return
            await changed.wait()


def reflection_methods(services: Iterable[str]) -> dict[str, Method]:
    """Return the methods of server reflection, under its old name and its present one.

    Their messages are the same on the wire; the library knows the old name only.
    """
    # Its stubs say that it answers nothing.
    servicer: Any = reflection.ReflectionServicer([*services, HEALTH, reflection.SERVICE_NAME])

    async def run(contents: AsyncIterator[bytes], _: Call) -> AsyncIterator[bytes]:
        async for content in contents:
            request = parse(reflection_pb2.ServerReflectionRequest(), content)
            for response in servicer.ServerReflectionInfo(iter([request]), None):
                yield response.SerializeToString()

    method = Stream("Reflection", None, run, client_streaming=True)
    return {
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": method
        for version in ("v1alpha", "v1")
    }
