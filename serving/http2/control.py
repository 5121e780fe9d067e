"""Frames that steer: settings, windows, pings, priorities, resets."""

from __future__ import annotations

from typing import Final

from serving.http2.exchanges import Exchange
from serving.http2.frames import (
    ACK,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    FRAME_LIMIT,
    FRAME_SIZE_ERROR,
    ID_MASK,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_LIMIT,
    WINDOW_UPDATE,
    ConnectionFault,
    frame,
    parse_settings,
    reset,
)
from serving.http2.lifecycle import LEAVING, Lifecycle
from serving.http2.limits import SETTINGS_CHORES

_LARGEST_FRAME_LIMIT: Final = (1 << 24) - 1


class Control(Lifecycle):
    """A connection that can be steered."""

    def no_idle(self, stream_id: int) -> None:
        """Raise a fault if no such stream was opened ever."""
        if stream_id in self.late:
            return
        if not stream_id & 1 or stream_id > self.last_id or self.was_skipped(stream_id):
            raise ConnectionFault(PROTOCOL_ERROR, "a frame on an idle stream")

    def was_skipped(self, stream_id: int) -> bool:
        """Return whether the client left out this stream id, as far as is remembered."""
        return any(first <= stream_id <= last for first, last in self.skipped)

    def spoil(self, exchange: Exchange, code: int) -> None:
        """Reset a stream for its fault."""
        exchange.abort(code)
        self.count_reset()

    # ---- frames of a stream

    def stream_frame(self, kind: int, stream_id: int, payload: bytes) -> None:
        """Handle PRIORITY, RST_STREAM or WINDOW_UPDATE.

        Raises:
            ConnectionFault: The connection must end.
        """
        if kind == WINDOW_UPDATE:
            self._window_update(stream_id, payload)
            return
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream's frame on the connection")
        self.chore()
        if kind == PRIORITY:
            if len(payload) != 5:
                self._stream_fault(stream_id, FRAME_SIZE_ERROR)
            elif dependency(payload) == stream_id:
                self._stream_fault(stream_id, PROTOCOL_ERROR)
            return
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        self.no_idle(stream_id)
        self.late.pop(stream_id, None)
        exchange = self.streams.get(stream_id)
        if exchange is not None:
            exchange.ended = True
            exchange.cancel()
            self.count_reset()

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        self.chore()
        increment = int.from_bytes(payload, "big") & ID_MASK
        if not stream_id:
            if not increment:
                raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            self.out.widen(increment)
            return
        self.no_idle(stream_id)
        exchange = self.streams.get(stream_id)
        if exchange is None:
            return
        exchange.window += increment
        if not increment:
            self._stream_fault(stream_id, PROTOCOL_ERROR)
        elif exchange.window > WINDOW_LIMIT:
            self._stream_fault(stream_id, FLOW_CONTROL_ERROR)
        else:
            self.out.pump()

    def _stream_fault(self, stream_id: int, code: int) -> None:
        exchange = self.streams.get(stream_id)
        if exchange is not None:
            self.spoil(exchange, code)
        elif stream_id > self.last_id:
            raise ConnectionFault(code, "a wrong frame on an idle stream")
        else:
            self.out.push(reset(stream_id, code))
            self.count_reset()

    # ---- frames of the connection

    def connection_frame(self, kind: int, flags: int, payload: bytes) -> None:
        """Handle SETTINGS, PING or GOAWAY.

        Raises:
            ConnectionFault: The connection must end.
        """
        size = len(payload)
        if kind == PING:
            if size != 8:
                raise ConnectionFault(FRAME_SIZE_ERROR, "PING of a wrong length")
            self.chore()
            if not flags & ACK:
                self.out.push(frame(PING, ACK, 0, payload))
            elif payload == LEAVING:
                self.refuse_streams()
        elif kind == SETTINGS:
            self._settings(flags, payload)
        else:
            if size < 8:
                raise ConnectionFault(FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
            self.chore()  # it concerns streams that a server opens, and this one opens none

    def _settings(self, flags: int, payload: bytes) -> None:
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
        self.chore(SETTINGS_CHORES)
        if flags & ACK:
            return
        for name, value in parse_settings(payload):
            if name == ENABLE_PUSH and value > 1:
                raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
            if name == INITIAL_WINDOW_SIZE:
                self._initial_window(value)
            elif name == MAX_FRAME_SIZE:
                if not FRAME_LIMIT <= value <= _LARGEST_FRAME_LIMIT:
                    raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
                self.out.limit_frames(value)
        self.out.push(SETTINGS_ACK)

    def _initial_window(self, value: int) -> None:
        if value > WINDOW_LIMIT:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is out of range")
        change = value - self.out.initial
        self.out.initial = value
        for exchange in self.streams.values():
            exchange.window += change
            if exchange.window > WINDOW_LIMIT:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "a stream's window is too large")
        self.out.pump()


def dependency(payload: bytes) -> int:
    """Return the stream that the priority fields at the start of ``payload`` depend on."""
    return int.from_bytes(payload[:4], "big") & ID_MASK
