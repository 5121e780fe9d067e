"""Fuzzes the native engine: bytes, or frames made of bytes, into one connection per input.

With atheris, guided by coverage::

    python -m tests.fuzz.http2 -runs=1000000 -max_len=600

Without it, the same inputs come from a seeded generator; the options are the same.  After each
input the engine must have sent whole frames only, ended every call exactly once, hold no memory,
and have met no error that it did not expect.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import sys

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None:
    with atheris.instrument_imports(include=["serving.http2", "hpack"]):
        import hpack

        from serving.http2 import connection, deadlines
else:
    import hpack

    from serving.http2 import connection, deadlines

from tests.support.grpc_app import EchoApp
from tests.support.http2_wire import GREETING, Wire, block, frame, message, request_fields, turns

PATHS = ("Unary", "Later", "Never", "Big", "Bidi", "Count", "Sum", "Stuck", "Watch", "Refuse")
ENCODER = hpack.Encoder()
PAYLOADS = [
    b"",
    *(block(request_fields(f"/test.Echo/{path}")) for path in PATHS),
    *(ENCODER.encode(request_fields(f"/test.Echo/{path}")) for path in PATHS[:4] * 2),
    block(request_fields(grpc_encoding="gzip")),
    block(request_fields(grpc_timeout="1n")),
    block(request_fields(content_length="10")),
    block(request_fields(te="gzip")),
    block([(":method", "GET"), (":scheme", "http"), (":path", "/")]),
    block([("x-trailer", "1")]),
    b"\x3f\xe1\x1f", b"\x20", b"\xbe", b"\x82\x87",
    message(b"12"), message(b"hello"), message(b"7") * 2, message(gzip.compress(b"5" * 500), 1),
    message(b"600")[:5], message(b"600")[5:], b"\0\x7f\xff\xff\xff", b"\2\0\0\0\0", bytes(16_000),
    b"\0\0\0\0", b"\0\0\0\1", b"\0\0\x40\0", b"\x7f\xff\xff\xff",
    b"\0\4\0\0\0\0", b"\0\4\0\0\0\x20", b"\0\4\x7f\xff\xff\xff", b"\0\1\0\0\0\0", b"\0\5\0\0\x40\0",
    b"12345678", b"leaving\0", b"\0\0\0\3\0",
]  # fmt: skip
FLAGS = (0, 1, 4, 5, 8, 9, 12, 13, 32, 36, 37, 44, 45)
KINDS = (0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10)

LOOP = asyncio.new_event_loop()
PROBLEMS: list[object] = []
LOOP.set_exception_handler(lambda _, context: PROBLEMS.append(context))
connection.log_failure = lambda transport, error: PROBLEMS.append(error)  # type: ignore[assignment]


def frames_of(data: bytes) -> list[bytes]:
    """Make frames of bytes: four for each, but for those that come as they are."""
    found, at = [], 0
    while at + 4 <= len(data):
        kind, flags, stream, payload = data[at : at + 4]
        at += 4
        if kind >= 250:
            found.append(data[at : at + flags])
            at += flags
            continue
        content = PAYLOADS[payload % len(PAYLOADS)]
        ids = (0, 1, 3, 5, 7, 9, 11, 2, 2**31 + 1, 2**31 - 1)
        stream_id = ids[stream % len(ids)] if stream < 200 else 2 * (stream - 200) + 1
        found.append(frame(KINDS[kind % len(KINDS)], FLAGS[flags % len(FLAGS)], stream_id, content))
    return found


async def feed(data: bytes) -> None:
    """Play one input."""
    if not data:
        return
    mode, data = data[0], data[1:]
    wire = Wire(EchoApp(), greet=False, max_streams=4, max_message_bytes=1 << 16)
    if mode & 1:
        wire.feed(GREETING + data)
    elif mode & 2:
        wire.feed(data)
    else:
        pieces = [GREETING, *frames_of(data)]
        if mode & 4:
            pieces = [b"".join(pieces)]
        elif mode & 8:
            whole = b"".join(pieces)
            step = mode // 16 * 5 + 1
            pieces = [whole[at : at + step] for at in range(0, min(len(whole), 3_000), step)]
        for piece in pieces:
            wire.feed(piece)
            if wire.connection.closing:
                break
            if mode & 32:
                await asyncio.sleep(0)
    await turns(2)
    wire.take()
    end(wire, mode)
    await turns(3)
    wire.take()
    assert wire.echo.gate.running == set()
    assert wire.hub.held == 0
    assert not wire.connection.streams


def end(wire: Wire, mode: int) -> None:
    """End the connection in one of the ways there are."""
    if mode & 64:
        for exchange in list(wire.connection.streams.values()):
            exchange.expire()
            exchange.expire()
        wire.connection.end_calls()
    elif mode & 128:
        wire.connection.warn()
        wire.connection.refuse_streams()
    wire.lose()


def one_input(data: bytes) -> None:
    """Play one input; raise if something is wrong."""
    LOOP.run_until_complete(feed(data))
    if PROBLEMS:
        raise AssertionError(PROBLEMS)


def main(arguments: list[str]) -> None:
    """Run as the options say."""
    asyncio.set_event_loop(LOOP)
    deadlines.Deadlines.arm = lambda _: None  # type: ignore[method-assign]  # no timers pile up
    if atheris is not None:
        atheris.Setup(arguments, one_input)
        atheris.Fuzz()
        return
    options = dict(option.lstrip("-").split("=") for option in arguments[1:])
    runs, longest = int(options.get("runs", 100_000)), int(options.get("max_len", 600))
    source = random.Random(int(options.get("seed", 1)))
    for run in range(runs):
        one_input(source.randbytes(source.randrange(longest) if run % 8 else source.randrange(40)))
    print(f"{runs} inputs, no failure")


if __name__ == "__main__":
    main(sys.argv)
