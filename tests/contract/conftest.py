"""One served process for the whole contract suite, and both ways to talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.models import TinyModels, tiny_models
from tests.support.server import Server, serving
from tests.support.transports import Grpc, Http, Transport

MAX_ROWS = 5_000
MAX_JSON_GENERATED = 6_000
MAX_GENERATED = 50_000
MAX_BYTES = 4 << 20


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return tiny_models(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session", params=["native", "grpcio"])
def server(
    request: pytest.FixtureRequest, models: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(
        models.home,
        log,
        max_rows=MAX_ROWS,
        max_generated_rows=MAX_GENERATED,
        max_generated_json_rows=MAX_JSON_GENERATED,
        max_message_bytes=MAX_BYTES,
        threads=1,
        grpc_engine=request.param,
    ) as running:
        yield running
    # Nothing the suite sends may reach a handler's last resort.
    text = log.read_text()
    assert '"level": "error"' not in text
    assert "Traceback" not in text


@pytest.fixture(scope="session")
def http(server: Server) -> Http:
    return Http(server.http)


@pytest.fixture(scope="session")
def grpc_client(server: Server) -> Grpc:
    return Grpc(server.grpc)


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, http: Http, grpc_client: Grpc) -> Transport:
    chosen: Transport = {"http": http, "grpc": grpc_client}[request.param]
    return chosen
