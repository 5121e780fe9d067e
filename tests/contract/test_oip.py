"""The Open Inference Protocol, with the real tritonclient and with plain JSON, over both transports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from cipherscore.tokens import to_text
from tests.contract.conftest import MAX_GENERATED, MAX_JSON_GENERATED, MAX_ROWS
from tests.support.models import (
    NOISE_WIDTH,
    OTHER_KEY_ID,
    SIZES,
    THRESHOLD,
    TinyModels,
    expected_probability,
    token,
    vocabulary,
)
from tests.support.server import Server
from tests.support.transports import Grpc
from tests.support.triton import KINDS, Failed, Inferred, Session, client_process

FIELDS = list(SIZES)


def random_indices(rows: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    columns = [random.integers(size, size=rows) for size in SIZES.values()]
    return np.stack(columns, axis=1).astype(np.int32)


def tokens_of(indices: np.ndarray) -> np.ndarray:
    """Return rows as tritonclient takes BYTES: objects [rows, fields]."""
    columns = list(vocabulary().tokens.values())
    cells = np.empty(indices.shape, dtype=np.object_)
    for (row, field), index in np.ndenumerate(indices):
        cells[row, field] = columns[field][index]
    return cells


@pytest.fixture(scope="module")
def sessions(server: Server) -> Iterator[dict[str, Session]]:
    with client_process() as pool:
        yield {
            kind: Session(pool, kind, server.http if kind.startswith("http") else server.grpc)
            for kind in KINDS
        }


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, sessions: dict[str, Session]) -> Session:
    return sessions[request.param]


@pytest.fixture
def name(models: TinyModels) -> str:
    return models.classifier.name


def check(answer: Inferred, indices: np.ndarray, models: TinyModels) -> None:
    assert (answer.model, answer.version) == (models.classifier.name, models.classifier.version)
    probability = answer.outputs["probability"]
    assert probability.dtype == np.float32
    assert np.allclose(probability, expected_probability(indices), atol=1e-6)
    decided = [
        text if isinstance(text, str) else text.decode() for text in answer.outputs["decision"]
    ]
    assert decided == ["bad" if p >= THRESHOLD else "good" for p in probability]


@pytest.mark.parametrize("rows", [1, 2, 300, MAX_ROWS])
def test_scoring(client: Session, name: str, models: TinyModels, rows: int) -> None:
    indices = random_indices(rows, seed=rows)
    check(client.infer(name, [("tokens", tokens_of(indices))]), indices, models)
    check(client.infer(name, [("indices", indices)]), indices, models)
    check(client.infer(name, [("indices", indices.astype(np.int64))]), indices, models)


def test_version_id_and_chosen_outputs(client: Session, name: str, models: TinyModels) -> None:
    tokens = tokens_of(random_indices(3))
    version = models.classifier.version
    answer = client.infer(
        name,
        [("tokens", tokens)],
        model_version=version,
        request_id="r-1",
        outputs=["decision"],
        priority=1,
        timeout=30_000_000,
    )
    assert (answer.version, answer.id, list(answer.outputs)) == (version, "r-1", ["decision"])


def test_json_tensors(sessions: dict[str, Session], name: str, models: TinyModels) -> None:
    indices = random_indices(4)
    texts = np.array(
        [[to_text(cell) for cell in row] for row in tokens_of(indices)], dtype=np.object_
    )
    for kind in ("http", "http.aio"):
        options = {"binary": False, "outputs": ["probability", "decision"]}
        check(sessions[kind].infer(name, [("tokens", texts)], **options), indices, models)
        check(sessions[kind].infer(name, [("indices", indices)], **options), indices, models)


def test_compressed_requests(sessions: dict[str, Session], name: str, models: TinyModels) -> None:
    indices = random_indices(50)
    for kind, option in (
        ("http", "request_compression_algorithm"),
        ("grpc", "compression_algorithm"),
    ):
        for algorithm in ("gzip", "deflate"):
            answer = sessions[kind].infer(
                name, [("tokens", tokens_of(indices))], **{option: algorithm}
            )
            check(answer, indices, models)


def with_cell(row: int, field: str, cell: bytes) -> np.ndarray:
    tokens = tokens_of(random_indices(3))
    tokens[row, FIELDS.index(field)] = cell
    return tokens


REFUSALS: dict[str, tuple[Any, str, str]] = {
    "unknown token": (with_cell(2, "beta", token("beta", 99)), "INVALID_ARGUMENT", "422"),
    "another key": (
        with_cell(1, "gamma", token("gamma", 1, OTHER_KEY_ID)), "FAILED_PRECONDITION", "409"),
    "no token": (with_cell(0, "alpha", b"\x01abc"), "INVALID_ARGUMENT", "400"),
    "another width": (tokens_of(random_indices(3))[:, :2], "INVALID_ARGUMENT", "400"),
    "no row": (tokens_of(random_indices(1))[:0], "INVALID_ARGUMENT", "400"),
    "too many rows": (np.zeros((MAX_ROWS + 1, len(FIELDS)), np.int32), "INVALID_ARGUMENT", "413"),
    "an index outside": (np.full((2, len(FIELDS)), 2, np.int32), "INVALID_ARGUMENT", "400"),
    "an unseen index": (np.full((2, len(FIELDS)), -1, np.int32), "INVALID_ARGUMENT", "422"),
    "floats": (np.zeros((1, len(FIELDS)), np.float32), "INVALID_ARGUMENT", "400"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(client: Session, name: str, case: str) -> None:
    tensor, status, http_status = REFUSALS[case]
    with pytest.raises(Failed) as caught:
        client.infer(name, [("tokens" if tensor.dtype == object else "indices", tensor)])
    expected = http_status if client.kind.startswith("http") else f"StatusCode.{status}"
    assert caught.value.status == expected
    assert caught.value.message


def test_unknown_models(client: Session, name: str) -> None:
    tokens = tokens_of(random_indices(1))
    for model, version in (("nobody", ""), (name, "1")):
        with pytest.raises(Failed) as caught:
            client.infer(model, [("tokens", tokens)], model_version=version)
        assert caught.value.status in {"404", "StatusCode.NOT_FOUND"}


def test_the_refused_place_is_told(server: Server, name: str, grpc_client: Grpc) -> None:
    texts = [to_text(cell) for cell in with_cell(2, "beta", token("beta", 99)).ravel()]
    body = {"inputs": [{"name": "tokens", "shape": [3, 3], "datatype": "BYTES", "data": texts}]}
    answer = httpx.post(f"{server.http}/v2/models/{name}/infer", json=body)
    found = answer.json()
    assert (found["code"], found["field"], found["row"]) == ("unknown-token", "beta", 2)
    assert texts[7][10:] not in answer.text


def test_health_and_metadata(client: Session, models: TinyModels, name: str) -> None:
    assert client.ask("is_server_live") is True
    assert client.ask("is_server_ready") is True
    assert client.ask("is_model_ready", name) is True
    assert client.ask("is_model_ready", name, models.classifier.version) is True
    assert client.ask("is_model_ready", "nobody") is False
    assert client.ask("get_server_metadata")["name"] == "cipherscore"
    found = client.ask("get_model_metadata", name)
    assert found["versions"] == [models.classifier.version]
    described = {t["name"]: (t["datatype"], [int(s) for s in t["shape"]]) for t in found["inputs"]}
    assert described == {"tokens": ("BYTES", [-1, 3]), "indices": ("INT32", [-1, 3])}
    config = client.ask("get_model_config", name)
    assert config.get("config", config)["name"] == name
    with pytest.raises(Failed):
        client.ask("get_model_metadata", "nobody")


def test_the_repository(client: Session, models: TinyModels) -> None:
    found = client.ask("get_model_repository_index")
    entries = found["models"] if isinstance(found, dict) else found
    assert {(entry["name"], entry["state"]) for entry in entries} >= {
        (models.classifier.name, "READY"),
        (models.generator.name, "READY"),
    }
    # Nobody is set up as a client here, so nobody may load.
    for method in ("load_model", "unload_model"):
        with pytest.raises(Failed) as caught:
            client.ask(method, models.classifier.name)
        assert caught.value.status in {"403", "StatusCode.PERMISSION_DENIED"}


def cells(outputs: np.ndarray) -> list[list[bytes]]:
    return [[cell if isinstance(cell, bytes) else cell.encode() for cell in row] for row in outputs]


def test_generating(client: Session, models: TinyModels, name: str) -> None:
    def generate(seed: int) -> Inferred:
        return client.infer(
            models.generator.name,
            [("count", np.array([30], np.int64)), ("seed", np.array([seed], np.int64))],
        )

    made = generate(4)
    assert made.outputs["tokens"].shape == (30, 3)
    assert {bytes(label) for label in made.outputs["credit_class"]} == {b"good", b"bad"}
    assert cells(generate(4).outputs["tokens"]) == cells(made.outputs["tokens"])
    assert cells(generate(5).outputs["tokens"]) != cells(made.outputs["tokens"])
    assert client.infer(name, [("tokens", made.outputs["tokens"])]).outputs
    noise = np.random.default_rng(0).standard_normal((2, NOISE_WIDTH), dtype=np.float32)
    labels = np.array([b"bad", b"good"], dtype=np.object_)
    given = client.infer(models.generator.name, [("noise", noise), ("credit_class", labels)])
    assert given.outputs["credit_class"].tolist() == [b"bad", b"good"]
    with pytest.raises(Failed):
        client.infer(
            models.generator.name, [("count", np.array([MAX_JSON_GENERATED + 1], np.int64))]
        )


def test_streams(sessions: dict[str, Session], models: TinyModels, name: str) -> None:
    indices = random_indices(7)
    count = np.array([MAX_GENERATED], np.int64)
    answers = sessions["grpc"].stream(
        [
            (name, [("tokens", tokens_of(indices))], {"request_id": "a"}),
            (name, [("tokens", with_cell(0, "beta", b"x"))], {"request_id": "b"}),
            (models.generator.name, [("count", count)], {"request_id": "c"}),
            (name, [("indices", indices)], {"request_id": "d"}),
        ]
    )
    first, refusal, *made, last = answers
    check(first, indices, models)
    check(last, indices, models)
    assert isinstance(refusal, str)
    assert len(made) > 2
    assert sum(len(part.outputs["tokens"]) for part in made) == MAX_GENERATED
    assert [answer.id for answer in made] == ["c"] * len(made)


def test_plain_json_clients(server: Server, models: TinyModels, name: str) -> None:
    """What a KServe client sends and reads: nothing but JSON, tensors flat or nested."""
    indices = random_indices(5)
    rows = [[to_text(cell) for cell in row] for row in tokens_of(indices)]
    flat = [cell for row in rows for cell in row]
    answers = []
    for data in (rows, flat):
        body = {
            "id": "k",
            "inputs": [{"name": "tokens", "shape": [5, 3], "datatype": "BYTES", "data": data}],
        }
        answer = httpx.post(f"{server.http}/v2/models/{name}/infer", json=body)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
    assert answers[0] == answers[1]
    probability, decision = answers[0]["outputs"]
    assert np.allclose(probability["data"], expected_probability(indices), atol=1e-6)
    assert set(decision["data"]) <= {"good", "bad"}
    version = models.classifier.version
    path = f"{server.http}/v2/models/{name}/versions/{version}/infer"
    assert httpx.post(path, json=body).json() == answers[0]
    refused = httpx.post(path, content=b"{")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request")
    assert httpx.get(f"{server.http}/v2/health/ready").status_code == 200
    assert httpx.get(f"{server.http}/v2/nothing").json()["error"]
