"""One connection, frame by frame, without sockets."""

import asyncio
import functools
import gzip
import itertools

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http2.limits import CONNECTION_WINDOW, STREAM_WINDOW
from tests.support import http2_wire as h2
from tests.support.http2_wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GREETING,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Wire,
    block,
    frame,
    headers,
    message,
    request_fields,
    unary,
)


def run(test):
    """Run an async test, which must leave no call behind and nothing unhandled."""

    @functools.wraps(test)
    def wrapped(*arguments, **named):
        problems = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda _, what: problems.append(what))
            await test(*arguments, **named)
            await h2.turns()

        asyncio.run(main())
        assert problems == []

    return wrapped


def status(wire, frames, stream=1):
    """Return the trailers of ``stream``."""
    fields = {}
    for found in frames:
        if found.kind == HEADERS:
            fields[found.stream, bool(found.flags & END_STREAM)] = wire.fields(found)
    return fields[stream, True]


def codes(frames, kind):
    return [found.code for found in frames if found.kind == kind]


@run
async def test_greeting_and_answer():
    wire = Wire(greet=False)
    frames = await wire.exchange(GREETING + unary(1, b"hello"))
    assert [f.kind for f in frames] == [SETTINGS, WINDOW_UPDATE, SETTINGS, HEADERS, DATA, HEADERS]
    assert wire.fields(frames[3]) == {":status": "200", "content-type": "application/grpc"}
    assert frames[4].payload == message(b"hello")
    assert wire.fields(frames[5]) == {"grpc-status": "0"}
    assert wire.echo.gate.codes == {"ok": 1}
    assert wire.connection.streams == {}


@run
async def test_the_short_way_and_the_long_way_give_the_same():
    for cut in (False, True):
        wire = Wire()
        for stream in (1, 3, 5):
            data = unary(stream, b"hello")
            pieces = [data[i : i + 1] for i in range(len(data))] if cut else [data]
            for piece in pieces:
                wire.feed(piece)
        frames = wire.take()
        assert [f.payload for f in frames if f.kind == DATA] == [message(b"hello")] * 3
        assert wire.echo.gate.codes == {"ok": 3}


SESSION = [
    frame(SETTINGS, 0, 0, b"\0\4\0\0\1\0"),
    unary(1, b"a" * 300),
    frame(PING, 0, 0, b"12345678"),
    headers(3, "/test.Echo/Sum") + frame(DATA, 0, 3, message(b"x" * 10)[:7]),
    unary(5, b"", grpc_timeout="5S"),
    frame(DATA, PADDED, 3, b"\x03" + message(b"x" * 10)[7:] + b"\0\0\0"),
    frame(WINDOW_UPDATE, 0, 1, b"\0\0\7\0") + frame(WINDOW_UPDATE, 0, 0, b"\0\0\7\0"),
    frame(0xFA, 7, 9, b"unknown"),
    headers(7, "/no/Such") + frame(DATA, END_STREAM, 7, message(b"")),
    frame(DATA, END_STREAM, 3, b""),
    frame(HEADERS, WITH_PRIORITY, 9, b"\0\0\0\3\5" + block(request_fields())[:20]),
    frame(CONTINUATION, END_HEADERS, 9, block(request_fields())[20:]),
    frame(DATA, END_STREAM, 9, message(b"two") + b""),
    headers(11, "/test.Echo/Bidi") + frame(DATA, 0, 11, message(b"1") + message(b"2")),
    frame(HEADERS, END_HEADERS | END_STREAM, 11, block([("x-end", "1")])),
    headers(13, "/test.Echo/Refuse") + frame(DATA, END_STREAM, 13, message(b"r")),
    frame(RST, 0, 13, b"\0\0\0\x08"),
    unary(15, b"last"),
]


