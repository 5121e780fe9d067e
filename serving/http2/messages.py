"""gRPC over HTTP/2, apart from HTTP/2: messages, compression, timeouts, trailers.

See PROTOCOL-HTTP2.md of the gRPC project.
"""

from __future__ import annotations

import re
import zlib
from struct import Struct
from typing import Final, TypeAlias

from serving.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS
from serving.http2.headers import encode

Fields: TypeAlias = "tuple[tuple[str, str], ...]"
Message: TypeAlias = "tuple[bool, bytes]"
"""A message as it came: whether it is compressed, and its bytes."""

# Status codes.
OK: Final = 0
CANCELLED: Final = 1
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

PREFIX: Final = Struct(">BI")
PREFIX_BYTES: Final = 5
ENCODINGS: Final = ("identity", "gzip", "deflate")
ACCEPTED: Final[Fields] = (("grpc-accept-encoding", ",".join(ENCODINGS)),)
_MESSAGE_CHARS: Final = 1_024
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_CONTENT_TYPE: Final = ("content-type", "application/grpc")
_WINDOW_BITS: Final = zlib.MAX_WBITS | 32
"""Has zlib see for itself whether it is gzip or zlib, which gRPC calls deflate."""
_AT_ONCE: Final = 64 << 10
"""Bytes inflated on the event loop; a message that holds more is inflated in a thread."""


class CallFault(Exception):
    """The caller broke gRPC's protocol, or a bound of it; the call ends with a status.

    Args:
        status: gRPC status code.
        detail: Its message.
        code: What metrics and logs call it.
        fields: More trailers.
    """

    def __init__(self, status: int, detail: str, code: str, fields: Fields = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.fields = fields


def malformed(detail: str) -> CallFault:
    """Return the fault of a request that is not as gRPC wants it."""
    return CallFault(INVALID_ARGUMENT, detail, "invalid-request")


def too_large(size: int, limit: int) -> CallFault:
    """Return the fault of a message of more than ``limit`` bytes."""
    detail = f"Received message larger than max ({size} vs. {limit})"
    return CallFault(RESOURCE_EXHAUSTED, detail, "message-too-large")


def miscounted(detail: str) -> CallFault:
    """Return the fault of a call that must have one request and has none or two."""
    return CallFault(UNIMPLEMENTED, detail, "invalid-request")


def parse_timeout(text: str) -> float | None:
    """Return the seconds in a ``grpc-timeout``, None if it is none."""
    match = _TIMEOUT.fullmatch(text)
    return None if match is None else int(match[1]) * _UNITS[match[2]]


class Assembler:
    """Finds the messages in the bytes of one stream.

    Args:
        limit: Most bytes of a message.
    """

    __slots__ = ("_buffer", "_limit", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._size = -1

    @property
    def pending(self) -> int:
        """Bytes of the message that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that ``data`` completes.

        Raises:
            CallFault: One is too large, or this is no gRPC.
        """
        buffer = self._buffer
        buffer += data
        found: list[Message] = []
        while True:
            if self._size < 0:
                if len(buffer) < PREFIX_BYTES:
                    return found
                self._size = self._checked(*PREFIX.unpack_from(buffer))
            stop = PREFIX_BYTES + self._size
            if len(buffer) < stop:
                return found
            with memoryview(buffer) as view:
                content = bytes(view[PREFIX_BYTES:stop])
            found.append((bool(buffer[0]), content))
            del buffer[:stop]
            self._size = -1

    def _checked(self, compressed: int, size: int) -> int:
        if compressed > 1:
            raise malformed("a message's compression flag is neither 0 nor 1")
        if size > self._limit:
            raise too_large(size, self._limit)
        return size


class Inflation:
    """Unpacks one compressed message.

    Args:
        content: The packed message.
        limit: Most bytes it may unpack to.
    """

    def __init__(self, content: bytes, limit: int) -> None:
        self._content = content
        self._limit = limit
        self._inflator = zlib.decompressobj(_WINDOW_BITS)
        self._parts: list[bytes] = []
        self._size = 0

    def at_once(self) -> bytes | None:
        """Return the message if it is small, else None; then call `rest`, in a thread.

        Raises:
            CallFault: It is too large or damaged.
        """
        self._inflate(self._content, _AT_ONCE)
        return self._complete() if self._inflator.eof else None

    def rest(self) -> bytes:
        """Return the message.

        Raises:
            CallFault: It is too large or damaged.
        """
        while not self._inflator.eof and self._inflator.unconsumed_tail:
            self._inflate(self._inflator.unconsumed_tail, self._limit)
        # zlib may have taken all input and hold output back.
        if not self._inflator.eof:
            self._inflate(b"", self._limit)
        return self._complete()

    def _inflate(self, packed: bytes, most: int) -> None:
        try:
            part = self._inflator.decompress(packed, min(most, self._limit + 1))
        except zlib.error as error:
            raise malformed("a compressed message is damaged") from error
        self._size += len(part)
        if self._size > self._limit:
            raise too_large(self._size, self._limit)
        self._parts.append(part)

    def _complete(self) -> bytes:
        if not self._inflator.eof or self._inflator.unused_data:
            raise malformed("a compressed message is damaged")
        return b"".join(self._parts)


# ---- answers


def percent_encoded(text: str) -> str:
    """Return a message as ``grpc-message`` has it, cut to a length that any client takes."""
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}"
        for byte in text[:_MESSAGE_CHARS].encode("utf-8", "replace")
    )


def _status_fields(status: int, detail: str, fields: Fields) -> list[tuple[str, str]]:
    found = [("grpc-status", str(status))]
    if detail:
        found.append(("grpc-message", percent_encoded(detail)))
    # Plain text goes as it is; a caller's odd characters must not become a header of their own.
    found += ((name, v if _plain(v) else percent_encoded(v)) for name, v in fields)
    return found


def _plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _MESSAGE_CHARS


def trailers_block(status: int, detail: str, fields: Fields) -> bytes:
    """Return the header block that ends a call whose headers were sent."""
    return encode(_status_fields(status, detail, fields))


def trailers_only_block(status: int, detail: str, fields: Fields = ()) -> bytes:
    """Return the header block that is the whole answer of a call."""
    return encode([(":status", "200"), _CONTENT_TYPE, *_status_fields(status, detail, fields)])


HTTP_BODY: Final = b"This port serves gRPC only.\n"


def http_block(status: int) -> bytes:
    """Return the header block that answers what is no gRPC request; `HTTP_BODY` follows."""
    size = str(len(HTTP_BODY))
    return encode(
        [(":status", str(status)), ("content-type", "text/plain"), ("content-length", size)]
    )


HEADERS_BLOCK: Final = encode([(":status", "200"), _CONTENT_TYPE])
OK_BLOCK: Final = trailers_block(OK, "", ())

# A whole answer is ``ANSWER_HEAD`` packed, the message, and ``ANSWER_TAIL`` packed.
_HEADERS_WORD: Final = len(HEADERS_BLOCK) << 8 | HEADERS
_OK_WORD: Final = len(OK_BLOCK) << 8 | HEADERS
_HEAD: Final = Struct(f">IBI{len(HEADERS_BLOCK)}sIBIBI")
_TAIL: Final = Struct(f">IBI{len(OK_BLOCK)}s")


def answer_head(stream_id: int, size: int) -> bytes:
    """Return all of an answer that comes before its message of ``size`` bytes in one frame."""
    return _HEAD.pack(
        _HEADERS_WORD,
        END_HEADERS,
        stream_id,
        HEADERS_BLOCK,
        (size + PREFIX_BYTES) << 8 | DATA,
        0,
        stream_id,
        0,
        size,
    )


def answer_tail(stream_id: int) -> bytes:
    """Return the trailers of an answer that is right."""
    return _TAIL.pack(_OK_WORD, END_HEADERS | END_STREAM, stream_id, OK_BLOCK)
