"""Rounded scores from a served process: the same over HTTP, gRPC and the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.tokens import to_text
from tests.support.explained import Explained, drawn, exact_of, explained_models
from tests.support.models import KEY_ID, SIZES, THRESHOLD
from tests.support.server import Server, serving
from tests.support.transports import Grpc, Http, table

DECIMALS = 1
ROWS = 400
BATCH, INDICES = drawn(ROWS, 7)


def exact_probabilities() -> np.ndarray:
    exact = exact_of()
    log_odds = exact.base + exact.contributions(INDICES).sum(axis=1)
    return 1 / (1 + np.exp(-log_odds))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    return explained_models(tmp_path_factory.mktemp("explained"))


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(
    request: pytest.FixtureRequest, home: Explained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    settings: dict[str, Any] = {"threads": 1, "grpc_engine": request.param}
    with serving(home.registry.home, log, score_decimals=DECIMALS, **settings) as running:
        yield running
    assert "Traceback" not in log.read_text()


def test_probabilities_are_rounded_and_decisions_are_not(server: Server) -> None:
    over_http, over_grpc = Http(server.http).score(BATCH), Grpc(server.grpc).score(BATCH)
    assert over_http == over_grpc
    exact = exact_probabilities()
    np.testing.assert_allclose(over_grpc.probability, np.round(exact, DECIMALS), atol=1e-6)
    assert over_grpc.decision == ["bad" if value >= THRESHOLD else "good" for value in exact]
    # Some are decided otherwise than the rounded probability would say.
    rounded = ["bad" if value >= THRESHOLD else "good" for value in over_grpc.probability]
    assert rounded != over_grpc.decision


def test_one_row_alone_gets_the_same(server: Server) -> None:
    """A single row takes another way through the server."""
    whole = Grpc(server.grpc).score(BATCH)
    for place in range(3):
        for transport in (Http(server.http), Grpc(server.grpc)):
            assert transport.score([BATCH[place]]).probability == [whole.probability[place]]


def test_reasons_add_up_to_what_is_answered(server: Server) -> None:
    fields = len(SIZES)
    request = pb.ScoreRequest(key_id=KEY_ID, table=table(BATCH), reasons=fields)
    answer = Grpc(server.grpc).call("Score", request)
    assert list(answer.probability) == Grpc(server.grpc).score(BATCH).probability
    shown = np.array(answer.reasons.contribution).reshape(ROWS, fields)
    np.testing.assert_allclose(shown, np.round(shown, DECIMALS), atol=1e-5)
    held = np.clip(np.array(answer.probability), 0.05, 0.95)
    log_odds = np.log(held) - np.log1p(-held)
    away = np.abs(answer.reasons.base + shown.sum(axis=1) - log_odds)
    assert away.max() <= fields * 0.05 + 1e-4

    records = [{field: to_text(token) for field, token in row.items()} for row in BATCH]
    body = {"key_id": KEY_ID, "records": records, "reasons": fields}
    over_http = Http(server.http).post("/v1/score", body)["results"]
    values = [[reason["contribution"] for reason in row["reasons"]] for row in over_http]
    assert np.array_equal(np.array(values, np.float32), shown.astype(np.float32))


def test_the_open_inference_protocol_rounds_too(server: Server, home: Explained) -> None:
    cells = [to_text(token) for row in BATCH for token in row.values()]
    body = {
        "inputs": [
            {"name": "tokens", "datatype": "BYTES", "shape": [ROWS, len(SIZES)], "data": cells}
        ],
        "outputs": [{"name": "probability"}, {"name": "contribution"}],
    }
    answer = httpx.post(f"{server.http}/v2/models/{home.classifier.name}/infer", json=body)
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    expected = Grpc(server.grpc).score(BATCH).probability
    np.testing.assert_allclose(outputs["probability"], expected, atol=1e-7)
    shown = np.array(outputs["contribution"])
    np.testing.assert_allclose(shown, np.round(shown, DECIMALS), atol=1e-5)
    one = {"inputs": [{**body["inputs"][0], "shape": [1, len(SIZES)], "data": cells[: len(SIZES)]}]}
    alone = httpx.post(f"{server.http}/v2/models/{home.classifier.name}/infer", json=one).json()
    found = {output["name"]: output["data"] for output in alone["outputs"]}
    assert found["probability"][0] == pytest.approx(expected[0], abs=1e-7)
