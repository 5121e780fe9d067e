"""A gRPC application without models, for tests of the engines."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace

from cipherscore.errors import InvalidRequest, Unauthenticated
from serving.call import Call, Scope
from serving.http2.server import NativeServer
from serving.pressure import Pressure
from serving.rpc import GrpcApp, Method, Respond, Stream, Unary


class GateDouble:
    """Admits everybody but who says ``x-api-key: wrong``; counts what begins and ends."""

    def __init__(self) -> None:
        self.admitted: list[Call] = []
        self.codes: Counter[str] = Counter()
        self.seen: list[tuple[Mapping[str, str], str, float | None]] = []
        self.running: set[int] = set()
        self.draining = False
        self.remembers = True
        self.pressure = Pressure()
        self.refused: Counter[str] = Counter()

    def admit(
        self,
        transport: str,
        method: str,
        scope: Scope | None,
        headers: Mapping[str, str],
        certificate: str = "",
        timeout: float | None = None,
    ) -> Call:
        if headers.get("x-api-key") == "wrong":
            raise Unauthenticated("no such key")
        now = time.monotonic()
        call = Call("grpc", method, "test", now, now + (60.0 if timeout is None else timeout))
        if self.remembers:
            self.seen.append((headers, certificate, timeout))
            self.admitted.append(call)
            self.running.add(id(call))
        return call

    def shed(self, method: str, count: int) -> None:
        self.refused[method] += count

    def finish(self, call: Call, code: str) -> None:
        if self.remembers:
            self.running.remove(id(call))  # a second finish is a KeyError
            self.codes[code] += 1


class EchoApp:
    """Methods that echo, wait, fail and stream."""

    def __init__(self) -> None:
        self.gate = GateDouble()
        self.ended: Counter[str] = Counter()
        self.pending: list[tuple[bytes, Respond]] = []
        methods: dict[str, Method] = {
            "/test.Echo/Unary": Unary("Unary", "score", self.unary),
            "/test.Echo/Later": Unary("Later", "score", self.later),
            "/test.Echo/Never": Unary("Never", "score", self.never),
            "/test.Echo/Refuse": Unary("Refuse", "score", self.refuse),
            "/test.Echo/Break": Unary("Break", "score", self.broken),
            "/test.Echo/Big": Unary("Big", "score", self.big),
            "/test.Echo/Bidi": Stream("Bidi", "score", self.bidi, client_streaming=True),
            "/test.Echo/Count": Stream("Count", "score", self.count, client_streaming=False),
            "/test.Echo/Sum": Stream("Sum", "score", self.sum, client_streaming=True),
            "/test.Echo/Stuck": Stream("Stuck", "score", self.stuck, client_streaming=True),
            "/test.Echo/BreakStream": Stream(
                "BreakStream", "score", self.half, client_streaming=True
            ),
            "/test.Echo/Watch": Stream("Watch", None, self.watch, client_streaming=False),
        }
        self.app = GrpcApp(methods, self.gate)  # type: ignore[arg-type]

    def unary(self, content: bytes, call: Call, respond: Respond) -> None:
        respond(content)

    def later(self, content: bytes, call: Call, respond: Respond) -> None:
        asyncio.get_running_loop().call_soon(respond, content)

    def never(self, content: bytes, call: Call, respond: Respond) -> None:
        self.pending.append((content, respond))

    def refuse(self, content: bytes, call: Call, respond: Respond) -> None:
        if content:
            raise InvalidRequest("refused: ü%\n", field="fiéld\r\nx", row=3)
        respond(InvalidRequest("later", retry_after=0.5))

    def broken(self, content: bytes, call: Call, respond: Respond) -> None:
        raise RuntimeError("secret")

    def big(self, content: bytes, call: Call, respond: Respond) -> None:
        respond(bytes(int(content)))

    async def bidi(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        try:
            async for content in contents:
                yield content
        finally:
            self.ended["bidi"] += 1

    async def count(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        wanted = int(await contents.__anext__())
        try:
            for number in range(wanted):
                self.ended["made"] += 1
                yield b"%d" % number + bytes(1000)
        finally:
            self.ended["count"] += 1

    async def sum(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        total = 0
        async for content in contents:
            total += len(content)
        yield b"%d" % total

    async def stuck(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        try:
            async for _ in contents:
                await asyncio.Event().wait()
            yield b"ended"
        finally:
            self.ended["stuck"] += 1

    async def half(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        async for content in contents:
            yield content
            raise InvalidRequest("no more") if content == b"refuse" else RuntimeError("secret")

    async def watch(self, contents: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        yield await contents.__anext__()
        await asyncio.Event().wait()


def settings(**changes: object) -> SimpleNamespace:
    """Return the settings an engine reads, with a port of the system's choice."""
    values: dict[str, object] = {
        "grpc_host": "127.0.0.1",
        "grpc_port": 0,
        "workers": 1,
        "max_message_bytes": 32 << 20,
        "max_streams": 256,
        "max_connections": 100,
        "drain_seconds": 5.0,
        **changes,
    }
    return SimpleNamespace(**values)


@asynccontextmanager
async def native_server(echo: EchoApp, ssl_context: object = None, **changes: object):
    """Serve ``echo`` until the block ends."""
    server = NativeServer(echo.app, settings(**changes), ssl_context)  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.drain()