async def answers(pieces):
    """Return what a session's streams got, each in its order."""
    wire = Wire()
    for piece in pieces:
        wire.feed(piece)
        await h2.turns(3)
    await h2.turns()
    frames = wire.take()
    found = {}
    for f in frames:
        what = tuple(wire.fields(f).items()) if f.kind == HEADERS else f.payload
        if f.kind == DATA and found.get(f.stream) and found[f.stream][-1][0] == DATA:
            what = found[f.stream].pop()[1] + what  # how a message is cut is nobody's business
        found.setdefault(f.stream, []).append((f.kind, what))
    assert wire.connection.streams == {}
    wire.lose()
    # Control frames may come in another order than answers, but none is lost.
    found[0] = sorted(found[0])
    return found, wire.echo.gate.codes


@given(st.lists(st.integers(1, len(b"".join(SESSION)) - 1), max_size=40))
@settings(max_examples=60)
@run
async def test_frames_cut_anywhere_are_answered_the_same(cuts):
    whole = b"".join(SESSION)
    edges = [0, *sorted(set(cuts)), len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
    assert await answers(pieces) == await answers(SESSION)


def mangled():
    """Frames, most of them wrong in some way."""
    ids = st.sampled_from([0, 1, 2, 3, 5, 7, 9, 2**31 - 1, 2**31 + 1, 2**32 - 1])
    payloads = st.one_of(
        st.binary(max_size=40),
        st.sampled_from([
            block(request_fields()),
            block(request_fields("/test.Echo/Bidi")),
            block(request_fields("/test.Echo/Count")),
            block(request_fields("/test.Echo/Never", grpc_timeout="1m")),
            block(request_fields("/test.Echo/Unary", grpc_encoding="gzip")),
            block(request_fields("/test.Echo/Big", content_length="6")),
            hpack.Encoder().encode(request_fields("/test.Echo/Watch")),
            message(b"12"), message(b""), message(gzip.compress(b"x" * 99), 1), message(b"3")[:4],
            b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\0\4\0\0\0\0", b"\0\4\x7f\xff\xff\xff",
            b"12345678", b"leaving\0", b"\0\5\0\0\x40\0",
        ]),
    )  # fmt: skip
    anything = st.builds(frame, st.integers(0, 11), st.integers(0, 255), ids, payloads)
    usual = st.builds(
        frame,
        st.sampled_from([DATA, DATA, HEADERS, HEADERS, RST, WINDOW_UPDATE, SETTINGS, PING]),
        st.sampled_from([0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM]),
        ids,
        payloads,
    )
    return st.lists(st.one_of(usual, usual, anything, st.binary(max_size=20)), max_size=30)


@given(mangled(), st.booleans())
@settings(max_examples=400)
@run
async def test_mangled_frames_never_raise_or_hang(frames, lost):
    wire = Wire()
    for data in frames:
        wire.feed(data)
    await h2.turns(5)
    wire.take()  # whole frames only
    if wire.connection.closing:
        assert wire.connection.streams == {}
    if lost:
        wire.lose()
        await h2.turns(5)
        assert wire.echo.gate.running == set()
        assert wire.hub.held == 0
        assert wire.hub.connections == set()
    else:
        wire.connection.end_calls()
        await h2.turns(5)
        assert wire.echo.gate.running == set()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(DATA, 0, 0, b"x"), h2.PROTOCOL_ERROR),
        (frame(DATA, 0, 1, b"x"), h2.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 2, block(request_fields())), h2.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0, block(request_fields())), h2.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x80"), h2.COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\x0f"), h2.COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05abc"), h2.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1), h2.FRAME_SIZE_ERROR),
        (frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, b"abc"), h2.FRAME_SIZE_ERROR),
        (frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, bytes(8)), h2.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 4, 3, b""), h2.PROTOCOL_ERROR),
        (frame(CONTINUATION, 4, 1, b""), h2.PROTOCOL_ERROR),
        (frame(PRIORITY, 0, 0, bytes(5)), h2.PROTOCOL_ERROR),
        (frame(RST, 0, 0, bytes(4)), h2.PROTOCOL_ERROR),
        (frame(RST, 0, 1, bytes(4)), h2.PROTOCOL_ERROR),
        (unary(1) + frame(RST, 0, 1, bytes(3)), h2.FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 1), h2.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, bytes(5)), h2.FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, bytes(6)), h2.FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 0, b"\0\2\0\0\0\2"), h2.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"\0\4\x80\0\0\0"), h2.FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"), h2.PROTOCOL_ERROR),
        (frame(h2.PUSH, END_HEADERS, 1, bytes(4)), h2.PROTOCOL_ERROR),
        (frame(PING, 0, 1, bytes(8)), h2.PROTOCOL_ERROR),
        (frame(PING, 0, 0, bytes(7)), h2.FRAME_SIZE_ERROR),
        (frame(GOAWAY, 0, 1, bytes(8)), h2.PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 0, bytes(7)), h2.FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, bytes(4)), h2.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, bytes(3)), h2.FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), h2.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), h2.FLOW_CONTROL_ERROR),
        (b"\xff\xff\xff\0\0\0\0\0\1", h2.FRAME_SIZE_ERROR),
        (unary(1) + headers(1), h2.STREAM_CLOSED),
        (unary(5) + headers(3), h2.PROTOCOL_ERROR),
        (headers(1, "/test.Echo/Never") + frame(HEADERS, 0, 1, b"") + frame(DATA, 0, 1), h2.PROTOCOL_ERROR),
    ],
)  # fmt: skip
@run
async def test_connection_errors(data, code):
    wire = Wire()
    frames = await wire.exchange(data)
    assert codes(frames, GOAWAY) == [code]
    assert wire.transport.ended
    assert wire.connection.streams == {}
    wire.feed(unary(7))  # nothing happens after it
    assert wire.take() == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (headers(1, **{":method": "POST", "Upper": "x"}), h2.PROTOCOL_ERROR),
        (headers(1, connection="close"), h2.PROTOCOL_ERROR),
        (headers(1, te="gzip"), h2.PROTOCOL_ERROR),
        (headers(1, transfer_encoding="chunked"), h2.PROTOCOL_ERROR),
        (headers(1, x="a\r\nb"), h2.PROTOCOL_ERROR),
        (headers(1, x=" a"), h2.PROTOCOL_ERROR),
        (headers(1, **{"x y": "a"}), h2.PROTOCOL_ERROR),
        (headers(1, **{":status": "200"}), h2.PROTOCOL_ERROR),
        (headers(1, **{":unknown": "1"}), h2.PROTOCOL_ERROR),
        (headers(1, path=""), h2.PROTOCOL_ERROR),
        (headers(1, content_length="-1"), h2.PROTOCOL_ERROR),
        (headers(1, content_length="3") + frame(DATA, END_STREAM, 1, b"12"), h2.PROTOCOL_ERROR),
        (headers(1, content_length="3") + frame(DATA, 0, 1, b"1234"), h2.PROTOCOL_ERROR),
        (headers(1, flags=END_STREAM, content_length="3"), h2.PROTOCOL_ERROR),
        (headers(1, "/test.Echo/Sum") + headers(1, "/test.Echo/Sum"), h2.PROTOCOL_ERROR),
        (headers(1, "/test.Echo/Sum") + headers(1, flags=END_STREAM), h2.PROTOCOL_ERROR),
        (headers(1, "/test.Echo/Sum") + frame(WINDOW_UPDATE, 0, 1, bytes(4)), h2.PROTOCOL_ERROR),
        (headers(1, "/test.Echo/Sum") + frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), h2.FLOW_CONTROL_ERROR),
        (headers(1, "/test.Echo/Sum") + frame(PRIORITY, 0, 1, bytes(4)), h2.FRAME_SIZE_ERROR),
        (headers(1, "/test.Echo/Sum") + frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), h2.PROTOCOL_ERROR),
        (unary(1, path="/test.Echo/Never") + frame(DATA, 0, 1, b"x"), h2.STREAM_CLOSED),
        (unary(1, path="/test.Echo/Never") + headers(1), h2.STREAM_CLOSED),
        (unary(1) + frame(DATA, 0, 1, b"x"), h2.STREAM_CLOSED),
    ],
)  # fmt: skip
@run
async def test_stream_errors_leave_the_connection_alone(data, code):
    wire = Wire()
    frames = await wire.exchange(data)
    assert codes(frames, RST)[-1:] == [code]
    assert codes(frames, GOAWAY) == []
    assert wire.connection.streams == {}
    after = await wire.exchange(unary(3, b"fine"))
    assert message(b"fine") in [f.payload for f in after]


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", b"\x16\x03\x01\x02\x00",
     h2.PREFACE + frame(PING, 0, 0, bytes(8)), h2.PREFACE + frame(SETTINGS, ACK)],
)  # fmt: skip
@run
async def test_what_is_no_http2_is_sent_away(data):
    wire = Wire(greet=False)
    frames = await wire.exchange(data)
    assert codes(frames, GOAWAY) == [h2.PROTOCOL_ERROR]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": "application/json"}, "415"),
        ({"content-type": "application/grpc-web"}, "415"),
    ],
)
@run
async def test_http_that_is_no_grpc_is_told_so(fields, expected):
    wire = Wire()
    assert await wire.exchange(headers(1, **fields)) == []  # the body may still be malformed
    frames = await wire.exchange(frame(DATA, END_STREAM, 1, b"body"))
    assert wire.fields(frames[0])[":status"] == expected
    assert [f.kind for f in frames] == [HEADERS, DATA, DATA]
    assert wire.echo.gate.codes == {}


@pytest.mark.parametrize(
    ("data", "grpc_status"),
    [
        (unary(1, path="/test.Echo/Unknown"), "12"),
        (unary(1, grpc_encoding="snappy"), "12"),
        (unary(1, grpc_timeout="soon"), "3"),
        (unary(1, x="v" * 16_150), "8"),
        (unary(1, x_api_key="wrong"), "16"),
        (unary(1, path="/test.Echo/Break"), "13"),
        (headers(1, flags=END_STREAM), "12"),
        (headers(1) + frame(DATA, END_STREAM, 1, message(b"a") * 2), "12"),
        (headers(1) + frame(DATA, END_STREAM, 1, message(b"abc")[:-1]), "3"),
        (headers(1) + frame(DATA, END_STREAM, 1, message(b"abc", 1)), "13"),
        (headers(1, grpc_encoding="gzip") + frame(DATA, END_STREAM, 1, message(b"abc", 1)), "3"),
        (headers(1) + frame(DATA, END_STREAM, 1, b"\2\0\0\0\0"), "3"),
        (headers(1) + frame(DATA, 0, 1, b"\0\x7f\xff\xff\xff"), "8"),
        (headers(1, "/test.Echo/Count", flags=END_STREAM), "12"),
        (headers(1, "/test.Echo/Count") + frame(DATA, END_STREAM, 1, message(b"1") * 2), "12"),
        (headers(1, "/test.Echo/Sum") + frame(DATA, END_STREAM, 1, message(b"1")[:3]), "3"),
        (unary(1, b"0", path="/test.Echo/BreakStream"), "13"),
        (unary(1, b"refuse", path="/test.Echo/BreakStream"), "3"),
        (unary(1, content_type="application/grpc+proto"), "0"),
        (unary(1, te="Trailers"), "0"),
        (unary(1, **{"x-data-bin": "AAEC"}), "0"),
    ],
)  # fmt: skip
@run
async def test_statuses(data, grpc_status):
    wire = Wire()
    frames = await wire.exchange(data)
    found = status(wire, frames)
    assert found["grpc-status"] == grpc_status
    assert "secret" not in str(found)
    assert wire.connection.streams == {}
    assert wire.echo.gate.running == set()
    assert codes(frames, GOAWAY) == []
    after = await wire.exchange(unary(3, b"fine"))
    assert message(b"fine") in [f.payload for f in after]


