"""The engine as real gRPC clients see it (grpcio)."""

import threading
import time

import grpc
import pytest

from tests.support.certificates import make_authority
from tests.support.http2_wire import threaded_server

MEGABYTE = 1 << 20
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def server():
    with threaded_server() as running:
        yield running


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        yield channel


def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_unary(channel):
    call = channel.unary_unary("/test.Echo/Unary")
    assert call(b"hello") == b"hello"
    assert call(b"") == b""
    assert channel.unary_unary("/test.Echo/Later")(b"later") == b"later"


def test_many_at_once(channel):
    call = channel.unary_unary("/test.Echo/Later")
    futures = [call.future(b"%d" % number) for number in range(2000)]
    assert [future.result() for future in futures] == [b"%d" % number for number in range(2000)]


def test_big_messages(channel, server):
    content = bytes(range(256)) * (20 * MEGABYTE // 256)
    assert channel.unary_unary("/test.Echo/Unary")(content) == content
    assert list(channel.stream_stream("/test.Echo/Bidi")(iter([content, b"x"]))) == [content, b"x"]
    assert server.call(lambda: server.server._hub.held) == 0


def test_a_message_above_the_limit(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Unary")(bytes(33 * MEGABYTE))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert channel.unary_unary("/test.Echo/Unary")(b"fine") == b"fine"


def test_streaming_both_ways_in_step(channel):
    sent = threading.Semaphore(0)

    def requests():
        for number in range(50):
            sent.acquire()
            yield b"%d" % number

    answers = channel.stream_stream("/test.Echo/Bidi")(requests())
    for number in range(50):
        sent.release()
        assert next(answers) == b"%d" % number
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_streaming_one_way(channel):
    answers = list(channel.unary_stream("/test.Echo/Count")(b"3000"))
    assert [answer.rstrip(b"\0") for answer in answers] == [b"%d" % n for n in range(3000)]
    parts = (bytes(1000) for _ in range(3000))
    assert channel.stream_unary("/test.Echo/Sum")(parts) == b"3000000"
    assert channel.stream_unary("/test.Echo/Sum")(iter([])) == b"0"


def test_a_reader_that_stops_holds_up_the_method(channel, server):
    made = server.echo.ended["made"]
    answers = channel.unary_stream("/test.Echo/Count")(b"100000")
    next(answers)
    time.sleep(0.5)
    before = server.echo.ended["made"] - made
    time.sleep(0.5)
    assert server.echo.ended["made"] - made == before < 100_000
    ended = server.echo.ended["count"]
    answers.cancel()
    eventually(lambda: server.echo.ended["count"] == ended + 1)


@pytest.mark.parametrize("method", ["Never", "Stuck"])
def test_deadline(channel, server, method):
    codes = server.echo.gate.codes["deadline-passed"] + server.echo.gate.codes["cancelled"]
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/test.Echo/{method}")(b"x", timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    gate = server.echo.gate
    eventually(lambda: gate.codes["deadline-passed"] + gate.codes["cancelled"] == codes + 1)
    assert gate.admitted[-1].cancelled


def test_the_server_keeps_the_deadline_itself():
    with threaded_server() as server, grpc.insecure_channel(server.address) as channel:
        admit = server.echo.gate.admit

        def impatient(*arguments):
            call = admit(*arguments)
            call.deadline = time.monotonic() + 0.1
            return call

        server.echo.gate.admit = impatient
        for method in ("Never", "Stuck"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/test.Echo/{method}")(b"x")
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert caught.value.details() == "Deadline Exceeded"
        assert server.echo.gate.codes == {"deadline-passed": 2}


def test_cancel(channel, server):
    before = server.echo.gate.codes["cancelled"]
    future = channel.unary_unary("/test.Echo/Never").future(b"x")
    eventually(lambda: server.echo.gate.running)
    future.cancel()
    eventually(lambda: server.echo.gate.codes["cancelled"] == before + 1)
    assert not server.echo.gate.running


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compression(channel, compression):
    content = b"abc" * 100_000
    for size in (10, 300_000):
        call = channel.unary_unary("/test.Echo/Unary")
        assert call(content[:size], compression=compression) == content[:size]
    call = channel.stream_stream("/test.Echo/Bidi")
    assert list(call(iter([content, b"x" * 50]), compression=compression)) == [content, b"x" * 50]


@pytest.mark.parametrize("path", ["Unary", "Bidi"])
def test_a_small_message_that_unpacks_to_a_large_one(path):
    with (
        threaded_server(max_message_bytes=1 << 20) as server,
        grpc.insecure_channel(server.address, OPTIONS) as channel,
    ):
        call = channel.unary_unary(f"/test.Echo/{path}")
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(4 << 20), compression=grpc.Compression.Gzip)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_and_errors(channel, server):
    call = channel.unary_unary("/test.Echo/Unary")
    call(b"x", metadata=[("x-one", "1"), ("x-data-bin", b"\0\1\2"), ("x-one", "2")])
    assert server.echo.gate.seen[-1][0]["x-one"] == "1,2"
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Refuse")(b"x")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "refused: ü%\n"
    trailers = dict(caught.value.trailing_metadata())
    assert trailers["cipherscore-error-code"] == "invalid-request"
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Break")(b"x")
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INTERNAL,
        "internal error",
    )
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Missing")(b"x")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Unary")(b"x", metadata=[("x-api-key", "wrong")])
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream("/test.Echo/BreakStream")(iter([b"refuse"])))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_keepalive_without_calls(server):
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_time_between_pings_ms", 100),
    ]
    with grpc.insecure_channel(server.address, options) as channel:
        call = channel.unary_unary("/test.Echo/Unary")
        assert call(b"a") == b"a"
        time.sleep(1.5)
        assert call(b"b") == b"b"


