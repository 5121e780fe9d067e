"""Hostile clients over real sockets: each is sent away, and the others notice nothing."""

import socket
import time

import hpack
import pytest

from serving.http2 import connection, lifecycle
from tests.support import http2_wire as h2
from tests.support.http2_wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    block,
    frame,
    headers,
    message,
    request_fields,
    threaded_server,
    unary,
)


@pytest.fixture(scope="module")
def server():
    with threaded_server(max_connections=20) as running:
        yield running


@pytest.fixture
def client(server):
    client = RawClient(server.port)
    yield client
    client.close()
    assert server.works()


def rapid_reset():
    for stream in range(1, 8001, 2):
        yield headers(stream, "/test.Echo/Never") + frame(RST, 0, stream, b"\0\0\0\x08")


def rapid_reset_of_streams():
    for stream in range(1, 8001, 2):
        yield headers(stream, "/test.Echo/Bidi") + frame(RST, 0, stream, b"\0\0\0\x08")


def resets_made_by_the_server():
    for stream in range(
        1, 8001, 2
    ):  # "MadeYouReset": a fault of the stream makes the server reset it
        yield headers(stream, "/test.Echo/Never") + frame(WINDOW_UPDATE, 0, stream, bytes(4))


def malformed_requests():
    for stream in range(1, 8001, 2):
        yield headers(stream, connection="close", flags=END_STREAM)


def too_many_streams():
    for stream in range(1, 8001, 2):
        yield headers(stream, "/test.Echo/Never")


def continuations():
    yield frame(HEADERS, 0, 1, b"")
    for _ in range(10_000):
        yield frame(CONTINUATION, 0, 1, b"")


def a_long_header_block():
    yield frame(HEADERS, 0, 1, b"\0\1a\x7f\xff\xff\x01")
    for _ in range(100):
        yield frame(CONTINUATION, 0, 1, bytes(16_000))


def hpack_bomb():
    encoder = hpack.Encoder()
    yield frame(HEADERS, END_HEADERS, 1, encoder.encode([*request_fields(), ("x", "v" * 3000)]))
    yield frame(HEADERS, END_HEADERS, 3, encoder.encode([("x", "v" * 3000)]) * 10_000)


def settings_flood():
    for _ in range(5000):
        yield frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff")


def ping_flood():
    for _ in range(20_000):
        yield frame(PING, 0, 0, bytes(8))


def empty_data():
    yield headers(1, "/test.Echo/Bidi")
    for _ in range(20_000):
        yield frame(DATA, 0, 1)


def tiny_data():
    yield headers(1, "/test.Echo/Never") + frame(DATA, 0, 1, (20_000).to_bytes(5, "big"))
    for _ in range(19_999):
        yield frame(DATA, 0, 1, b"x")


def empty_messages():
    yield headers(1, "/test.Echo/Stuck")
    for _ in range(60):
        yield frame(DATA, 0, 1, bytes(16_000))  # 3,200 messages


def window_updates():
    for _ in range(20_000):
        yield frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")


def priorities():
    for _ in range(20_000):
        yield frame(PRIORITY, 0, 1, b"\0\0\0\3\1")


def unknown_frames():
    for _ in range(20_000):
        yield frame(0xEE, 0, 0, b"")


def data_after_the_end():
    yield unary(1)
    for _ in range(20_000):
        yield frame(DATA, 0, 1, b"")


FLOODS = [
    rapid_reset, rapid_reset_of_streams, resets_made_by_the_server, malformed_requests, too_many_streams,
    continuations, a_long_header_block, hpack_bomb, settings_flood, ping_flood, empty_data, tiny_data, empty_messages,
    window_updates, priorities, unknown_frames, data_after_the_end,
]  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_floods_end_the_connection_with_a_reason(server, client, flood):
    other = RawClient(server.port)
    other.send(unary(1, b"before"))
    assert other.until(DATA).payload == message(b"before")
    client.send(b"".join(flood()))
    assert client.closed_with() == h2.CALM
    other.send(unary(3, b"after"))  # the same connection as before
    assert other.until(DATA).payload == message(b"after")
    other.close()
    assert server.call(lambda: server.server._hub.held) == 0


def test_a_busy_client_is_no_flood(server, client):
    """What grpc clients do: a ping, a window update and a reset now and then beside calls."""
    for turn in range(300):
        data = b""
        for number in range(20):
            data += unary(2 * (turn * 21 + number) + 1)
            data += frame(PING, 0, 0, bytes(8)) * 2 + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x0a")
        stream = 2 * (turn * 21 + 20) + 1
        data += headers(stream, "/test.Echo/Never") + frame(RST, 0, stream, b"\0\0\0\x08")
        client.send(data)
        ends = 0
        for found in client.frames():
            assert found.kind != GOAWAY
            ends += found.kind == HEADERS and bool(found.flags & END_STREAM)
            if ends == 20:
                break