@run
async def test_a_refusal_carries_its_details():
    wire = Wire()
    frames = await wire.exchange(unary(1, b"x", path="/test.Echo/Refuse"))
    found = status(wire, frames)
    assert found["grpc-message"] == "refused: %C3%BC%25%0A"
    assert found["cipherscore-error-code"] == "invalid-request"
    assert found["cipherscore-error-row"] == "3"
    assert wire.echo.gate.codes == {"invalid-request": 1}
    frames = await wire.exchange(unary(3, b"", path="/test.Echo/Refuse"))
    assert status(wire, frames, 3)["grpc-retry-pushback-ms"] == "500"


@run
async def test_gate_sees_metadata_and_timeout():
    wire = Wire()
    await wire.exchange(
        unary(1, grpc_timeout="250m", authorization="Bearer abc", x_data_bin="AA==")
    )
    metadata, _, timeout = wire.echo.gate.seen[0]
    assert metadata["authorization"] == "Bearer abc"
    assert metadata["x-data-bin"] == "AA=="
    assert not any(name.startswith(":") for name in metadata)
    assert timeout == 0.25


@run
async def test_a_repeated_credential_is_not_one_of_them():
    wire = Wire()
    fields = [*request_fields(), ("authorization", "a"), ("authorization", "b")]
    await wire.exchange(frame(HEADERS, END_HEADERS, 1, block(fields)))
    assert wire.echo.gate.seen[0][0]["authorization"] == "a,b"
    wire.lose()


