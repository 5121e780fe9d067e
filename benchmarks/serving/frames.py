"""The few HTTP/2 frames that an open-loop gRPC client sends and reads."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hpack import Decoder

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW = 1, 2, 3, 4
_BIG_WINDOW = 2**31 - 1
_FRAME = struct.Struct(">HBBBL")
"""Length in two parts (the upper one is 8 bits), type, flags, stream."""


class ConnectionBroken(Exception):
    """The server ended the connection or broke the protocol; the message says how."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def opening() -> bytes:
    """Return what a client says first.

    The server gets no header table, so that a block of headers always means the same and has to be
    decoded once only.
    """
    settings = struct.pack(
        ">HLHLHL", _HEADER_TABLE_SIZE, 0, _ENABLE_PUSH, 0, _INITIAL_WINDOW, _BIG_WINDOW
    )
    more = struct.pack(">L", _BIG_WINDOW - 65_535)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more)


def request(path: str, authority: str, content: bytes) -> Callable[[int], bytes]:
    """Return a function from a stream's number to the frames of a gRPC request on it."""
    fields = [
        b"\x83\x86",  # :method POST and :scheme http, from the static table
        _literal(b"\x04", path),
        _literal(b"\x01", authority),
        _literal(b"\x0f\x10", "application/grpc"),
        b"\x00\x02te\x08trailers",
    ]
    block = b"".join(fields)
    template = frame(HEADERS, END_HEADERS, 0, block) + frame(DATA, END_STREAM, 0, content)
    first, second = template[:5], template[9 : 9 + len(block) + 5]
    rest = template[9 + len(block) + 9 :]

    def numbered(stream: int) -> bytes:
        number = stream.to_bytes(4, "big")
        return b"".join((first, number, second, number, rest))

    return numbered


def _literal(name: bytes, value: str) -> bytes:
    """Return a header that is not put into the table; its name is an index, its value short."""
    encoded = value.encode()
    assert len(encoded) < 127
    return name + bytes([len(encoded)]) + encoded


class Reader:
    """Reads one connection's frames.

    Attributes:
        window: Bytes that may be sent on the connection.
        max_streams: Streams the server lets be open at once.
        reply: Frames that have to be sent back.
    """

    def __init__(self, answer: int) -> None:
        self.window = 65_535
        self.max_streams = 2**31 - 1
        self.reply = b""
        self._answer = answer
        self._decoder = Decoder()
        self._status: dict[bytes, bool] = {}
        self._bytes: dict[int, int] = {}
        self._rest = b""

    def feed(self, received: bytes) -> list[tuple[int, bool]]:
        """Return the streams that ended, each with whether its answer is a right one.

        Raises:
            ConnectionBroken: The connection cannot be used any more.
        """
        data = self._rest + received if self._rest else received
        ended: list[tuple[int, bool]] = []
        at, end = 0, len(data)
        while at + 9 <= end:
            upper, lower, kind, flags, stream = _FRAME.unpack_from(data, at)
            size = upper << 8 | lower
            following = at + 9 + size
            if following > end:
                break
            if kind == DATA:
                self._bytes[stream] = self._bytes.get(stream, 0) + size
            elif kind == HEADERS:
                good = self._good(data[at + 9 : following], flags)
                if flags & END_STREAM:
                    ended.append((stream, good and self._bytes.pop(stream, 0) == self._answer))
            elif kind == RST_STREAM:
                ended.append((stream, False))
            else:
                self._control(kind, flags, stream, data[at + 9 : following])
            at = following
        self._rest = data[at:]
        return ended

    def _good(self, block: bytes, flags: int) -> bool:
        """Return whether headers or trailers say that all is well."""
        known = self._status.get(block)
        if known is not None:
            return known
        if not flags & END_HEADERS:
            raise ConnectionBroken("the server split its headers")
        headers = dict(self._decoder.decode(block, raw=True))
        good = headers.get(b"grpc-status", b"0") == b"0"
        good = good and headers.get(b":status", b"200") == b"200"
        self._status[block] = good
        return good

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HL", payload):
                if name == _MAX_STREAMS:
                    self.max_streams = value
            self.reply += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self.reply += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and not stream:
            self.window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise ConnectionBroken(f"the server went away, code {int.from_bytes(payload[4:8])}")