def test_many_small_messages_are_no_flood(client):
    client.send(headers(1, "/test.Echo/Sum"))
    for _ in range(20):
        client.send(frame(DATA, 0, 1, message(b"x")) * 1000)
    client.send(frame(DATA, END_STREAM, 1))
    assert client.until(DATA).payload == message(b"20000")


def test_keepalive_pings_are_answered(client):
    for number in range(50):
        client.send(frame(PING, 0, 0, b"%08d" % number))
        while (found := client.until(PING)).payload != b"%08d" % number:
            pass
        assert found.flags == h2.ACK


def test_too_many_connections(server):
    clients = [RawClient(server.port) for _ in range(20)]
    for client in clients:
        client.until(SETTINGS)
    extra = RawClient(server.port)
    assert extra.closed_with() == h2.CALM
    clients[3].send(unary(1, b"still"))
    assert clients[3].until(DATA).payload == message(b"still")
    for client in [*clients, extra]:
        client.close()
    deadline = time.monotonic() + 10
    while server.call(lambda: len(server.server._hub.connections)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.works()


# ---- slow ones; the bounds are shortened, the check runs once a second


@pytest.mark.parametrize(
    "sent", [b"", h2.PREFACE[:10], h2.PREFACE, h2.PREFACE + frame(SETTINGS)[:5]]
)
def test_a_greeting_that_never_ends(server, monkeypatch, sent):
    monkeypatch.setattr(lifecycle, "HANDSHAKE_SECONDS", 0.5)
    client = RawClient(server.port, greet=False)
    client.send(sent)
    assert client.closed_with() is None
    assert server.works()


def test_a_header_block_that_never_ends(server, monkeypatch, client):
    monkeypatch.setattr(lifecycle, "HANDSHAKE_SECONDS", 0.5)
    client.send(frame(HEADERS, 0, 1, block(request_fields())))
    assert client.closed_with() == h2.CALM


def test_an_idle_connection(server, monkeypatch, client):
    monkeypatch.setattr(lifecycle, "IDLE_SECONDS", 0.5)
    client.send(unary(1))
    assert client.closed_with() == h2.NO_ERROR


def test_an_open_call_is_not_idle(server, monkeypatch, client):
    monkeypatch.setattr(lifecycle, "IDLE_SECONDS", 0.3)
    client.send(headers(1, "/test.Echo/Bidi"))
    time.sleep(2.5)
    client.send(frame(DATA, END_STREAM, 1, message(b"here")))
    assert client.until(DATA).payload == message(b"here")


def test_a_client_that_never_reads(server, monkeypatch):
    monkeypatch.setattr(lifecycle, "STALL_SECONDS", 1.0)
    client = RawClient(server.port, greet=False)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(h2.PREFACE + frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff"))
    client.send(frame(WINDOW_UPDATE, 0, 0, b"\x7f\0\0\0"))
    client.send(unary(1, b"100000", path="/test.Echo/Count"))
    deadline = time.monotonic() + 20
    before = server.echo.gate.codes["cancelled"]
    while server.echo.gate.codes["cancelled"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.echo.ended["made"] < 50_000  # it was held up, then ended
    client.close()
    assert server.works()


def test_answers_that_nobody_lets_out_end_with_their_deadline(server, client):
    client.send(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
    client.send(unary(1, b"x", grpc_timeout="200m"))
    decoder = hpack.Decoder()
    for found in client.frames():
        if found.kind == HEADERS:
            fields = dict(decoder.decode(found.payload))
            if found.flags & END_STREAM:
                assert fields["grpc-status"] == "4"
                return


def test_bytes_after_the_end_are_not_read_for_ever(server):
    client = RawClient(server.port)
    client.send(frame(HEADERS, END_HEADERS, 2, b""))
    client.socket.settimeout(10)
    with pytest.raises(OSError):
        client.socket.sendall(bytes(128 << 20))
    assert server.works()


def test_a_turn_is_shared(server, monkeypatch, client):
    monkeypatch.setattr(connection, "TURN_FRAMES", 4)
    client.send(b"".join(unary(stream, b"%d" % stream) for stream in range(1, 201, 2)))
    answered = []
    for found in client.frames():
        if found.kind == DATA:
            answered.append(found.payload)
        if len(answered) == 100:
            break
    assert answered == [message(b"%d" % stream) for stream in range(1, 201, 2)]
