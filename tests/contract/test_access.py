"""Who is let in, over TLS and mutual TLS, on every route of a real server, with both engines."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from cipherscore.proto.inference import grpc_service_pb2 as oip
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from serving import clients_file
from serving.clients_file import Entry, digest, new_key
from tests.support.certificates import Authority, make_authority
from tests.support.models import KEY_ID, SCHEMA_NAME, SIZES, TinyModels, token
from tests.support.server import Server, serving
from tests.support.tokens import ALGORITHMS, AUDIENCE, ISSUER, public_pem, sign
from tests.support.transports import table

SCORE = "/cipherscore.v1.CipherScore/Score"
OIP = "/inference.GRPCInferenceService"
ROW = {field: token(field, 0) for field in SIZES}
REQUEST = pb.ScoreRequest(key_id=KEY_ID, table=table([ROW])).SerializeToString()

# Refused for its form, but only once it is known to score and not to generate.
INFER = oip.ModelInferRequest(inputs=[{"name": "tokens"}]).SerializeToString()
INFER_PATH = f"/v2/models/{SCHEMA_NAME}-classifier/infer"
BODIES = {
    SCORE: REQUEST,
    f"{OIP}/ModelInfer": INFER,
    f"{OIP}/ModelStreamInfer": INFER,
    INFER_PATH: b'{"inputs":[{"name":"tokens","shape":[1,3],"datatype":"BYTES","data":[]}]}',
}
GUARDED = {
    ("grpc", SCORE): "score",
    ("grpc", "/cipherscore.v1.CipherScore/ScoreStream"): "score",
    ("grpc", "/cipherscore.v1.CipherScore/Generate"): "generate",
    ("grpc", f"{OIP}/ModelInfer"): "score",
    ("grpc", f"{OIP}/ModelStreamInfer"): "score",
    ("grpc", f"{OIP}/RepositoryModelLoad"): "admin",
    ("grpc", f"{OIP}/RepositoryModelUnload"): "admin",
    ("http", "/v1/score"): "score",
    ("http", "/v1/generate"): "generate",
    ("http", INFER_PATH): "score",
    ("http", f"/v2/models/{SCHEMA_NAME}-generator/infer"): "generate",
    ("http", "/v2/repository/models/nobody/load"): "admin",
    ("http", "/v2/repository/models/nobody/unload"): "admin",
}
OPEN = [
    ("grpc", "/cipherscore.v1.CipherScore/GetModel"),
    ("grpc", "/grpc.health.v1.Health/Check"),
    ("grpc", f"{OIP}/ServerLive"),
    ("grpc", f"{OIP}/ModelMetadata"),
    ("http", "/v1/health"),
    ("http", "/v1/models"),
    ("http", "/v1/openapi.json"),
    ("http", "/v2/health/live"),
    ("http", "/livez"),
    ("http", "/readyz"),
    ("http", "/metrics"),
]
KEYS = {scope: new_key() for scope in ("score", "generate", "admin", "slow", "leaving")}
ISSUER_KEY = ALGORITHMS["ES256"]()
REFUSALS = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429}


@dataclass
class Caller:
    """Somebody with a credential, or none, at a server."""

    server: Server
    authority: Authority
    credential: str | None = None
    certificate: tuple[bytes, bytes] | None = None
    folder: Path | None = None

    def call(self, transport: str, path: str) -> str:
        """Call; return "" if the credential was good enough, else which refusal it was."""
        return self.grpc(path) if transport == "grpc" else self.http(path)

    def grpc(self, path: str) -> str:
        key, chain = self.certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.certificate, key, chain)
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_retries", 0)]
        metadata = None if self.credential is None else [("authorization", self.credential)]
        with grpc.secure_channel(self.server.grpc, credentials, options) as channel:
            body = iter([BODIES.get(path, b"")])
            call = channel.stream_stream(path)(body, timeout=30, metadata=metadata)
            with suppress(grpc.RpcError):
                list(call)
            name, text = call.code().name, call.details() or ""
            if name == "UNAVAILABLE":
                raise ConnectionError(text)
            if name in REFUSALS:
                self.check(dict(call.trailing_metadata() or ()), name, text)
            return name if name in REFUSALS else ""

    def http(self, path: str) -> str:
        headers = {} if self.credential is None else {"authorization": self.credential}
        post = ("http", path) in GUARDED
        with httpx.Client(base_url=self.server.http, verify=self.context(), timeout=30) as client:
            answer = client.request(
                "POST" if post else "GET",
                path,
                headers=headers,
                content=BODIES.get(path, b"{}") if post else None,
            )
        name = next((n for n, status in REFUSALS.items() if status == answer.status_code), "")
        if name:
            problem = answer.json()
            self.check(
                {"cipherscore-error-code": problem["code"], **answer.headers}, name, answer.text
            )
        assert answer.status_code < 500, answer.text
        return name

    def check(self, facts: dict[str, str], name: str, text: str) -> None:
        """A refusal says which it is, and repeats nothing of what was shown."""
        code = {"RESOURCE_EXHAUSTED": "rate-limited"}.get(name, name.lower().replace("_", "-"))
        assert facts["cipherscore-error-code"] == code
        if name == "RESOURCE_EXHAUSTED":
            assert {"retry-after", "grpc-retry-pushback-ms"} & facts.keys()
        if self.credential is not None:
            assert self.credential.split()[-1] not in text + str(facts)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        if self.certificate is not None:
            assert self.folder is not None
            for name, pem in zip(("c.key", "c.pem"), self.certificate, strict=True):
                (self.folder / name).write_bytes(pem)
            context.load_cert_chain(self.folder / "c.pem", self.folder / "c.key")
        return context


@dataclass
class House:
    """A running server, its authority and its clients file."""

    server: Server
    authority: Authority
    folder: Path
    clients: Path

    def caller(self, credential: str | None = None, certificate: str = "") -> Caller:
        issued = self.authority.issue(certificate) if certificate else None
        return Caller(self.server, self.authority, credential, issued, self.folder)


def entries() -> list[Entry]:
    scopes = {"slow": "score", "leaving": "score"}
    found = [
        Entry(name, (scopes.get(name, name),), (digest(key),))  # type: ignore[arg-type]
        for name, key in KEYS.items()
        if name != "slow"
    ]
    slow = Entry("slow", ("score",), (digest(KEYS["slow"]),), rate_per_second=0.001, rate_burst=2)
    return [*found, slow, Entry("gateway", ("score",), certificates=("gw.bank-a",))]


@pytest.fixture(scope="module", params=["native", "grpcio"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def house(
    models: TinyModels, folder: Path, engine: str, *, mutual: bool, **settings: object
) -> Iterator[House]:
    authority = make_authority()
    key, certificate = authority.issue("localhost")
    for name, content in (
        ("key.pem", key),
        ("cert.pem", certificate),
        ("ca.pem", authority.certificate),
        ("jwt.pem", public_pem(ISSUER_KEY)),
    ):
        (folder / name).write_bytes(content)
    (folder / "key.pem").chmod(0o600)
    clients_file.write(folder / "clients.toml", entries())
    if mutual:
        settings["tls_client_ca_file"] = folder / "ca.pem"
    context = Caller(None, authority, None, authority.issue("prober"), folder).context()  # type: ignore[arg-type]
    with serving(
        models.home,
        folder / "log",
        tls=context,
        grpc_engine=engine,
        tls_cert_file=folder / "cert.pem",
        tls_key_file=folder / "key.pem",
        clients_file=folder / "clients.toml",
        threads=1,
        **settings,
    ) as running:
        yield House(running, authority, folder, folder / "clients.toml")
    log = (folder / "log").read_text()
    assert "Traceback" not in log
    secrets = [*KEYS.values(), "PRIVATE", "eyJ"]
    assert not [secret for secret in secrets if secret in log]


@pytest.fixture(scope="module")
def guarded(
    models: TinyModels, tmp_path_factory: pytest.TempPathFactory, engine: str
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("guarded")
    yield from house(
        models,
        folder,
        engine,
        mutual=False,
        jwt_key_file=folder / "jwt.pem",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
    )


@pytest.fixture(scope="module")
def mutual(
    models: TinyModels, tmp_path_factory: pytest.TempPathFactory, engine: str
) -> Iterator[House]:
    yield from house(models, tmp_path_factory.mktemp("mutual"), engine, mutual=True)


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_every_route_wants_its_scope(guarded: House, route: tuple[str, str]) -> None:
    scope = GUARDED[route]
    wrong = next(name for name in ("generate", "score") if name != scope)
    assert guarded.caller().call(*route) == "UNAUTHENTICATED"
    assert guarded.caller(f"Bearer {new_key()}").call(*route) == "UNAUTHENTICATED"
    assert guarded.caller(f"Bearer {sign(ALGORITHMS['ES256']())}").call(*route) == "UNAUTHENTICATED"
    assert guarded.caller(f"Bearer {KEYS[wrong]}").call(*route) == "PERMISSION_DENIED"
    token = sign(ISSUER_KEY, scope=wrong)
    assert guarded.caller(f"Bearer {token}").call(*route) == "PERMISSION_DENIED"
    assert guarded.caller(f"Bearer {KEYS[scope]}").call(*route) == ""
    assert guarded.caller(f"Bearer {sign(ISSUER_KEY, scope=scope)}").call(*route) == ""


@pytest.mark.parametrize("route", OPEN, ids=" ".join)
def test_what_is_open_is_open_also_with_a_wrong_key(guarded: House, route: tuple[str, str]) -> None:
    assert guarded.caller().call(*route) == ""
    assert guarded.caller("Bearer wrong-key").call(*route) == ""


def test_over_the_rate_a_client_is_told_to_wait(guarded: House) -> None:
    slow = guarded.caller(f"Bearer {KEYS['slow']}")
    calls = [slow.call(*route) for route in (("grpc", SCORE), ("http", "/v1/score")) * 2]
    assert calls == ["", "", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    assert guarded.caller(f"Bearer {KEYS['score']}").call("grpc", SCORE) == ""


def test_a_removed_client_is_out_without_a_restart(guarded: House) -> None:
    leaving = guarded.caller(f"Bearer {KEYS['leaving']}")
    assert leaving.call("grpc", SCORE) == leaving.call("http", "/v1/score") == ""
    clients_file.write(guarded.clients, [e for e in entries() if e.name != "leaving"])
    end = time.monotonic() + 30
    while leaving.call("grpc", SCORE) == "":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert leaving.call("http", "/v1/score") == "UNAUTHENTICATED"
    guarded.clients.write_text("[[client")
    time.sleep(1.2)
    assert guarded.caller(f"Bearer {KEYS['score']}").call("grpc", SCORE) == ""
    clients_file.write(guarded.clients, entries())


def test_plain_text_is_not_answered(guarded: House) -> None:
    with grpc.insecure_channel(guarded.server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SCORE)(REQUEST, timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(httpx.TransportError):
        httpx.get(guarded.server.http.replace("https", "http") + "/livez")


@pytest.mark.parametrize("route", [("grpc", SCORE), ("http", "/v1/score")], ids=" ".join)
def test_a_certificate_names_its_client(mutual: House, route: tuple[str, str]) -> None:
    known = mutual.caller(certificate="gw.bank-a")
    assert known.call(*route) == ""
    assert mutual.caller(certificate="gw.bank-b").call(*route) == "UNAUTHENTICATED"
    assert mutual.caller("Bearer wrong-key", "gw.bank-a").call(*route) == "UNAUTHENTICATED"
    assert mutual.caller(f"Bearer {KEYS['score']}", "gw.bank-b").call(*route) == ""
    assert known.call("http", "/v1/generate") == "PERMISSION_DENIED"


def test_without_a_certificate_nothing_is_answered(mutual: House) -> None:
    caller = mutual.caller(f"Bearer {KEYS['score']}")
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        caller.http("/livez")
    with pytest.raises(ConnectionError):
        caller.grpc(SCORE)


def test_a_new_certificate_is_taken_without_a_restart(mutual: House) -> None:
    other = make_authority()
    for name, content in zip(("key.pem", "cert.pem"), other.issue("localhost"), strict=True):
        (mutual.folder / name).write_bytes(content)
    (mutual.folder / "ca.pem").write_bytes(other.certificate)
    time.sleep(1.2)
    after = Caller(mutual.server, other, None, other.issue("gw.bank-a"), mutual.folder)
    assert after.call("grpc", SCORE) == after.call("http", "/v1/score") == ""
