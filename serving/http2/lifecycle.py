"""A connection from its first byte to its last: greeting, bounds, draining, closing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from serving.gate import ENDING
from serving.http2.exchanges import Exchange
from serving.http2.frames import (
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PING,
    WINDOW_LIMIT,
    ConnectionFault,
    frame,
    goaway,
    settings,
    window_update,
)
from serving.http2.headers import HeaderReader
from serving.http2.limits import (
    CONNECTION_WINDOW,
    DISCARDED_BYTES,
    GOAWAY_SECONDS,
    HANDSHAKE_SECONDS,
    HEADER_LIST_BYTES,
    HELD_MESSAGES,
    IDLE_SECONDS,
    LATE_STREAMS,
    LINGER_SECONDS,
    OUTPUT_BYTES,
    SKIPPED_IDS,
    STALL_SECONDS,
    STREAM_WINDOW,
    Budget,
)
from serving.http2.messages import UNAVAILABLE, CallFault
from serving.http2.outflow import Outflow
from serving.http2.requests import Meaning
from serving.tls import certificate_name

if TYPE_CHECKING:
    from serving.http2.server import Hub

LEAVING: Final = b"leaving\0"
"""Payload of the ping behind the first GOAWAY."""
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


class Lifecycle(asyncio.Protocol):
    """What a connection is and how it ends.  Its frames are `Dispatch`'s and `Connection`'s.

    Attributes:
        hub: What all connections share.
        out: What is to be sent.
        streams: Open exchanges by stream id.
        reader: Decodes header blocks.
        certificate: Name in the client's verified certificate, or empty.
        last_id: Highest stream id that the client used.
        room: Bytes of DATA that the client may send.
        accepting: Whether new streams are taken.
        greeted: Whether the client's preface and settings came.
        closing: Whether the connection is given up; what still comes is discarded.
    """

    out: Outflow
    transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.streams: dict[int, Exchange] = {}
        self.reader: HeaderReader[Meaning] = HeaderReader(hub.interpret)
        self.budget = Budget()
        self.certificate = ""
        self.last_id = -1
        self.room = CONNECTION_WINDOW
        self.accepting = True
        self.greeted = False
        self.closing = False
        self.active = self.block_since = time.monotonic()
        self.block_id = 0
        self.late: dict[int, None] = {}
        self.skipped: deque[tuple[int, int]] = deque(maxlen=SKIPPED_IDS)
        self.skipped_ids = 0
        self._held = 0
        self._discarded = 0
        self._linger_until = 0.0
        self._stalled = (0, 0.0)
        self._deaf = False
        self.backlog = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, or send it away."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=OUTPUT_BYTES)
        self.out = Outflow(self.transport, self.budget)
        hub = self.hub
        secured = transport.get_extra_info("ssl_object")
        if secured is not None:
            if secured.selected_alpn_protocol() != "h2":
                self.closing = True
                self.transport.close()
                return
            self.certificate = certificate_name(transport.get_extra_info("peercert"))
        _keep_alive(transport.get_extra_info("socket"))
        announced = (
            (MAX_CONCURRENT_STREAMS, hub.limits.streams),
            (INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES),
        )
        self.out.push(settings(announced))
        self.out.push(window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
        full = len(hub.connections) >= hub.limits.connections
        hub.enter(self)
        if full:
            self.give_up(ENHANCE_YOUR_CALM, "too many connections")
        elif hub.draining:
            self.give_up(NO_ERROR, "shutting down")
        self.out.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is left."""
        del exc
        self.closing = True
        self._cancel_all()
        self.hub.leave(self)

    def eof_received(self) -> None:
        """Close: nobody is there to take an answer."""

    def pause_writing(self) -> None:
        """Read nothing more from a client that does not read."""
        self.out.paused = True
        self._stalled = (self.transport.get_write_buffer_size(), time.monotonic())
        self.listen()

    def resume_writing(self) -> None:
        """Go on."""
        self.out.resume()
        self.listen()

    def listen(self) -> None:
        """Read, or do not, as the output and what was read before allow it."""
        deaf = (self.out.paused or self.backlog) and not self.closing
        if deaf != self._deaf and not self.transport.is_closing():
            self._deaf = deaf
            if deaf:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # ---- for exchanges

    def forget(self, exchange: Exchange) -> None:
        """Take an exchange off the list: it is closed."""
        del self.streams[exchange.id]
        if not exchange.ended:
            self.tolerate(exchange.id)
        if not (self.streams or self.accepting or self.closing):
            self.part()

    def tolerate(self, stream_id: int) -> None:
        """Ignore what is on its way on a stream that was ended before the client ended it."""
        self.late[stream_id] = None
        if len(self.late) > LATE_STREAMS:
            del self.late[next(iter(self.late))]

    def hold(self, more: int) -> bool:
        """Count bytes of incomplete requests; return whether they are within bounds."""
        self._held += more
        self.hub.held += more
        limits = self.hub.limits
        return self._held <= HELD_MESSAGES * limits.message_bytes and self.hub.has_room

    @property
    def busy(self) -> bool:
        """Whether a draining server must wait for it."""
        if self.closing:
            return False
        return self.accepting or any(stream.waits_for_work for stream in self.streams.values())

    # ---- allowances

    @property
    def opened(self) -> int:
        """Streams that the client opened."""
        return (self.last_id + 1) // 2 - self.skipped_ids

    def chore(self, cost: int = 1) -> None:
        """Count work that the client asks for without a call.

        Raises:
            ConnectionFault: It was too much.
        """
        self.budget.chores -= cost
        if self.budget.chores < 0 and self.budget.earn(self.opened).chores < 0:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames without a call")

    def count_reset(self) -> None:
        """Count a stream that ended early, by the client or for its fault.

        Raises:
            ConnectionFault: There were too many.
        """
        self.budget.resets -= 1
        if self.budget.resets < 0 and self.budget.earn(self.opened).resets < 0:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many streams were reset")

    # ---- the end

    def give_up(self, code: int, reason: str) -> None:
        """Send a GOAWAY that ends everything, and close."""
        if self.closing:
            return
        self.closing = True
        self.accepting = False
        self._cancel_all()
        self.out.push(goaway(max(self.last_id, 0), code, reason))
        self._linger()

    def warn(self) -> None:
        """Begin to drain: tell the client to open no more streams, but take those on their way."""
        if not self.accepting or self.closing:
            return
        if not self.greeted:
            self.give_up(NO_ERROR, "shutting down")
            return
        self.out.push(goaway(WINDOW_LIMIT, NO_ERROR))
        self.out.push(frame(PING, 0, 0, LEAVING))
        asyncio.get_running_loop().call_later(GOAWAY_SECONDS, self.refuse_streams)

    def refuse_streams(self) -> None:
        """Take no new stream; the client knows by now, and which ones were taken."""
        if not self.accepting or self.closing:
            return
        self.accepting = False
        self.out.push(goaway(max(self.last_id, 0), NO_ERROR))
        for exchange in list(self.streams.values()):
            exchange.leave()
        if not self.streams:
            self.part()

    def end_calls(self) -> None:
        """End all calls that run, and part."""
        self.accepting = False
        for exchange in list(self.streams.values()):
            exchange.fail(CallFault(UNAVAILABLE, ENDING, "cancelled"))
        if not self.closing:
            self.part()

    def part(self) -> None:
        """Close, once all is sent."""
        self.closing = True
        self._linger()

    def _linger(self) -> None:
        """End the sending side, and wait for the client to end its own.

        Closing with something unread would make the kernel reset the connection, and the client
        might not see what was sent last.
        """
        self._linger_until = time.monotonic() + LINGER_SECONDS
        self.out.flush()
        self.listen()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def discard(self, size: int) -> None:
        """Take note of bytes that nobody reads."""
        self._discarded += size
        if self._discarded > DISCARDED_BYTES:
            self.transport.abort()

    def _cancel_all(self) -> None:
        for exchange in list(self.streams.values()):
            exchange.cancel()

    # ---- once a second

    def check(self, now: float, seconds: float) -> None:
        """Refill allowances; close if something takes too long.

        Args:
            now: `time.monotonic`.
            seconds: Since the last check.
        """
        self.budget.earn(self.opened)
        self.budget.refill(seconds)
        if self.closing:
            if now > self._linger_until:
                self.transport.abort()
        elif not self.greeted:
            if now - self.active > HANDSHAKE_SECONDS:
                self.transport.abort()
        elif self.block_id and now - self.block_since > HANDSHAKE_SECONDS:
            self.give_up(ENHANCE_YOUR_CALM, "a header block takes too long")
        elif self.out.paused:
            self._check_stall(now)
        elif self.streams:
            self.active = now
        elif now - self.active > IDLE_SECONDS:
            self.refuse_streams()

    def _check_stall(self, now: float) -> None:
        waiting, since = self._stalled
        size = self.transport.get_write_buffer_size()
        if size != waiting:
            self._stalled = (size, now)
        elif now - since > STALL_SECONDS:
            self.transport.abort()


def _keep_alive(sock: Any) -> None:
    """Have the kernel notice clients that vanished without a word."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
