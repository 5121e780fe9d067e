"""The one way into the server: every request is admitted here first and finished here last."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Protocol

from cipherscore.errors import Draining, Overloaded, RequestError
from serving.access import Access
from serving.call import Call, Scope, Transport
from serving.pressure import RETRY_SECONDS, Pressure

REQUEST_ID = "x-request-id"
TRACE_PARENT = "traceparent"
_MAX_REQUEST_ID = 48
"""Shorter than the shortest token in its text form, so that none can pass for an id."""
_TRACE_PARENT_LENGTH = 55
BEHIND = "the server is behind with earlier requests"
ENDING = "the server is shutting down"
ENDING_RETRY = 1.0
"""Seconds after which a request refused for that may come again: to another worker or server."""


class Observer(Protocol):
    """Who counts, logs and traces requests."""

    def started(self, call: Call) -> None:
        """A request was admitted."""

    def finished(self, call: Call, code: str) -> None:
        """It was answered; ``code`` is ok, a `RequestError.code`, cancelled or internal."""

    def refused(self, transport: Transport, method: str, code: str, count: int = 1) -> None:
        """Requests were not admitted."""


class Gate:
    """Authenticates, limits, counts.

    Args:
        access: Who may do what, and how much of it.
        observer: Told about every request.
        max_deadline: Longest deadline of work in seconds; a longer or no deadline gets this one.
    """

    def __init__(self, access: Access, observer: Observer, max_deadline: float) -> None:
        self._access = access
        self._observer = observer
        self._max_deadline = max_deadline
        self._running = 0
        self._idle: asyncio.Event | None = None
        self.draining = False
        self.pressure = Pressure()

    @property
    def running(self) -> int:
        """Requests that are admitted and not finished."""
        return self._running

    def admit(
        self,
        transport: Transport,
        method: str,
        scope: Scope | None,
        headers: Mapping[str, str],
        certificate: str = "",
        timeout: float | None = None,
    ) -> Call:
        """Let a request in.

        Args:
            transport: What carried it.
            method: Short name, of a fixed set.
            scope: What the client must be allowed to do; None is open to everybody.
            headers: HTTP headers or gRPC metadata, names in lower case.
            certificate: Name in the verified client certificate, if there is one.
            timeout: Seconds the caller waits.

        Raises:
            Unauthenticated, PermissionDenied, RateLimited, Draining, Overloaded: As their names
                say.
        """
        now = time.monotonic()
        try:
            # The gRPC engines refuse new calls themselves, after a last moment in which what is
            # on its way still gets in.
            if self.draining and transport == "http" and scope is not None:
                raise Draining(ENDING, retry_after=ENDING_RETRY)
            # Over HTTP a refusal costs nearly what an answer does, and a connection has one request
            # under way, so nothing would be gained.
            if transport == "grpc" and self.pressure.late(now) and scope is not None:
                raise Overloaded(BEHIND, retry_after=RETRY_SECONDS)
            client = self._access.identify(headers, certificate, required=scope is not None)
            slot = self._access.enter(client, scope)
        except RequestError as error:
            self._observer.refused(transport, method, error.code)
            raise
        # What is open to everybody computes nothing; a health watch may stay open for ever.
        limit = self._max_deadline if scope is not None else math.inf
        if timeout is not None:
            limit = min(limit, timeout)
        call = Call(
            transport, method, client.name, now, now + limit, scopes=client.scopes, slot=slot
        )
        if REQUEST_ID in headers:
            call.request_id = _printable(headers[REQUEST_ID], _MAX_REQUEST_ID)
        if TRACE_PARENT in headers:
            call.traceparent = _printable(headers[TRACE_PARENT], _TRACE_PARENT_LENGTH)
        self._running += 1
        self._observer.started(call)
        return call

    def finish(self, call: Call, code: str) -> None:
        """End a request that was admitted; exactly once."""
        self._running -= 1
        if self._idle is not None and not self._running:
            self._idle.set()
        self._access.leave(call.slot)
        self._observer.finished(call, code)

    def shed(self, method: str, count: int) -> None:
        """Count gRPC requests that were refused under pressure without being looked at."""
        self._observer.refused("grpc", method, Overloaded.code, count)

    def charge(self, call: Call) -> None:
        """Count one more message of a running stream against the client's rate.

        Raises:
            RateLimited: The client is over it.
        """
        self._access.charge(call.slot)

    async def idle(self) -> None:
        """Wait until no request runs."""
        while self._running:
            self._idle = asyncio.Event()
            await self._idle.wait()


def _printable(text: str, limit: int) -> str:
    """Return a caller's text if it may stand in a log line and a header, else nothing."""
    return text if len(text) <= limit and text.isascii() and text.isprintable() else ""
