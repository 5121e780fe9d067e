"""What a connection may cost: real sockets, a real uvicorn, small limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from serving.http_app import Front
from serving.http_protocol import CERTIFICATE, ConnectionLimits, GuardedProtocol
from serving.settings import Settings
from serving.tls import certificate_name
from tests.support.certificates import make_authority

LIMITS = ConnectionLimits(
    connections=3,
    head_bytes=2_000,
    body_bytes=10_000,
    grace_seconds=1.0,
    bytes_per_second=100_000,
    certificate_name=certificate_name,
)
BIG = 30_000_000
Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what came; /big with much, /early before the body, /slow late."""
    assert scope["type"] == "http"
    got = b""
    while scope["path"] != "/early":
        message = await receive()
        if message["type"] != "http.request":
            return
        got += message["body"]
        if not message["more_body"]:
            break
    if scope["path"] == "/slow":
        await asyncio.sleep(2.0)
    body = b"x" * BIG if scope["path"] == "/big" else b"got %d" % len(got)
    if scope["path"] == "/name":
        body = scope["state"].get(CERTIFICATE, "").encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server:
    def __init__(self, port: int) -> None:
        self.port = port
        self.open: list[asyncio.StreamWriter] = []

    async def connect(self) -> Talk:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        self.open.append(writer)
        return reader, writer


def served(
    story: Callable[[Server], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    monkeypatch.setattr(GuardedProtocol, "limits", LIMITS)

    @asynccontextmanager
    async def running() -> AsyncIterator[Server]:
        with closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            config = uvicorn.Config(
                app, http=GuardedProtocol, lifespan="off", log_config=None, **options
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listener]))
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            found = Server(listener.getsockname()[1])
            try:
                yield found
            finally:
                for writer in found.open:
                    writer.transport.abort()
                server.should_exit = True
                await serving

    async def main() -> None:
        async with running() as server:
            await asyncio.wait_for(story(server), 20)

    asyncio.run(main())


async def status(reader: asyncio.StreamReader) -> int:
    """Read one answer; return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line[15:])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    await reader.readexactly(length)
    return int(head.split()[1])


def test_the_front_chooses_this_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuardedProtocol, "limits", LIMITS)
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "x")
    Front(app, Settings(max_connections=7, max_message_bytes=5_000))
    config = uvicorn.Config(app, log_config=None)
    config.load()
    assert config.http_protocol_class is GuardedProtocol
    assert (GuardedProtocol.limits.connections, GuardedProtocol.limits.body_bytes) == (7, 5_000)


def test_requests_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
            await asyncio.sleep(0.05)
            writer.write(b"cdPOST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            assert [await status(reader), await status(reader)] == [200, 200]

    served(story, monkeypatch)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTT",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\nabc",
    ],
)
def test_a_request_that_does_not_arrive(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(start)
        assert await status(reader) == 408
        assert await reader.read() == b""

    served(story, monkeypatch)


def test_a_request_that_arrives_drop_by_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        try:
            assert await status(reader) == 408
        finally:
            dripping.cancel()

    served(story, monkeypatch)


def test_a_connection_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, _ = await server.connect()
        assert await reader.read() == b""

    served(story, monkeypatch)


def test_headers_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 3_000)
        assert await status(reader) == 431
        assert await reader.read() == b""

    served(story, monkeypatch)


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        talks = []
        for _ in range(3):
            talks.append(await server.connect())
            talks[-1][1].write(request)
            assert await status(talks[-1][0]) == 200
        reader, writer = await server.connect()
        writer.write(request)
        assert await status(reader) == 503
        talks[0][1].close()
        found = 503
        while found == 503:  # until the server has noticed
            reader, writer = await server.connect()
            writer.write(request)
            found = await status(reader)
        assert found == 200

    served(story, monkeypatch)


def test_a_reader_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(3.0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        with suppress(ConnectionResetError):
            while part := await reader.read(1 << 16):
                got += len(part)
        assert got < BIG

    served(story, monkeypatch)


def test_a_reader_that_takes_its_time_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        got = 0
        while got < BIG:
            part = await reader.read(1 << 20)
            assert part
            got += len(part)
            if got % 40 == 0:
                await asyncio.sleep(0.01)

    served(story, monkeypatch)


def test_an_answer_that_takes_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET / HT")
        assert await status(reader) == 200
        assert await status(reader) == 408

    served(story, monkeypatch)


def test_a_body_after_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\nab")
        assert await status(reader) == 200
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)

    served(story, monkeypatch)


def test_the_name_in_a_client_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = make_authority()
    files = {}
    for name in ("localhost", "bank-a.example"):
        key, certificate = authority.issue(name)
        files[name] = (tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        files[name][0].write_bytes(certificate)
        files[name][1].write_bytes(key)
    root = tmp_path / "root.pem"
    root.write_bytes(authority.certificate)

    async def story(server: Server) -> None:
        for own, expected in ((files["bank-a.example"], b"bank-a.example"), (None, b"")):
            context = ssl.create_default_context(cafile=str(root))
            if own is not None:
                context.load_cert_chain(*own)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
            )
            server.open.append(writer)
            for _ in range(2):
                writer.write(b"GET /name HTTP/1.1\r\nhost: x\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(expected)) == expected

    certificate, key = files["localhost"]
    served(
        story,
        monkeypatch,
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        ssl_ca_certs=str(root),
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
    )
