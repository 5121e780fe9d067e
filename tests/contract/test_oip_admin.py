"""Credentials, scopes, loading and unloading with the real tritonclient, over both transports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from registry.version import Version
from serving.clients_file import Entry, digest, write
from tests.contract.test_oip import random_indices, tokens_of
from tests.support.models import TinyModels, expected_probability, register, tiny_models
from tests.support.server import serving
from tests.support.triton import KINDS, Failed, Session, client_process

KEYS = {scope: f"cs_{scope}_{'0' * 40}" for scope in ("score", "generate", "admin")}
OTHER_SEED = 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return tiny_models(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def other(tiny: TinyModels) -> Version:
    """A version that is registered and not promoted."""
    return register(tiny.registry, "classifier", seed=OTHER_SEED)


@pytest.fixture(scope="module")
def sessions(
    tiny: TinyModels, other: Version, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Session]]:
    folder: Path = tmp_path_factory.mktemp("server")
    clients = folder / "clients.toml"
    write(clients, [Entry(scope, (scope,), (digest(key),)) for scope, key in KEYS.items()])  # type: ignore[arg-type]
    with (
        serving(tiny.home, folder / "log", clients_file=clients, threads=1) as server,
        client_process() as pool,
    ):
        yield {
            kind: Session(pool, kind, server.http if kind.startswith("http") else server.grpc)
            for kind in KINDS
        }
    log = (folder / "log").read_text()
    assert "Traceback" not in log
    assert all(key not in log for key in KEYS.values())


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, sessions: dict[str, Session]) -> Session:
    return sessions[request.param]


def key(scope: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[scope]}"}


def test_loading_pinning_and_unloading(client: Session, tiny: TinyModels, other: Version) -> None:
    indices = random_indices(5)
    tensor = [("tokens", tokens_of(indices))]
    options = {"model_version": other.version, "headers": key("score")}
    with pytest.raises(Failed):
        client.infer(other.name, tensor, **options)
    client.ask("load_model", other.tag, headers=key("admin"))
    assert client.ask("is_model_ready", other.name, other.version)
    answer = client.infer(other.name, tensor, **options)
    assert (answer.model, answer.version) == (other.name, other.version)
    expected = expected_probability(indices, OTHER_SEED)
    assert np.allclose(answer.outputs["probability"], expected, atol=1e-6)
    unpinned = client.infer(other.name, tensor, headers=key("score"))
    assert unpinned.version == tiny.classifier.version
    client.ask("unload_model", other.tag, headers=key("admin"))
    assert not client.ask("is_model_ready", other.name, other.version)
    with pytest.raises(Failed):
        client.infer(other.name, tensor, **options)
    with pytest.raises(Failed):
        client.ask("load_model", "nobody:20200101-000000-000-0000", headers=key("admin"))
    with pytest.raises(Failed):
        client.ask("unload_model", tiny.classifier.tag, headers=key("admin"))


def status(client: Session, grpc: str, http: str) -> str:
    return http if client.kind.startswith("http") else f"StatusCode.{grpc}"


def test_scopes(client: Session, tiny: TinyModels) -> None:
    assert client.ask("is_server_ready")
    assert client.ask("get_model_metadata", tiny.classifier.name)
    tensor = [("tokens", tokens_of(random_indices(1)))]
    count = [("count", np.array([2], np.int64))]
    with pytest.raises(Failed) as caught:
        client.infer(tiny.classifier.name, tensor)
    assert caught.value.status == status(client, "UNAUTHENTICATED", "401")
    for model, tensors, scope in (
        (tiny.classifier.name, tensor, "generate"),
        (tiny.classifier.name, tensor, "admin"),
        (tiny.generator.name, count, "score"),
    ):
        with pytest.raises(Failed) as caught:
            client.infer(model, tensors, headers=key(scope))
        assert caught.value.status == status(client, "PERMISSION_DENIED", "403")
    assert client.infer(tiny.classifier.name, tensor, headers=key("score")).outputs
    for method in ("load_model", "unload_model"):
        with pytest.raises(Failed) as caught:
            client.ask(method, tiny.classifier.tag, headers=key("score"))
        assert caught.value.status == status(client, "PERMISSION_DENIED", "403")


def test_generating_over_http_needs_its_scope_only(
    sessions: dict[str, Session], tiny: TinyModels
) -> None:
    count = [("count", np.array([2], np.int64))]
    answer = sessions["http"].infer(tiny.generator.name, count, headers=key("generate"))
    assert len(answer.outputs["tokens"]) == 2
