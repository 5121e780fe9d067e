"""HTTP/2 by hand: frames as bytes, a transport that is none, a raw client, a server in a thread."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import hpack
import uvloop

from serving.http2.connection import Connection
from serving.http2.limits import Limits
from serving.http2.server import Hub, NativeServer
from tests.support.grpc_app import EchoApp, settings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CALM = 6, 7, 8, 9, 11


@dataclass(frozen=True)
class Frame:
    """A frame as it was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == RST else self.payload[4:8], "big")


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def split(data: bytes) -> list[Frame]:
    """Return the frames in ``data``, which must be whole."""
    found = []
    while data:
        word, flags, stream = struct.unpack_from(">IBI", data)
        size = word >> 8
        assert len(data) >= 9 + size, "a frame is cut"
        found.append(Frame(word & 255, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def message(content: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(content)) + content


GREETING = PREFACE + frame(SETTINGS)


def request_fields(path: str = "/test.Echo/Unary", **more: str) -> list[tuple[str, str]]:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return list(fields.items())


def block(fields: list[tuple[str, str]]) -> bytes:
    """Return a header block that uses no table."""
    return hpack.Encoder().encode([(n, v, True) for n, v in fields], huffman=False)


def headers(stream: int, path: str = "/test.Echo/Unary", flags: int = 0, **more: str) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, stream, block(request_fields(path, **more)))


def unary(
    stream: int, content: bytes = b"hello", path: str = "/test.Echo/Unary", **more: str
) -> bytes:
    return headers(stream, path, **more) + frame(DATA, END_STREAM, stream, message(content))


class FakeTransport:
    """Keeps what is written; takes everything at once unless ``stuck``."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closing = False
        self.aborted = False
        self.ended = False
        self.deaf = False
        self.limit = 0

    def write(self, data: bytes) -> None:
        assert not self.closing
        assert not self.ended, "written after the end"
        self.sent += data

    def set_write_buffer_limits(self, high: int) -> None:
        self.limit = high

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.ended
        self.ended = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        assert not self.deaf
        self.deaf = True

    def resume_reading(self) -> None:
        assert self.deaf
        self.deaf = False


class Wire:
    """A connection of the engine and its client's end, without sockets."""

    def __init__(self, echo: EchoApp | None = None, greet: bool = True, **changes: object) -> None:
        self.echo = echo or EchoApp()
        self.hub = Hub(self.echo.app, Limits.of(settings(**changes)))  # type: ignore[arg-type]
        self.transport = FakeTransport()
        self.connection = Connection(self.hub)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.decoder = hpack.Decoder()
        if greet:
            self.feed(GREETING)
            self.take()

    def feed(self, data: bytes) -> None:
        self.connection.data_received(data)

    def take(self) -> list[Frame]:
        """Return what was sent since the last call."""
        data = bytes(self.transport.sent)
        self.transport.sent.clear()
        return split(data)

    async def exchange(self, data: bytes) -> list[Frame]:
        """Feed, let the loop turn, and return what was sent."""
        self.feed(data)
        await turns()
        return self.take()

    def fields(self, found: Frame) -> dict[str, str]:
        return {n.decode(): v.decode() for n, v in self.decoder.decode(found.payload, raw=True)}

    def lose(self) -> None:
        self.connection.connection_lost(None)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class RawClient:
    """A client that sends what a test wants, over a real socket."""

    def __init__(self, port: int, greet: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(20)
        self.buffer = b""
        if greet:
            self.send(GREETING)

    def send(self, data: bytes) -> None:
        """Send as much as the server takes; a closed connection is no error here."""
        with suppress(ConnectionError, TimeoutError):
            self.socket.sendall(data)

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the server closes."""
        while True:
            while len(self.buffer) >= 9:
                size = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + size:
                    break
                found, self.buffer = split(self.buffer[: 9 + size]), self.buffer[9 + size :]
                yield found[0]
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                return
            if not data:
                return
            self.buffer += data

    def until(self, kind: int) -> Frame:
        """Return the next frame of ``kind``."""
        for found in self.frames():
            if found.kind == kind:
                return found
        raise AssertionError(f"closed before a frame of type {kind}")

    def closed_with(self) -> int | None:
        """Read to the end; return the code of the GOAWAY, None if the server just closed."""
        code = None
        for found in self.frames():
            if found.kind == GOAWAY:
                code = found.code
        return code

    def close(self) -> None:
        self.socket.close()


class ThreadedServer:
    """A native server on an event loop in a thread, so that a test can use blocking clients."""

    def __init__(self, ssl_context: object = None, **changes: object) -> None:
        self.echo = EchoApp()
        self.problems: list[dict[str, object]] = []
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = NativeServer(self.echo.app, settings(**changes), ssl_context)  # type: ignore[arg-type]
        self.run(self.server.start())

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def call(self, function, *arguments):
        async def called():
            return function(*arguments)

        return self.run(called())

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def works(self) -> bool:
        """Return whether a fresh connection gets an answer."""
        client = RawClient(self.port)
        client.send(unary(1, b"alive"))
        kinds = []
        for found in client.frames():
            kinds.append(found.kind)
            if found.kind == DATA:
                client.close()
                return found.payload == message(b"alive")
        return False

    def stop(self) -> None:
        self.run(self.server.drain())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@contextmanager
def threaded_server(ssl_context: object = None, **changes: object) -> Iterator[ThreadedServer]:
    """Serve until the block ends; then nothing may be left open, and nothing unhandled."""
    server = ThreadedServer(ssl_context, **changes)
    try:
        yield server
    finally:
        server.stop()
    assert server.problems == []
    assert server.echo.gate.running == set()
