"""Shutting down: what was begun ends, what comes too late is told so, watches hold nothing up."""

import asyncio
import threading
import time

import grpc
import pytest

from cipherscore.errors import ConfigurationError
from tests.support import http2_wire as h2
from tests.support.http2_wire import (
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    RawClient,
    ThreadedServer,
    frame,
    headers,
    message,
    threaded_server,
    unary,
)


def draining(server):
    """Begin to drain; return what waits for its end."""
    return asyncio.run_coroutine_threadsafe(server.server.drain(), server.loop)


def test_goaway_comes_in_two_steps_and_calls_in_between_are_answered():
    with threaded_server() as server:
        client = RawClient(server.port)
        client.send(unary(1, path="/test.Echo/Never"))
        client.until(h2.SETTINGS)
        while not server.echo.pending:
            time.sleep(0.01)
        drained = draining(server)
        first = client.until(GOAWAY)
        assert first.payload[:4] == b"\x7f\xff\xff\xff"
        ping = client.until(PING)
        client.send(unary(3, b"on its way"))
        assert client.until(DATA).payload == message(b"on its way")
        client.send(frame(PING, h2.ACK, 0, ping.payload))
        last = client.until(GOAWAY)
        assert last.payload == b"\0\0\0\3\0\0\0\0"
        client.send(unary(5, b"too late"))
        assert not drained.done()
        server.call(server.echo.pending[0][1], b"done")
        assert [f.payload for f in client.frames() if f.kind == DATA] == [message(b"done")]
        client.close()
        drained.result(10)
        assert server.echo.gate.codes == {"ok": 2}


def test_a_watch_does_not_hold_it_up_and_is_told():
    with (
        threaded_server(drain_seconds=60.0) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        answers = channel.unary_stream("/test.Echo/Watch")(b"status")
        assert next(answers) == b"status"
        drained = draining(server)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        drained.result(20)  # long before the 60 seconds


def test_calls_that_take_too_long_are_ended():
    with (
        threaded_server(drain_seconds=0.2) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        future = channel.unary_unary("/test.Echo/Never").future(b"x")
        while not server.echo.pending:
            time.sleep(0.01)
        draining(server).result(20)
        assert future.code() == grpc.StatusCode.UNAVAILABLE
        assert server.echo.gate.admitted[0].cancelled


def test_no_call_of_a_busy_client_is_lost():
    servers = [ThreadedServer(workers=2)]
    servers.append(ThreadedServer(workers=2, grpc_port=servers[0].port))  # as a second worker
    stop = threading.Event()
    outcomes = []

    def ask():
        with grpc.insecure_channel(servers[0].address) as channel:
            call = channel.unary_unary("/test.Echo/Later")
            while not stop.is_set():
                try:
                    outcomes.append(call(b"x", timeout=30, wait_for_ready=True))
                except grpc.RpcError as error:
                    outcomes.append(error.code())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    draining(servers[0]).result(20)
    before = len(outcomes)
    while len(outcomes) < before + 100:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {b"x"}
    for server in servers:
        server.stop()
        assert server.problems == []


def test_connections_that_are_idle_or_not_greeted_are_closed():
    with threaded_server() as server:
        idle, mute = RawClient(server.port), RawClient(server.port, greet=False)
        idle.send(unary(1))
        idle.until(DATA)
        mute.until(h2.SETTINGS)
        drained = draining(server)
        assert idle.closed_with() == h2.NO_ERROR
        assert mute.closed_with() == h2.NO_ERROR
        idle.close()
        mute.close()
        drained.result(20)
        with pytest.raises(OSError):
            RawClient(server.port)


def test_a_second_server_cannot_take_the_port():
    with threaded_server() as server, pytest.raises(ConfigurationError, match="cannot listen"):
        ThreadedServer(grpc_port=server.port)


def test_a_stream_that_ends_by_itself_is_waited_for():
    with threaded_server() as server:
        client = RawClient(server.port)
        client.send(headers(1, "/test.Echo/Bidi") + frame(DATA, 0, 1, message(b"a")))
        assert client.until(DATA).payload == message(b"a")
        drained = draining(server)
        client.until(GOAWAY)
        client.send(frame(DATA, h2.END_STREAM, 1, message(b"b")))
        kinds = [(f.kind, f.payload) for f in client.frames() if f.kind in (DATA, HEADERS)]
        assert kinds[0] == (DATA, message(b"b"))
        assert len(kinds) == 2
        client.close()
        drained.result(20)
        assert server.echo.gate.codes == {"ok": 1}


def test_an_open_stream_is_answered_and_then_ended():
    """It would hold the server up for the whole of the drain, and then be cut off."""
    with (
        threaded_server(drain_seconds=60.0) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        over = threading.Event()
        sent = [b"a", b"b", b"c"]

        def requests():
            yield from sent
            over.wait(60)

        answers = channel.stream_stream("/test.Echo/Bidi")(requests())
        assert [next(answers) for _ in sent] == sent
        drained = draining(server)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        over.set()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert ("cipherscore-error-code", "draining") in caught.value.trailing_metadata()
        drained.result(20)  # long before the 60 seconds
        assert server.echo.gate.codes == {"draining": 1}
