"""The check a container is asked by: against real sockets, in plain text, with TLS and mutual TLS."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import healthcheck
from serving.settings import Settings
from tests.support.certificates import make_authority
from tests.support.server import free_port

Start = Callable[..., dict[str, str]]


@pytest.fixture
def grpc_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.fixture
def serve() -> Iterator[Start]:
    """Serve a status on /readyz; return BentoML's environment for it."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(status: int, context: ssl.SSLContext | None = None) -> dict[str, str]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/readyz" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None: ...

        server = Quiet(("127.0.0.1", 0), Handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return {"BENTOML_HOST": "0.0.0.0", "BENTOML_PORT": str(server.server_address[1])}

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_ready_host_is_healthy(serve: Start, grpc_port: int) -> None:
    assert healthcheck.failure(Settings(grpc_port=grpc_port), serve(200)) == ""


def test_a_host_that_drains_is_not(serve: Start, grpc_port: int) -> None:
    assert "/readyz answered 503" in healthcheck.failure(Settings(grpc_port=grpc_port), serve(503))


def test_closed_ports_are_told(serve: Start, grpc_port: int) -> None:
    closed = free_port()
    said = healthcheck.failure(Settings(grpc_port=grpc_port), {"BENTOML_PORT": str(closed)})
    assert f"HTTP on port {closed}: ConnectionRefusedError" in said
    said = healthcheck.failure(Settings(grpc_port=closed), serve(200))
    assert f"gRPC on port {closed}: ConnectionRefusedError" in said


def test_something_else_on_the_port_is_not_healthy(grpc_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            connection.sendall(b"SSH-2.0-other\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        port = str(other.getsockname()[1])
        said = healthcheck.failure(Settings(grpc_port=grpc_port), {"BENTOML_PORT": port})
    assert f"HTTP on port {port}" in said


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, dict[str, Path]]:
    authority = make_authority()
    key, certificate = authority.issue("scoring.example")
    files = {"tls_cert_file": tmp_path / "tls.crt", "tls_key_file": tmp_path / "tls.key"}
    files["tls_cert_file"].write_bytes(certificate)
    files["tls_key_file"].write_bytes(key)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["tls_cert_file"], files["tls_key_file"])
    return context, files


def test_tls_is_spoken_where_it_is_set(
    serve: Start, grpc_port: int, contexts: tuple[ssl.SSLContext, dict[str, Path]]
) -> None:
    context, files = contexts
    assert healthcheck.failure(Settings(grpc_port=grpc_port, **files), serve(200, context)) == ""
    said = healthcheck.failure(Settings(grpc_port=grpc_port, **files), serve(503, context))
    assert "503" in said
    assert "HTTP" in healthcheck.failure(Settings(grpc_port=grpc_port, **files), serve(200))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_being_asked_for_a_certificate_must_do(
    serve: Start,
    grpc_port: int,
    tmp_path: Path,
    contexts: tuple[ssl.SSLContext, dict[str, Path]],
    version: ssl.TLSVersion,
) -> None:
    context, files = contexts
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "ca.crt")
    environment = serve(200, context)
    mutual = Settings(grpc_port=grpc_port, tls_client_ca_file=tmp_path / "ca.crt", **files)
    assert healthcheck.failure(mutual, environment) == ""
    assert healthcheck.failure(Settings(grpc_port=grpc_port, **files), environment)
    closed = {"BENTOML_PORT": str(free_port())}
    assert "ConnectionRefusedError" in healthcheck.failure(mutual, closed)


def test_the_exit_status_and_the_words(
    serve: Start,
    grpc_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CIPHERSCORE_GRPC_PORT", str(grpc_port))
    for name, value in serve(200).items():
        monkeypatch.setenv(name, value)
    assert healthcheck.main() == 0
    monkeypatch.setenv("CIPHERSCORE_GRPC_PORT", "0")
    assert healthcheck.main() == 1
    assert "CIPHERSCORE_GRPC_PORT" in capsys.readouterr().err
