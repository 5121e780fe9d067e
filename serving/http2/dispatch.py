"""What a connection does with each frame, apart from the short way of `Connection`."""

from __future__ import annotations

import time

from serving.http2.control import Control, dependency
from serving.http2.exchanges import Exchange, RefusedExchange
from serving.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ConnectionFault,
    StreamFault,
    frame,
    reset,
    unpadded,
)
from serving.http2.limits import CONTINUATIONS, HEADER_BLOCK_BYTES
from serving.http2.requests import Malformed, Request, trailers_are_valid
from serving.http2.streaming import StreamingExchange
from serving.http2.unary import UnaryExchange
from serving.rpc import Unary


class Dispatch(Control):
    """A connection that understands frames."""

    _block: bytearray
    _block_flags = 0
    _block_frames = 0

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Handle one frame.

        Raises:
            ConnectionFault: The connection must end.
        """
        if self.block_id and (kind != CONTINUATION or stream_id != self.block_id):
            raise ConnectionFault(PROTOCOL_ERROR, "a header block was interrupted")
        if kind == DATA:
            self._data(flags, stream_id, payload)
        elif kind == HEADERS:
            self._headers(flags, stream_id, payload)
        elif kind == CONTINUATION:
            self._continuation(flags, stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(PROTOCOL_ERROR, "clients cannot push")
        elif kind in (SETTINGS, PING, GOAWAY):
            if stream_id:
                raise ConnectionFault(PROTOCOL_ERROR, "a connection's frame on a stream")
            self.connection_frame(kind, flags, payload)
        elif kind in (PRIORITY, RST_STREAM, WINDOW_UPDATE):
            self.stream_frame(kind, stream_id, payload)
        else:
            self.chore()  # unknown types are ignored (RFC 9113, section 4.1)

    # ---- DATA

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self.room -= size
        content = unpadded(payload, flags)
        ended = bool(flags & END_STREAM)
        exchange = self.streams.get(stream_id)
        if exchange is None:
            self._data_without_stream(stream_id, ended)
            return
        if exchange.ended:
            self.spoil(exchange, STREAM_CLOSED)
            return
        try:
            exchange.data(content, size, ended)
        except StreamFault as fault:
            self.spoil(exchange, fault.code)

    def _data_without_stream(self, stream_id: int, ended: bool) -> None:
        self.no_idle(stream_id)
        self.chore()
        if stream_id not in self.late:
            self.out.push(reset(stream_id, STREAM_CLOSED))
            self.count_reset()
        elif ended:
            del self.late[stream_id]

    # ---- HEADERS and CONTINUATION

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "clients' streams have odd ids")
        block = unpadded(payload, flags)
        if flags & WITH_PRIORITY:
            if len(block) < 5:
                raise ConnectionFault(FRAME_SIZE_ERROR, "no room for the priority")
            if dependency(block) == stream_id:
                raise ConnectionFault(PROTOCOL_ERROR, "a stream depends on itself")
            block = block[5:]
        if flags & END_HEADERS:
            self._header_block(flags, stream_id, block)
            return
        self.block_id = stream_id
        self.block_since = time.monotonic()
        self._block = bytearray(block)
        self._block_flags = flags
        self._block_frames = 0

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not self.block_id:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block += payload
        self._block_frames += 1
        if self._block_frames > CONTINUATIONS or len(self._block) > HEADER_BLOCK_BYTES:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "the header block is too long")
        if flags & END_HEADERS:
            self.block_id = 0
            self._header_block(self._block_flags, stream_id, bytes(self._block))

    def _header_block(self, flags: int, stream_id: int, block: bytes) -> None:
        ended = bool(flags & END_STREAM)
        exchange = self.streams.get(stream_id)
        if exchange is not None:
            self._trailers(exchange, ended, block)
        elif stream_id > self.last_id:
            self._new_stream(stream_id, ended, block)
        else:
            # The block changes the decoder's table also where nobody wants the fields.
            self.reader.fields(block)
            if stream_id not in self.late:
                code = PROTOCOL_ERROR if self.was_skipped(stream_id) else STREAM_CLOSED
                raise ConnectionFault(code, "HEADERS on a closed stream")
            self.chore()
            if ended:
                del self.late[stream_id]

    def _trailers(self, exchange: Exchange, ended: bool, block: bytes) -> None:
        fields = self.reader.fields(block)
        self.chore()
        if exchange.ended:
            self.spoil(exchange, STREAM_CLOSED)
        elif not ended or not trailers_are_valid(fields):
            self.spoil(exchange, PROTOCOL_ERROR)
        else:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        try:
            exchange.end()
        except StreamFault as fault:
            self.spoil(exchange, fault.code)

    def _new_stream(self, stream_id: int, ended: bool, block: bytes) -> None:
        meaning = self.reader.known.get(block)
        if meaning is None:
            self.chore(len(block) >> 8)
            meaning = self.reader.read(block)
        if not self.accepting:
            # The last GOAWAY told the client that it was not processed.
            if not ended:
                self.tolerate(stream_id)
            return
        expected = self.last_id + 2
        if stream_id != expected:
            self.skipped.append((expected, stream_id - 2))
            self.skipped_ids += (stream_id - expected) // 2
        self.last_id = stream_id
        if isinstance(meaning, Malformed):
            self._refuse(stream_id, ended, PROTOCOL_ERROR)
        elif len(self.streams) >= self.hub.limits.streams:
            self._refuse(stream_id, ended, REFUSED_STREAM)
        elif meaning.refusal and not meaning.at_end:
            self._answer(stream_id, ended, meaning.refusal)
        else:
            self.open(stream_id, meaning, ended)

    def _refuse(self, stream_id: int, ended: bool, code: int) -> None:
        self.out.push(reset(stream_id, code))
        if not ended:
            self.tolerate(stream_id)
        self.count_reset()

    def _answer(self, stream_id: int, ended: bool, block: bytes) -> None:
        """Answer a call that is none of the methods'."""
        self.out.push(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
        if not ended:
            self.out.push(reset(stream_id, NO_ERROR))
            self.tolerate(stream_id)

    def open(self, stream_id: int, request: Request, ended: bool) -> None:
        """Begin an exchange."""
        method = request.method
        exchange: Exchange
        if method is None:
            exchange = RefusedExchange(self, stream_id, request)
        elif isinstance(method, Unary):
            exchange = UnaryExchange(self, stream_id, request)
        else:
            exchange = StreamingExchange(self, stream_id, request, method)
        self.streams[stream_id] = exchange
        exchange.open()
        if ended and not exchange.closed:
            self._end(exchange)
