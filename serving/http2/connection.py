"""Bytes to frames, and the short way of a call in one piece."""

from __future__ import annotations

import asyncio
import time

from cipherscore.errors import Overloaded
from serving.gate import BEHIND
from serving.http2.dispatch import Dispatch
from serving.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_LIMIT,
    FRAME_SIZE_ERROR,
    HEAD,
    HEAD_BYTES,
    HEADERS,
    ID_MASK,
    INTERNAL_ERROR,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    ConnectionFault,
    reset,
    window_update,
)
from serving.http2.limits import CONNECTION_WINDOW, TURN_FRAMES
from serving.http2.messages import PREFIX, PREFIX_BYTES, trailers_only_block
from serving.http2.unary import UnaryExchange
from serving.pressure import RETRY_SECONDS
from serving.rpc import log_failure, trailers

_LONGEST_WORD = FRAME_LIMIT << 8 | 0xFF
_MESSAGE_AT = HEAD_BYTES + PREFIX_BYTES
_SHED_BLOCK = trailers_only_block(*trailers(Overloaded(BEHIND, retry_after=RETRY_SECONDS)))
_SHED_WORD = len(_SHED_BLOCK) << 8 | HEADERS


class Connection(Dispatch):
    """One HTTP/2 connection."""

    _rest = b""

    def data_received(self, data: bytes) -> None:
        """Handle what came."""
        if self.closing:
            self.discard(len(data))
            return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        out = self.out
        out.held = True
        try:
            if self.greeted:
                done, frames = self._frames(data)
            else:
                done, frames = self._greeting(data)
            self._rest = data[done:]
            if self.room < CONNECTION_WINDOW // 2:
                self._replenish()
        except ConnectionFault as fault:
            self.give_up(fault.code, fault.reason)
        except Exception as error:  # noqa: BLE001 - the last resort; it is logged
            log_failure("HTTP/2", error)
            self.give_up(INTERNAL_ERROR, "internal error")
        else:
            self.backlog = frames == TURN_FRAMES
            if self.backlog:
                asyncio.get_running_loop().call_soon(self._go_on)
                self.listen()
        out.held = False
        out.flush()

    def _go_on(self) -> None:
        """Handle more of what came, after the other connections had their turn."""
        self.backlog = False
        self.data_received(b"")
        self.listen()

    def _frames(self, data: bytes) -> tuple[int, int]:
        """Handle the whole frames in ``data``; return how many bytes and frames they are."""
        at, end, frames = 0, len(data), 0
        streams, known, limit = self.streams, self.reader.known, self.hub.limits.streams
        unpack = HEAD.unpack_from
        pressure = self.hub.gate.pressure
        while end - at >= HEAD_BYTES and frames < TURN_FRAMES:
            word, flags, stream_id = unpack(data, at)
            if word > _LONGEST_WORD:
                raise ConnectionFault(FRAME_SIZE_ERROR, "the frame is too long")
            size = word >> 8
            stop = at + HEAD_BYTES + size
            if stop > end:
                break
            frames += 1
            kind = word & 0xFF
            if kind == HEADERS:
                if (
                    flags == END_HEADERS
                    and stream_id == self.last_id + 2
                    and (request := known.get(data[at + HEAD_BYTES : stop])) is not None
                    and request.unary is not None
                    and len(streams) < limit
                    and self.accepting
                    and not self.block_id
                ):
                    self.last_id = stream_id
                    if (
                        pressure.high
                        and request.unary.scope is not None
                        and pressure.late(time.monotonic())
                    ):
                        at = self._shed(data, stop, end, stream_id, request.unary.name)
                        continue
                    exchange = UnaryExchange(self, stream_id, request)
                    streams[stream_id] = exchange
                    exchange.open()
                    at = stop
                    continue
            elif (
                kind == DATA
                and flags == END_STREAM
                and (found := streams.get(stream_id)) is not None
                and found.untouched
                and found.request.length in (None, size)
                and size >= PREFIX_BYTES
                and PREFIX.unpack_from(data, at + HEAD_BYTES) == (0, size - PREFIX_BYTES)
                and not self.block_id
            ):
                self.room -= size
                found.whole(data[at + _MESSAGE_AT : stop])
                at = stop
                continue
            self.frame(kind, flags, stream_id & ID_MASK, data[at + HEAD_BYTES : stop])
            at = stop
            if self.closing:
                break
        if frames:
            self.active = time.monotonic()
        return at, frames

    def _shed(self, data: bytes, at: int, end: int, stream_id: int, method: str) -> int:
        """Refuse a call under pressure, as cheaply as can be; return where to go on in ``data``.

        Args:
            data: What came.
            at: Where the call's headers end.
            end: Length of ``data``.
            stream_id: The call's.
            method: Its name.
        """
        self.hub.count_shed(method)
        self.out.chunks.append(HEAD.pack(_SHED_WORD, END_HEADERS | END_STREAM, stream_id))
        self.out.chunks.append(_SHED_BLOCK)
        if end - at >= HEAD_BYTES:
            word, flags, following = HEAD.unpack_from(data, at)
            stop: int = at + HEAD_BYTES + (word >> 8)
            if (
                word & 0xFF == DATA
                and flags == END_STREAM
                and following == stream_id
                and stop <= end
                and word <= _LONGEST_WORD
            ):
                self.room -= word >> 8
                return stop
        self.out.chunks.append(reset(stream_id, NO_ERROR))
        self.tolerate(stream_id)
        return at

    def _greeting(self, data: bytes) -> tuple[int, int]:
        """Take the preface and the first frame, which must be SETTINGS, then what follows."""
        if not data.startswith(PREFACE[: len(data)]):
            raise ConnectionFault(PROTOCOL_ERROR, "this is a server of HTTP/2 only")
        first = data[len(PREFACE) : len(PREFACE) + HEAD_BYTES]
        if len(first) < HEAD_BYTES:
            return 0, 0
        word, flags, stream_id = HEAD.unpack(first)
        if word & 0xFF != SETTINGS or flags or stream_id & ID_MASK:
            raise ConnectionFault(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        self.greeted = True
        done, frames = self._frames(data[len(PREFACE) :])
        return done + len(PREFACE), frames

    def _replenish(self) -> None:
        """Let the client send on."""
        if self.room < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more DATA than the window allows")
        self.out.push(window_update(0, CONNECTION_WINDOW - self.room))
        self.room = CONNECTION_WINDOW
