"""Reason codes from a served process: the same over HTTP, gRPC and the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from cipherscore.errors import request_errors
from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.tokens import to_text
from tests.support import explained
from tests.support.explained import Explained, drawn, exact_of, explained_models
from tests.support.models import KEY_ID, SIZES
from tests.support.server import Server, serving
from tests.support.transports import Grpc, Http, Refused, table

EXACT = exact_of()
FIELDS = list(SIZES)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    return explained_models(tmp_path_factory.mktemp("explained"))


@pytest.fixture(scope="module")
def plain(home: Explained) -> str:
    """Tag of a further version, without reason codes."""
    return explained.register(home.registry, without=True).tag


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(
    request: pytest.FixtureRequest,
    home: Explained,
    plain: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    settings = {"threads": 1, "grpc_engine": request.param, "extra_models": plain}
    with serving(home.registry.home, log, **settings) as running:
        yield running
    text = log.read_text()
    assert '"level": "error"' not in text
    assert "Traceback" not in text


class OverHttp:
    """What is said of a row: [(field, contribution), ...]."""

    name = "http"

    def __init__(self, server: Server) -> None:
        self.http = Http(server.http)

    def ask(self, rows: Any, reasons: object, model: str = "") -> Any:
        records = [{field: to_text(token) for field, token in row.items()} for row in rows]
        body = {"key_id": KEY_ID, "records": records, "model": model, "reasons": reasons}
        return self.http.post("/v1/score", body)

    def score(self, rows: Any, reasons: int, model: str = "") -> tuple[Any, Any, Any]:
        found = self.ask(rows, reasons, model)
        return (
            [result["probability"] for result in found["results"]],
            [
                [(reason["field"], reason["contribution"]) for reason in result["reasons"]]
                for result in found["results"]
            ],
            found["base"],
        )


class OverGrpc:
    """The same."""

    name = "grpc"

    def __init__(self, server: Server) -> None:
        self.grpc = Grpc(server.grpc)

    def ask(self, rows: Any, reasons: int, model: str = "") -> Any:
        request = pb.ScoreRequest(key_id=KEY_ID, table=table(rows), model=model, reasons=reasons)
        return self.grpc.call("Score", request)

    def score(self, rows: Any, reasons: int, model: str = "") -> tuple[Any, Any, Any]:
        return unpack(self.ask(rows, reasons, model))


def unpack(answer: pb.ScoreResponse) -> tuple[Any, Any, Any]:
    sent = answer.reasons
    assert len(sent.fields) <= 256
    entries = [
        (sent.fields[index], value)
        for index, value in zip(sent.indices, sent.contribution, strict=True)
    ]
    step = sent.per_row
    rows = [entries[at : at + step] for at in range(0, len(entries), step)]
    return list(answer.probability), rows, sent.base


@pytest.fixture(params=[OverHttp, OverGrpc])
def transport(request: pytest.FixtureRequest, server: Server) -> Any:
    return request.param(server)


@pytest.mark.parametrize("rows", [1, 2, 65, 3000])
@pytest.mark.parametrize("reasons", [1, 3])
def test_they_are_the_models_and_equal_over_both(server: Server, rows: int, reasons: int) -> None:
    batch, indices = drawn(rows, rows)
    answers = [kind(server).score(batch, reasons) for kind in (OverHttp, OverGrpc)]
    assert answers[0] == answers[1]
    probability, found, base = answers[0]
    assert probability == Grpc(server.grpc).score(batch).probability  # asking changes nothing
    assert base == pytest.approx(EXACT.base, rel=1e-12)
    for named, values in zip(found, EXACT.contributions(indices), strict=True):
        order = np.argsort(-values)[:reasons]
        assert [field for field, _ in named] == [FIELDS[place] for place in order]
        np.testing.assert_allclose([value for _, value in named], values[order], atol=1e-5)


def test_all_of_them_add_up(transport: Any) -> None:
    probability, found, base = transport.score(drawn(50)[0], 3)
    for chance, named in zip(probability, found, strict=True):
        logit = base + sum(value for _, value in named)
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(chance, abs=1e-5)


def test_none_is_said_unless_asked_for(server: Server) -> None:
    batch = drawn(2)[0]
    assert not OverGrpc(server).ask(batch, 0).HasField("reasons")
    found = OverHttp(server).ask(batch, 0)
    assert set(found) == {"results", "model", "threshold"}
    assert set(found["results"][0]) == {"probability", "decision"}


REFUSALS: dict[str, tuple[Callable[[Any, str], object], str]] = {
    "more than there are fields": (lambda t, _: t.score(drawn(1)[0], 4), "invalid-request"),
    "far more": (lambda t, _: t.score(drawn(1)[0], 0xFFFFFFFF), "invalid-request"),
    "a version without": (lambda t, plain: t.score(drawn(1)[0], 1, plain), "unsupported"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_the_same(transport: Any, plain: str, case: str) -> None:
    attack, code = REFUSALS[case]
    with pytest.raises(Refused) as caught:
        attack(transport, plain)
    refused, kind = caught.value, request_errors()[code]
    assert (refused.code, refused.field) == (code, "reasons")
    assert refused.status == (kind.http_status if transport.name == "http" else kind.grpc_status)
    if code == "invalid-request":
        assert "at most 3" in refused.text


def test_a_pinned_version_explains_itself(transport: Any, home: Explained) -> None:
    batch, indices = drawn(5)
    _, found, _ = transport.score(batch, 3, home.classifier.tag)
    for named, values in zip(found, EXACT.contributions(indices), strict=True):
        assert dict(named) == pytest.approx(dict(zip(FIELDS, values, strict=True)), abs=1e-5)


def test_a_stream_mixes_requests_with_and_without(server: Server) -> None:
    grpc_client = Grpc(server.grpc)
    counts = [0, 3, 1, 0, 2]
    batches = [drawn(4, seed)[0] for seed in range(len(counts))]
    requests = (
        pb.ScoreRequest(key_id=KEY_ID, table=table(batch), reasons=count)
        for batch, count in zip(batches, counts, strict=True)
    )
    answers = list(grpc_client.stub.ScoreStream(requests, timeout=60))
    assert [answer.reasons.per_row for answer in answers] == counts
    for batch, count, answer in zip(batches, counts, answers, strict=True):
        if count:
            assert unpack(answer) == OverGrpc(server).score(batch, count)


def test_the_contribution_tensor_over_http(server: Server, home: Explained) -> None:
    batch, indices = drawn(3)
    cells = [to_text(token) for row in batch for token in row.values()]
    body = {
        "inputs": [{"name": "tokens", "datatype": "BYTES", "shape": [3, 3], "data": cells}],
        "outputs": [{"name": "contribution"}, {"name": "probability"}],
    }
    path = f"{server.http}/v2/models/{home.classifier.name}"
    outputs = httpx.post(f"{path}/infer", json=body).json()["outputs"]
    assert [output["name"] for output in outputs] == ["contribution", "probability"]
    found = np.array(outputs[0]["data"]).reshape(outputs[0]["shape"])
    np.testing.assert_allclose(found, EXACT.contributions(indices), atol=1e-5)
    listed = httpx.get(path).json()["outputs"]
    assert {"name": "contribution", "datatype": "FP32", "shape": [-1, 3]} in listed


def test_rows_with_reasons_are_counted(server: Server, home: Explained) -> None:
    name = f'cipherscore_reason_rows_total{{model="{home.classifier.tag}"}}'

    def counted() -> float:
        lines = httpx.get(f"{server.http}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = counted()
    OverGrpc(server).score(drawn(7)[0], 2)
    OverGrpc(server).ask(drawn(9)[0], 0)
    assert counted() == before + 7
