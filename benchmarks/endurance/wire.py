"""What an open-loop client says and hears: HTTP/2 gRPC, and HTTP/1.1."""

from __future__ import annotations

from typing import Protocol

from hpack import Decoder

from benchmarks.serving import frames

RIGHT, SHED, FAILED = 1, 2, 3
"""How a request may end: with a right answer, with a refusal that has a hint when to come back, or
in any other way."""

_RESOURCE_EXHAUSTED = b"8"
_PUSHBACK = b"grpc-retry-pushback-ms"
_MAX_STREAMS = 3
_USUAL_STREAMS = 100


class Wire(Protocol):
    """One connection's protocol; requests are known by keys.

    Attributes:
        over: Whether the server will take no more requests here.
    """

    over: bool

    def room(self, under_way: int) -> bool:
        """Return whether another request may be sent while ``under_way`` are."""

    def request(self) -> tuple[int, bytes]:
        """Return the key and the bytes of the next request."""

    def reply(self) -> bytes:
        """Return what has to be sent besides requests."""

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """Return keys of the requests that ended, each with how."""


class Http2:
    """gRPC with one message each way.

    Args:
        path: Method.
        authority: Host and port.
        content: Request with its five-byte prefix.
        answer: Bytes of a right answer, with prefix.
    """

    def __init__(self, path: str, authority: str, content: bytes, answer: int) -> None:
        self.over = False
        self._make = frames.request(path, authority, content)
        self._size = len(content)
        self._answer = answer
        self._out = frames.opening()
        self._stream = 1
        self._window = 65_535
        self._limit = 1
        self._decoder = Decoder()
        self._known: dict[bytes, int] = {}
        self._bytes: dict[int, int] = {}
        self._rest = b""

    def room(self, under_way: int) -> bool:
        """See `Wire`."""
        return under_way < self._limit and self._window >= self._size and not self.over

    def request(self) -> tuple[int, bytes]:
        """See `Wire`."""
        stream = self._stream
        self._stream += 2
        self._window -= self._size
        return stream, self._make(stream)

    def reply(self) -> bytes:
        """See `Wire`."""
        out, self._out = self._out, b""
        return out

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """See `Wire`."""
        data = self._rest + data
        ended: list[tuple[int, int]] = []
        at, end = 0, len(data)
        sizes, known, answer = self._bytes, self._known, self._answer
        while at + 9 <= end:
            size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            kind, flags = data[at + 3], data[at + 4]
            following = at + 9 + size
            if following > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind == frames.DATA:
                sizes[stream] = sizes.get(stream, 0) + size
            elif kind == frames.HEADERS:
                if flags & frames.END_STREAM:
                    block = data[at + 9 : following]
                    outcome = known.get(block) or self._read(block)
                    if sizes.pop(stream, 0) != answer and outcome == RIGHT:
                        outcome = FAILED
                    ended.append((stream, outcome))
            elif kind == frames.RST_STREAM:
                sizes.pop(stream, None)
                ended.append((stream, FAILED))
            else:
                self._control(kind, flags, stream, data[at + 9 : following])
            at = following
        self._rest = data[at:]
        return ended

    def _read(self, block: bytes) -> int:
        """Return what trailers say; refusals differ by their hint, so few are remembered."""
        fields = dict(self._decoder.decode(block, raw=True))
        status = fields.get(b"grpc-status")
        outcome = FAILED
        if status == b"0":
            outcome = RIGHT
        elif status == _RESOURCE_EXHAUSTED and _PUSHBACK in fields:
            outcome = SHED
        if len(self._known) < 4096:
            self._known[block] = outcome
        return outcome

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self._limit = _USUAL_STREAMS
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == _MAX_STREAMS:
                    self._limit = int.from_bytes(payload[at + 2 : at + 6], "big")
            self._out += frames.frame(frames.SETTINGS, frames.ACK, 0)
        elif kind == frames.PING and not flags & frames.ACK:
            self._out += frames.frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload, "big")
        elif kind == frames.GOAWAY:
            self.over = True


class Http1:
    """HTTP/1.1, one request at a time.

    Args:
        path: Path.
        authority: Host and port.
        content: JSON body.
    """

    def __init__(self, path: str, authority: str, content: bytes) -> None:
        self.over = False
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        self._request = head.encode() + content
        self._rest = b""
        self._number = 0

    def room(self, under_way: int) -> bool:
        """See `Wire`."""
        return not under_way and not self.over

    def request(self) -> tuple[int, bytes]:
        """See `Wire`."""
        self._number += 1
        return self._number, self._request

    def reply(self) -> bytes:
        """See `Wire`."""
        return b""

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """See `Wire`."""
        data = self._rest + data
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            fields = head.lower()
            at = fields.find(b"content-length:")
            size = int(
                fields[at + 15 : fields.find(b"\r\n", at) if b"\r\n" in fields[at:] else None]
            )
            if len(body) >= size:
                self._rest = b""
                self.over = b"connection: close" in fields
                return [(self._number, _kind(fields))]
        self._rest = data
        return []


def _kind(fields: bytes) -> int:
    status = fields[9:12]
    if status == b"200":
        return RIGHT
    return SHED if status in {b"429", b"503"} and b"\nretry-after:" in fields else FAILED