# ---- flow control


@run
async def test_answers_wait_for_both_windows():
    wire = Wire()
    wire.feed(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\x0a"))  # ten bytes a stream
    wire.take()
    frames = await wire.exchange(unary(1, b"x" * 20))
    assert [len(f.payload) for f in frames if f.kind == DATA] == [10]
    frames = await wire.exchange(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\5"))
    assert [len(f.payload) for f in frames] == [5]
    frames = await wire.exchange(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\x14"))  # ten more for all
    assert [len(f.payload) for f in frames if f.kind == DATA] == [10]
    assert status(wire, frames) == {"grpc-status": "0"}
    assert wire.echo.gate.codes == {"ok": 1}


@run
async def test_a_window_may_become_negative():
    wire = Wire()
    wire.feed(unary(1, b"100", path="/test.Echo/Big") + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
    wire.feed(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\x40") + unary(3, b"x" * 100))
    wire.feed(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
    wire.take()
    assert wire.connection.streams[3].window == -64
    assert await wire.exchange(frame(WINDOW_UPDATE, 0, 3, b"\0\0\0\x40")) == []
    frames = await wire.exchange(frame(WINDOW_UPDATE, 0, 3, b"\0\0\0\x29"))
    assert [len(f.payload) for f in frames if f.kind == DATA] == [41]


@run
async def test_one_stalled_stream_does_not_stop_another():
    wire = Wire()
    wire.feed(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0") + unary(1, b"first") + unary(3, b"second"))
    wire.take()
    frames = await wire.exchange(frame(WINDOW_UPDATE, 0, 3, b"\0\0\1\0"))
    assert {f.stream for f in frames} == {3}
    frames = await wire.exchange(frame(WINDOW_UPDATE, 0, 1, b"\0\0\1\0"))
    assert frames[0].payload == message(b"first")


@run
async def test_big_answers_are_cut_and_share_the_connection():
    wire = Wire()
    wire.feed(frame(SETTINGS, 0, 0, b"\0\4\0\x0f\xff\xff"))
    wire.feed(unary(1, b"60000", path="/test.Echo/Big") + unary(3, b"60000", path="/test.Echo/Big"))
    frames = [f for f in wire.take() if f.kind == DATA]
    assert max(len(f.payload) for f in frames) == 16_384
    assert sum(len(f.payload) for f in frames) == 65_535
    frames = await wire.exchange(frame(WINDOW_UPDATE, 0, 0, b"\0\1\0\0"))
    assert sum(len(f.payload) for f in frames if f.kind == DATA) == 120_010 - 65_535
    assert status(wire, frames, 3) == {"grpc-status": "0"}


@run
async def test_uploads_get_their_window_back():
    wire = Wire()
    wire.feed(headers(1, "/test.Echo/Sum"))
    data = message(bytes(3 * STREAM_WINDOW))
    given_back = {0: 0, 1: 0}
    for at in range(0, len(data), 16_384):
        frames = await wire.exchange(frame(DATA, 0, 1, data[at : at + 16_384]))
        for found in frames:
            given_back[found.stream] += int.from_bytes(found.payload, "big")
    assert given_back[1] > 2 * STREAM_WINDOW
    frames = await wire.exchange(frame(DATA, END_STREAM, 1))
    assert [f.payload[5:] for f in frames if f.kind == DATA] == [b"%d" % (3 * STREAM_WINDOW)]
    assert wire.hub.held == 0


@run
async def test_a_method_that_does_not_take_messages_holds_the_client_up():
    wire = Wire()
    wire.feed(headers(1, "/test.Echo/Stuck"))
    await h2.turns()
    sent = 0
    data = frame(DATA, 0, 1, message(bytes(16_000)))
    while sent + 16_005 <= STREAM_WINDOW:
        frames = await wire.exchange(data)
        assert all(found.stream == 0 for found in frames)
        sent += 16_005
    assert 0 < wire.hub.held <= STREAM_WINDOW
    frames = await wire.exchange(data)
    assert codes(frames, RST) == [h2.FLOW_CONTROL_ERROR]
    assert wire.hub.held == 0
    await h2.turns()
    assert wire.echo.ended["stuck"] == 1


@run
async def test_more_than_the_connections_window_ends_it():
    wire = Wire()
    streams = range(1, 2 * (CONNECTION_WINDOW // STREAM_WINDOW) + 9, 2)
    begun = b"\0\1\0\0\0"  # of a message of 16 MiB
    data = b"".join(headers(s, "/test.Echo/Stuck") + frame(DATA, 0, s, begun) for s in streams)
    chunk = bytes(16_384)
    for _ in range(STREAM_WINDOW // len(chunk)):
        data += b"".join(frame(DATA, 0, s, chunk) for s in streams)
    wire.feed(data)  # one turn of the loop: nothing could be given back
    assert codes(wire.take(), GOAWAY) == [h2.FLOW_CONTROL_ERROR]


@run
async def test_memory_for_incomplete_messages_is_bounded():
    wire = Wire(max_message_bytes=1 << 20)
    refused = 0
    for stream in range(1, 41, 2):
        wire.feed(headers(stream, "/test.Echo/Unary"))
        data = b"\0" + (1 << 20).to_bytes(4, "big") + bytes(16_000)
        frames = await wire.exchange(frame(DATA, 0, stream, data))
        for _ in range(20):
            if stream in wire.connection.streams:
                frames += await wire.exchange(frame(DATA, 0, stream, bytes(16_000)))
        refused += sum(f.kind == HEADERS for f in frames)
        assert wire.hub.held <= 4 << 20
    assert refused > 0
    wire.lose()
    assert wire.hub.held == 0


# ---- cancelling and ending


@run
async def test_reset_cancels_the_call():
    wire = Wire()
    wire.feed(unary(1, path="/test.Echo/Never") + frame(RST, 0, 1, b"\0\0\0\x08"))
    assert wire.echo.gate.admitted[0].cancelled
    assert wire.echo.gate.codes == {"cancelled": 1}
    wire.echo.pending[0][1](b"too late")
    assert await wire.exchange(b"") == []


@run
async def test_reset_ends_the_task_of_a_stream():
    wire = Wire()
    await wire.exchange(headers(1, "/test.Echo/Bidi") + frame(DATA, 0, 1, message(b"x")))
    await wire.exchange(frame(RST, 0, 1, b"\0\0\0\x08"))
    assert wire.echo.ended["bidi"] == 1
    assert wire.echo.gate.codes == {"cancelled": 1}


@run
async def test_a_lost_connection_cancels_everything():
    wire = Wire()
    wire.feed(unary(1, path="/test.Echo/Never") + headers(3, "/test.Echo/Bidi") + headers(5))
    wire.feed(unary(7, b"9999", path="/test.Echo/Count"))
    await h2.turns()
    wire.lose()
    await h2.turns()
    assert wire.echo.gate.codes == {"cancelled": 4}
    assert all(call.cancelled for call in wire.echo.gate.admitted)
    assert wire.echo.ended["bidi"] == wire.echo.ended["count"] == 1
    assert wire.hub.connections == set()


@run
async def test_a_slow_client_stops_the_method_that_answers_it():
    wire = Wire()
    wire.feed(unary(1, b"100000", path="/test.Echo/Count"))
    await h2.turns(100)
    assert wire.echo.ended["made"] < 80  # the window is 64 KiB, a message 1 kB
    wire.connection.pause_writing()
    wire.feed(frame(WINDOW_UPDATE, 0, 0, b"\0\x7f\0\0") + frame(WINDOW_UPDATE, 0, 1, b"\0\x7f\0\0"))
    made = wire.echo.ended["made"]
    await h2.turns(100)
    assert wire.echo.ended["made"] == made  # the socket is full
    assert wire.transport.deaf
    wire.connection.resume_writing()
    assert not wire.transport.deaf
    await h2.turns(300)
    assert wire.echo.ended["made"] > made
    wire.lose()


@run
async def test_late_frames_of_a_stream_that_was_refused_are_ignored():
    wire = Wire()
    frames = await wire.exchange(headers(1, x_api_key="wrong"))
    assert codes(frames, RST) == [h2.NO_ERROR]
    frames = await wire.exchange(frame(DATA, 0, 1, b"x" * 50) + frame(DATA, END_STREAM, 1, b"x"))
    assert frames == []
    frames = await wire.exchange(frame(DATA, 0, 1, b"x"))  # but it had ended it
    assert codes(frames, RST) == [h2.STREAM_CLOSED]


@run
async def test_more_streams_than_announced_are_refused():
    wire = Wire(max_streams=3)
    data = b"".join(unary(s, path="/test.Echo/Never") for s in (1, 3, 5, 7))
    frames = await wire.exchange(data)
    assert [(f.stream, f.code) for f in frames] == [(7, h2.REFUSED_STREAM)]
    assert wire.echo.gate.codes == {}
    wire.lose()


@run
async def test_a_turn_has_a_bounded_number_of_frames():
    wire = Wire()
    wire.feed(b"".join(unary(s, b"%d" % s) for s in range(1, 4001, 2)))
    answered = sum(f.kind == DATA for f in wire.take())
    assert answered == 512
    assert wire.transport.deaf  # nothing more is read before the rest is done
    await h2.turns(10)
    assert sum(f.kind == DATA for f in wire.take()) == 2000 - 512
    assert not wire.transport.deaf


@run
async def test_pings_and_settings_are_acknowledged():
    wire = Wire()
    frames = await wire.exchange(
        frame(PING, 0, 0, b"abcdefgh") + frame(SETTINGS, 0, 0, b"\0\x99abcd")
    )
    assert [(f.kind, f.flags, f.payload) for f in frames] == [
        (PING, ACK, b"abcdefgh"),
        (SETTINGS, ACK, b""),
    ]


@run
async def test_a_bug_in_the_engine_ends_one_connection_only():
    wire = Wire()
    wire.connection._settings = None
    frames = await wire.exchange(frame(SETTINGS))
    assert codes(frames, GOAWAY) == [2]
    assert wire.transport.ended
