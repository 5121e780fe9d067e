"""What a connection has to send, and the two windows that say how much may be."""

from __future__ import annotations

import asyncio
from typing import Protocol

from serving.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    FLOW_CONTROL_ERROR,
    FRAME_LIMIT,
    HEAD,
    HEAD_BYTES,
    WINDOW_LIMIT,
    ConnectionFault,
)
from serving.http2.limits import ANSWER_CHORES, FRAME_OUT_BYTES, OUTPUT_BYTES, Budget


class Sender(Protocol):
    """A stream that sends.

    Attributes:
        id: Its stream id.
        window: Bytes of DATA that the client lets it send.
        rest: Bytes of DATA that wait for that.
    """

    id: int
    window: int
    rest: memoryview

    def drained(self) -> None:
        """Nothing of it waits any more; it may send again."""


class Outflow:
    """Collects the frames of one turn of the event loop, and writes them together.

    Attributes:
        window: Bytes of DATA that the client lets the connection send.
        initial: The window of a new stream.
        frame_limit: Longest DATA payload.
        chunks: What the next `flush` writes.
        held: Whether somebody else is going to flush, so that nothing need be scheduled.
        paused: Whether the socket takes nothing more at present.
        blocked: Streams that wait for a window or the socket.
    """

    __slots__ = (
        "_budget",
        "_loop",
        "_scheduled",
        "_transport",
        "blocked",
        "chunks",
        "frame_limit",
        "held",
        "initial",
        "paused",
        "queued",
        "window",
    )

    def __init__(self, transport: asyncio.Transport, budget: Budget) -> None:
        self._transport = transport
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self.window = DEFAULT_WINDOW
        self.initial = DEFAULT_WINDOW
        self.frame_limit = FRAME_LIMIT
        self.chunks: list[bytes | memoryview] = []
        self.queued = 0
        self.held = False
        self.paused = False
        self.blocked: dict[int, Sender] = {}

    # ---- frames

    def push(self, frame: bytes) -> None:
        """Have ``frame`` sent with the others of this turn."""
        self.chunks.append(frame)
        self.schedule()

    def schedule(self) -> None:
        """Have what was collected written in this turn of the loop, unless that is on its way."""
        if not (self.held or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        chunks = self.chunks
        if chunks:
            self.chunks = []
            self.queued = 0
            if not self._transport.is_closing():
                self._transport.write(b"".join(chunks))

    # ---- DATA

    def send(self, stream: Sender, payload: bytes) -> None:
        """Send ``payload`` as far as the windows allow it, the rest later.

        ``stream.drained`` is called once all of it is on its way: at once, or later.
        """
        stream.rest = memoryview(payload)
        self.blocked[stream.id] = stream
        self.pump()
        self.schedule()

    def drop(self, stream: Sender) -> None:
        """Forget what ``stream`` has not sent."""
        self.blocked.pop(stream.id, None)

    def pump(self) -> None:
        """Send what has become possible, one frame of each stream in turn."""
        moved = bool(self.blocked)
        while moved and not self.paused:
            moved = False
            for stream in list(self.blocked.values()):
                moved |= self._advance(stream)

    def _advance(self, stream: Sender) -> bool:
        """Send a frame of ``stream``; return whether that was possible and more may be."""
        rest = stream.rest
        room = min(self.window, stream.window, self.frame_limit)
        if self.paused or (rest and room <= 0):
            return False
        if rest:
            part = rest[:room]
            size = len(part)
            self.chunks += (HEAD.pack(size << 8 | DATA, 0, stream.id), part)
            self.window -= size
            stream.window -= size
            stream.rest = rest[size:]
            self._budget.chores += ANSWER_CHORES
            self.queued += size + HEAD_BYTES
            if self.queued > OUTPUT_BYTES:
                self.flush()
        if not stream.rest:
            del self.blocked[stream.id]
            stream.drained()
            return False
        return True

    # ---- windows and the socket

    def widen(self, increment: int) -> None:
        """Take a WINDOW_UPDATE of the connection.

        Raises:
            ConnectionFault: The window is too large then.
        """
        self.window += increment
        if self.window > WINDOW_LIMIT:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window is too large")
        self.pump()

    def limit_frames(self, limit: int) -> None:
        """Take SETTINGS_MAX_FRAME_SIZE."""
        self.frame_limit = min(limit, FRAME_OUT_BYTES)

    def resume(self) -> None:
        """Go on: the socket takes data again."""
        self.paused = False
        self.pump()
        self.schedule()
