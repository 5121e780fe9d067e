"""The native engine's server: sockets, and what all connections share."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from functools import partial
from typing import Final

from cipherscore.errors import ConfigurationError
from serving.http2.connection import Connection
from serving.http2.deadlines import Deadlines
from serving.http2.lifecycle import Lifecycle
from serving.http2.limits import (
    GOAWAY_SECONDS,
    HANDSHAKE_SECONDS,
    HELD_MESSAGES_OF_ALL,
    LINGER_SECONDS,
    Limits,
)
from serving.http2.requests import interpret
from serving.rpc import GrpcApp
from serving.settings import Settings

logger = logging.getLogger("bentoml.cipherscore")

_CHECK_SECONDS: Final = 1.0
_BACKLOG: Final = 1_024
_POLL_SECONDS: Final = 0.01


class Hub:
    """What the connections of one worker share.

    Attributes:
        gate: Admits and finishes calls.
        limits: Bounds that an operator sets.
        deadlines: Ends calls that take too long.
        connections: Those that are open.
        draining: Whether the server is shutting down.
        held: Bytes of incomplete requests.
    """

    def __init__(self, app: GrpcApp, limits: Limits) -> None:
        self.gate = app.gate
        self.limits = limits
        self.deadlines = Deadlines()
        self.connections: set[Lifecycle] = set()
        self.draining = False
        self.held = 0
        self.interpret = partial(interpret, methods=app.methods)
        self._checked = 0.0
        self._checking = False
        self._shed: dict[str, int] = {}

    @property
    def has_room(self) -> bool:
        """Whether the bytes held are within bounds."""
        return self.held <= HELD_MESSAGES_OF_ALL * self.limits.message_bytes

    def enter(self, connection: Lifecycle) -> None:
        """Add a connection, and see to the open ones once a second from now on."""
        self.connections.add(connection)
        if not self._checking:
            self._checking = True
            self._checked = time.monotonic()
            asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check)

    def leave(self, connection: Lifecycle) -> None:
        """Remove a connection; one that never entered is none of them."""
        self.connections.discard(connection)

    def count_shed(self, method: str) -> None:
        """Count a call refused under pressure; told together, so that it costs next to nothing."""
        if not self._shed:
            asyncio.get_running_loop().call_soon(self._tell_shed)
        self._shed[method] = self._shed.get(method, 0) + 1

    def _tell_shed(self) -> None:
        shed, self._shed = self._shed, {}
        for method, count in shed.items():
            self.gate.shed(method, count)

    def _check(self) -> None:
        now = time.monotonic()
        seconds, self._checked = now - self._checked, now
        for connection in list(self.connections):
            connection.check(now, seconds)
        self._checking = bool(self.connections)
        if self._checking:
            asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check)


class NativeServer:
    """The gRPC server of one worker.

    Args:
        app: The methods, and the gate before them.
        settings: Address, workers and bounds.
        ssl_context: TLS that offers ``h2`` by ALPN; None for plain HTTP/2 (prior knowledge).
    """

    def __init__(
        self, app: GrpcApp, settings: Settings, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._ssl = ssl_context
        self._hub = Hub(app, Limits.of(settings))
        self._server: asyncio.AbstractServer | None = None
        self._port = settings.grpc_port

    @property
    def port(self) -> int:
        """The port it is bound to."""
        return self._port

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._hub.connections)

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            ConfigurationError: The address cannot be bound.
        """
        settings = self._settings
        address = f"{settings.grpc_host}:{settings.grpc_port}"
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._hub),
                settings.grpc_host.strip("[]"),  # as gRPC writes an IPv6 address
                settings.grpc_port,
                backlog=_BACKLOG,
                # Several workers share the port; a single one must notice that it is taken.
                reuse_port=settings.workers > 1 or None,
                ssl=self._ssl,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._ssl is not None else None,
            )
        except OSError as error:
            raise ConfigurationError(f"gRPC cannot listen on {address}: {error}") from error
        self._server = server
        self._port = server.sockets[0].getsockname()[1]
        logger.info("gRPC on %s:%s", settings.grpc_host, self._port)

    async def drain(self) -> None:
        """Take no new connection and no new call, let running ones end, then close.

        Calls that clients sent before they could know are still answered (RFC 9113, section 6.8).
        Open streams of methods without a scope, as health watches are, do not hold this up.
        """
        hub = self._hub
        hub.draining = True
        if self._server is not None:
            self._server.close()
        end = time.monotonic() + GOAWAY_SECONDS + self._settings.drain_seconds
        for connection in list(hub.connections):
            connection.warn()
        # Looked at again and again: an event would cost each call something.
        while time.monotonic() < end and any(c.busy for c in hub.connections):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        for connection in list(hub.connections):
            connection.end_calls()
        end = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < end and hub.connections:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        for connection in list(hub.connections):
            connection.transport.abort()
