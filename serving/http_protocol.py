"""Limits on what a connection may cost, where uvicorn has none.

uvicorn's fast protocol has a keep-alive timeout and nothing else: a client could send headers
without end, or one byte a minute, or never read its answer.  `GuardedProtocol` adds limits, at no
cost to a request that arrives in one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http_message import Problem, problem_bytes

CERTIFICATE = "certificate"
"""Key of the ASGI scope's ``state`` under which a client certificate's name is found."""

_SLACK_BYTES = 64 << 20
_REASONS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection, and all of them, may take.

    Attributes:
        connections: Open connections of the process; more are answered 503.
        head_bytes: Request line and headers; more are answered 431.
        body_bytes: Body the application takes; it refuses more itself, and a client that goes on
            sending long after that is cut off.
        grace_seconds: A request must have arrived by then, and an answer been taken ...
        bytes_per_second: ... but for one that moves at this rate.
        certificate_name: Makes the client's name of its verified certificate.
    """

    connections: int = 1_000
    head_bytes: int = 64 << 10
    body_bytes: int = 32 << 20
    grace_seconds: float = 10.0
    bytes_per_second: int = 32 << 10
    certificate_name: Callable[[Mapping[str, Any]], str] = lambda _certificate: ""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol within `ConnectionLimits`."""

    limits = ConnectionLimits()
    _arriving = False
    _in_head = False
    _received = 0
    _begun = 0.0
    _arrival: asyncio.TimerHandle | None = None
    _departure: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and give it some time to begin."""
        if len(self.connections) >= self.limits.connections:
            self.transport = transport
            self._refuse(Problem(503, "too-many-connections", "Too many connections"))
            return
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        if certificate:
            name = self.limits.certificate_name(certificate)
            self.app_state = {**self.app_state, CERTIFICATE: name}
        self._watch_arrival()

    def data_received(self, data: bytes) -> None:
        """Parse ``data``; keep an eye on the rest of the request."""
        super().data_received(data)
        if not self._arriving:
            self._stop(arrival=True)
            return
        self._received += len(data)
        if self._in_head and self._received > self.limits.head_bytes and not self._answering():
            self._refuse(Problem(431, "headers-too-large", "Headers too large"))
        elif self._received > 2 * self.limits.body_bytes + _SLACK_BYTES:
            self.transport.abort()
        elif self._arrival is None:
            self._watch_arrival()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._received = 0

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._arriving = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not take its answer as fast as it is made."""
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._departure = self.loop.call_later(self.limits.grace_seconds, self._check_departure)

    def resume_writing(self) -> None:
        """It took it."""
        super().resume_writing()
        self._stop(departure=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop(arrival=True, departure=True)
        super().connection_lost(exc)

    def _watch_arrival(self) -> None:
        self._begun = self.loop.time()
        self._arrival = self.loop.call_later(self.limits.grace_seconds, self._check_arrival)

    def _check_arrival(self) -> None:
        """Let a request go on that arrives fast enough; end the others.

        Time in which the server itself does not read (it holds enough of the body) is given.
        """
        limits = self.limits
        due = self._begun + limits.grace_seconds + self._received / limits.bytes_per_second
        now = self.loop.time()
        if self.flow.read_paused or self._answering():
            due = max(due, now + limits.grace_seconds)
        if due > now:
            self._arrival = self.loop.call_at(due, self._check_arrival)
            return
        self._arrival = None
        if not self._arriving:
            self.transport.close()
        elif not self._in_head and self.cycle.response_started:
            # Its answer is out, and it still has not sent what it announced.
            self.transport.abort()
        else:
            self._refuse(Problem(408, "request-timeout", "Request timeout"))

    def _answering(self) -> bool:
        """Whether earlier, pipelined requests are still to be answered."""
        if self.pipeline:
            return True
        return self._in_head and bool(self.cycle) and not self.cycle.response_complete

    def _check_departure(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if self._unsent - unsent < self.limits.grace_seconds * self.limits.bytes_per_second:
            self.transport.abort()
            return
        self._unsent = unsent
        self._departure = self.loop.call_later(self.limits.grace_seconds, self._check_departure)

    def _stop(self, *, arrival: bool = False, departure: bool = False) -> None:
        if arrival and self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        if departure and self._departure is not None:
            self._departure.cancel()
            self._departure = None

    def _refuse(self, problem: Problem) -> None:
        """Answer below the application, and close."""
        self._stop(arrival=True)
        body = problem_bytes(problem)
        reason = _REASONS.get(problem.status, b"Service Unavailable")
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%s" % (problem.status, reason, len(body), body)
        )
        self.transport.close()
