"""TLS of the servers over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from cipherscore.errors import ConfigurationError
from serving import file_watch, tls
from serving.settings import Settings
from tests.support.certificates import Authority, _builder, make_authority


@dataclass
class Files:
    """The certificate files of a server and a client, in one folder."""

    folder: Path
    authority: Authority

    @classmethod
    def make(cls, folder: Path) -> Files:
        folder.mkdir(exist_ok=True)
        files = cls(folder, make_authority())
        files.write("server", "localhost")
        files.write("client", "gw.bank-a")
        (folder / "ca.pem").write_bytes(files.authority.certificate)
        return files

    def write(self, name: str, subject: str) -> None:
        key, certificate = self.authority.issue(subject)
        (self.folder / f"{name}.key").write_bytes(key)
        (self.folder / f"{name}.pem").write_bytes(certificate)

    def settings(self, *, mutual: bool = True) -> Settings:
        return Settings(
            tls_cert_file=self.folder / "server.pem",
            tls_key_file=self.folder / "server.key",
            tls_client_ca_file=self.folder / "ca.pem" if mutual else None,
        )

    def client(self, *, certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate:
            context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return context


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "LOOK_SECONDS", 0.0)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files.make(tmp_path / "tls")


class Echo:
    """A TLS server on an event loop; answers with the client's name."""

    def __init__(self, settings: Settings) -> None:
        self.context = tls.server_context(settings, tls.H2)

    async def serve(self) -> asyncio.Server:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            name = tls.certificate_name(writer.get_extra_info("peercert"))
            writer.write(f"hello {name}".encode())
            await writer.drain()
            writer.close()

        return await asyncio.start_server(answer, "127.0.0.1", 0, ssl=self.context)


async def ask(server: asyncio.Server, context: ssl.SSLContext) -> tuple[str, ssl.SSLObject]:
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    try:
        return (await reader.read()).decode(), writer.get_extra_info("ssl_object")
    finally:
        writer.close()


def run(work, loop_kind: str = "asyncio"):
    loop = uvloop.new_event_loop() if loop_kind == "uvloop" else asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work, 30))
    finally:
        loop.close()


async def refused(server: asyncio.Server, context: ssl.SSLContext) -> None:
    # TLS 1.3: the client learns of the refusal when it reads.
    try:
        text, _ = await ask(server, context)
    except (ssl.SSLError, ConnectionError):
        return
    assert not text


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
def test_mutual_tls_gives_the_clients_name(files: Files, loop_kind: str) -> None:
    async def talk() -> None:
        server = await Echo(files.settings()).serve()
        context = files.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        text, connection = await ask(server, context)
        assert text == "hello gw.bank-a"
        assert connection.selected_alpn_protocol() == "h2"
        await refused(server, files.client(certificate=False))
        stranger = Files.make(files.folder.parent / "stranger")
        context = files.client(certificate=False)
        context.load_cert_chain(stranger.folder / "client.pem", stranger.folder / "client.key")
        await refused(server, context)
        server.close()

    run(talk(), loop_kind)


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
def test_certificates_are_exchanged_while_serving(
    files: Files, loop_kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk() -> None:
        server = await Echo(files.settings()).serve()
        before = files.client()
        await ask(server, before)
        other = Files.make(files.folder)  # another authority, server and client
        await ask(server, other.client())
        await ask(server, other.client())
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(server, before)
        # The old client trusts the new server, and is still refused.
        before.load_verify_locations(files.folder / "ca.pem")
        await refused(server, before)
        (files.folder / "server.pem").write_text("junk")
        for _ in range(2):
            assert (await ask(server, other.client()))[0] == "hello gw.bank-a"
        server.close()

    run(talk(), loop_kind)
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert "PRIVATE" not in caplog.text


def test_a_session_is_not_resumed_without_verifying(files: Files) -> None:
    async def talk() -> None:
        server = await Echo(files.settings()).serve()
        _, connection = await ask(server, files.client())
        assert connection.session is None or not connection.session.has_ticket
        server.close()

    run(talk())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(files: Files) -> None:
    async def talk() -> None:
        server = await Echo(files.settings(mutual=False)).serve()
        context = files.client(certificate=False)
        assert (await ask(server, context))[1].version() == "TLSv1.3"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        _, connection = await ask(server, context)
        cipher = connection.cipher()
        assert connection.version() == "TLSv1.2"
        assert cipher is not None
        assert cipher[0].startswith("ECDHE")
        context.set_ciphers("AES128-SHA:@SECLEVEL=0")
        await refused(server, context)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        await refused(server, context)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"hello" not in await reader.read()
        writer.close()
        server.close()

    run(talk())


def test_without_certificate_there_is_no_tls() -> None:
    assert tls.server_context(Settings(), tls.H2) is None
    assert tls.grpc_credentials(Settings()) is None
    assert tls.bentoml_config(Settings()) == {"enabled": False}


# ---- the grpcio engine


@contextmanager
def grpc_server(settings: Settings) -> Iterator[int]:
    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        return tls.grpc_certificate(context.auth_context()).encode()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x", {"y": handler}),))
    port = server.add_secure_port("127.0.0.1:0", tls.grpc_credentials(settings))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def call(files: Files, port: int, *, certificate: bool = True) -> str:
    folder = files.folder
    pair = (
        ((folder / "client.key").read_bytes(), (folder / "client.pem").read_bytes())
        if certificate
        else (None, None)
    )
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), *pair)
    options = [
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        answer: bytes = channel.unary_unary("/x/y")(b"", timeout=10)
        return answer.decode()


def test_grpcio_names_the_client_and_exchanges_certificates(files: Files) -> None:
    with grpc_server(files.settings()) as port:
        assert call(files, port) == "gw.bank-a"
        with pytest.raises(grpc.RpcError) as caught:
            call(files, port, certificate=False)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        other = Files.make(files.folder)
        assert call(other, port) == "gw.bank-a"
        (files.folder / "server.key").write_text("junk")
        assert call(other, port) == "gw.bank-a"


# ---- names


def certified(*names: x509.GeneralName, common: str = "common") -> tuple[bytes, dict[str, object]]:
    """Return a certificate as PEM, and as `ssl` shows it once verified."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(common, common, key)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    kinds = {x509.DNSName: "DNS", x509.UniformResourceIdentifier: "URI", x509.RFC822Name: "email"}
    shown = {
        "subject": ((("commonName", common),),),
        "subjectAltName": tuple((kinds[type(name)], name.value) for name in names),
    }
    return pem, shown


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "common"),
        ((x509.DNSName("a.example"), x509.DNSName("b.example")), "a.example"),
        ((x509.UniformResourceIdentifier("spiffe://a/b"), x509.DNSName("b")), "spiffe://a/b"),
        ((x509.RFC822Name("a@b.example"), x509.DNSName("b.example")), "b.example"),
        ((x509.RFC822Name("a@b.example"),), "common"),
    ],
)
def test_both_engines_find_the_same_name(
    names: tuple[x509.GeneralName, ...], expected: str
) -> None:
    pem, shown = certified(*names)
    assert tls.pem_certificate_name(pem) == tls.certificate_name(shown) == expected
    assert tls.grpc_certificate({"x509_pem_cert": [pem]}) == expected


def test_no_certificate_no_name() -> None:
    assert tls.certificate_name(None) == tls.certificate_name({}) == ""
    assert tls.grpc_certificate({}) == ""
    assert tls.certificate_name({"subject": ((("countryName", "DE"),),)}) == ""


# ---- what cannot be used


def encrypted(pem: bytes) -> bytes:
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize("make", [tls.grpc_credentials, lambda s: tls.server_context(s, tls.H2)])
@pytest.mark.parametrize("fault", ["other key", "junk", "encrypted", "no roots", "gone"])
def test_files_that_do_not_fit_are_refused_at_start(files: Files, make, fault: str) -> None:
    key = files.folder / "server.key"
    if fault == "other key":
        key.write_bytes((files.folder / "client.key").read_bytes())
    elif fault == "junk":
        (files.folder / "server.pem").write_text("junk")
    elif fault == "encrypted":
        key.write_bytes(encrypted(key.read_bytes()))
    elif fault == "no roots":
        (files.folder / "ca.pem").write_text("junk")
    else:
        key.unlink()
    with pytest.raises(ConfigurationError, match="ca.pem" if fault == "no roots" else "server.key"):
        make(files.settings())


def test_bentoml_is_told_the_same(files: Files) -> None:
    config = tls.bentoml_config(files.settings())
    assert config["certfile"] == str(files.folder / "server.pem")
    assert config["cert_reqs"] == ssl.CERT_REQUIRED
    assert "cert_reqs" not in tls.bentoml_config(files.settings(mutual=False))


def test_uvicorn_takes_our_context(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn.config

    monkeypatch.setattr(uvicorn.config, "create_ssl_context", uvicorn.config.create_ssl_context)
    tls.lend_context_to_uvicorn(files.settings())
    config = uvicorn.Config(
        lambda: None,
        ssl_certfile=str(files.folder / "server.pem"),
        ssl_keyfile=str(files.folder / "server.key"),
    )
    config.load()
    assert config.ssl is not None
    assert config.ssl.sni_callback is not None
    assert config.ssl.verify_mode == ssl.CERT_REQUIRED