def test_a_lost_client_cancels_its_calls(server):
    before = server.echo.gate.codes["cancelled"]
    channel = grpc.insecure_channel(server.address)
    going_on = threading.Event()

    def requests():
        yield b"x"
        going_on.wait(20)

    future = channel.unary_unary("/test.Echo/Never").future(b"x")
    stream = channel.stream_stream("/test.Echo/Bidi")(requests())
    next(stream)
    eventually(lambda: len(server.echo.gate.running) == 2)
    channel.close()
    eventually(lambda: server.echo.gate.codes["cancelled"] == before + 2)
    assert future.code() == grpc.StatusCode.CANCELLED
    assert not server.echo.gate.running
    going_on.set()


# ---- TLS


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = make_authority()
    found = {"root": authority.certificate}
    for name in ("localhost", "client.test"):
        key, certificate = authority.issue(name)
        (folder / f"{name}.key").write_bytes(key)
        (folder / f"{name}.pem").write_bytes(certificate)
        found[name] = (key, certificate)
    (folder / "root.pem").write_bytes(authority.certificate)
    return folder, found


def context_of(folder, mutual):
    from serving.settings import Settings
    from serving.tls import H2, server_context

    changes = {"tls_cert_file": folder / "localhost.pem", "tls_key_file": folder / "localhost.key"}
    if mutual:
        changes["tls_client_ca_file"] = folder / "root.pem"
    return server_context(Settings.model_construct(**changes), H2)


def test_tls(tls_files):
    folder, found = tls_files
    with threaded_server(context_of(folder, mutual=False)) as server:
        credentials = grpc.ssl_channel_credentials(found["root"])
        with grpc.secure_channel(f"localhost:{server.port}", credentials, OPTIONS) as channel:
            call = channel.unary_unary("/test.Echo/Unary")
            assert call(b"hello") == b"hello"
            assert call(bytes(5 * MEGABYTE)) == bytes(5 * MEGABYTE)
            assert len(list(channel.unary_stream("/test.Echo/Count")(b"500"))) == 500
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/test.Echo/Unary")(b"x", timeout=3)
        _connect(server.port, found["root"], ["http/1.1"])
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            assert channel.unary_unary("/test.Echo/Unary")(b"still") == b"still"


def _connect(port, root, protocols):
    """Open a TLS connection that does not speak h2; it must be closed."""
    import socket
    import ssl

    context = ssl.create_default_context(cadata=root.decode())
    context.set_alpn_protocols(protocols)
    try:
        with (
            socket.create_connection(("localhost", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.settimeout(10)
            assert secured.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        pass  # the handshake itself may fail


def test_mutual_tls(tls_files):
    folder, found = tls_files
    with threaded_server(context_of(folder, mutual=True)) as server:
        key, certificate = found["client.test"]
        credentials = grpc.ssl_channel_credentials(found["root"], key, certificate)
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            assert channel.unary_unary("/test.Echo/Unary")(b"hello") == b"hello"
        assert server.echo.gate.seen[-1][1] == "client.test"
        anonymous = grpc.ssl_channel_credentials(found["root"])
        with grpc.secure_channel(f"localhost:{server.port}", anonymous) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/test.Echo/Unary")(b"x", timeout=3)
            assert caught.value.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )
