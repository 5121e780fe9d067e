"""HTTP/2 frames (RFC 9113, sections 4, 6 and 7): their numbers, and those that are sent."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
FRAME_LIMIT: Final = 16_384
"""Longest payload this server takes: the default, which it does not change."""
WINDOW_LIMIT: Final = (1 << 31) - 1
DEFAULT_WINDOW: Final = 65_535
ID_MASK: Final = (1 << 31) - 1

# Frame types.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

# Settings.
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

# Error codes.
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB

# Length and type share four bytes: ``length << 8 | type``.
HEAD: Final = Struct(">IBI")
_WORD_FRAME: Final = Struct(">IBII")
_SETTING: Final = Struct(">HI")
_GOAWAY: Final = Struct(">IBIII")


class ConnectionFault(Exception):
    """The peer broke the protocol, or a bound, so that the connection must end.

    Args:
        code: Error code of the GOAWAY frame.
        reason: A few words for its debug data; nothing the peer sent.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFault(Exception):
    """The peer broke the protocol on one stream, which is reset with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return one frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*value) for value in values))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings in a payload whose length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0, b"")


def reset(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return _WORD_FRAME.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return _WORD_FRAME.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def goaway(last_id: int, code: int, reason: str = "") -> bytes:
    """Return a GOAWAY frame; streams above ``last_id`` were not and will not be processed."""
    debug = reason.encode()
    return _GOAWAY.pack((8 + len(debug)) << 8 | GOAWAY, 0, 0, last_id, code) + debug


def unpadded(payload: bytes, flags: int) -> bytes:
    """Return the payload of a DATA or HEADERS frame without its padding.

    Raises:
        ConnectionFault: There is more padding than payload.
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "no room for the pad length")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - padding]
