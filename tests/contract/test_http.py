"""What only HTTP can be asked: bodies that are no request, routes that are none, BentoML's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cipherscore.tokens import to_text
from tests.contract.conftest import MAX_BYTES
from tests.contract.test_scoring import GOOD_ROW
from tests.support.models import KEY_ID
from tests.support.server import Server
from tests.support.transports import Http, Refused

RECORD = {field: to_text(token) for field, token in GOOD_ROW.items()}
NOT_REQUESTS: dict[str, Any] = {
    "empty": b"",
    "text": b"hello",
    "not UTF-8": b'{"key_id": "\xff"}',
    "half": b'{"key_id": "0aab8d7c", "records": [',
    "lone surrogate": b'{"key_id": "\\ud800", "records": []}',
    "a list": [],
    "a number": 3,
    "null": None,
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "deep inside": b'{"key_id":"0aab8d7c","records":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "no records": {"key_id": KEY_ID},
    "no key": {"records": [RECORD]},
    "unknown member": {"key_id": KEY_ID, "records": [RECORD], "model": "x"},
    "records an object": {"key_id": KEY_ID, "records": RECORD},
    "record a list": {"key_id": KEY_ID, "records": [list(RECORD.values())]},
    "record null": {"key_id": KEY_ID, "records": [None]},
    "key a number": {"key_id": 11, "records": [RECORD]},
    "token a number": {"key_id": KEY_ID, "records": [{**RECORD, "beta": 3}]},
    "token null": {"key_id": KEY_ID, "records": [{**RECORD, "beta": None}]},
    "token a list": {"key_id": KEY_ID, "records": [{**RECORD, "beta": [RECORD["beta"]]}]},
    "huge number": b'{"key_id": ' + b"9" * 100_000 + b"}",
}


@pytest.fixture(autouse=True)
def _alive_afterwards(server: Server, http: Http) -> Iterator[None]:
    yield
    assert server.ready()
    assert len(http.score([GOOD_ROW]).probability) == 1


@pytest.mark.parametrize("route", ["/v1/score", "/v1/generate"])
@pytest.mark.parametrize("case", NOT_REQUESTS)
def test_bodies_that_are_no_request(http: Http, route: str, case: str) -> None:
    with pytest.raises(Refused) as caught:
        http.post(route, NOT_REQUESTS[case])
    assert (caught.value.status, caught.value.code) == (400, "invalid-request")
    if case.startswith("token") and route == "/v1/score":
        assert (caught.value.field, caught.value.row) == ("beta", 0)
    assert len(caught.value.text) < 500
    assert RECORD["beta"] not in caught.value.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": -1}, {"count": 1.5}, {"count": "3"}, {"count": True}, {"count": 10**30},
        {"seed": -1}, {"seed": 2**64}, {"seed": "7"}, {"credit_class": 1}, {"noise": [1.0]},
        {"noise": "x"}, {"noise": [["x"]]}, {"noise": {}},
    ],
)  # fmt: skip
def test_wrong_numbers(http: Http, wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        http.post("/v1/generate", {"key_id": KEY_ID, "count": 3, **wrong})
    assert caught.value.status in {400, 413}
    assert caught.value.field == next(iter(wrong))


@pytest.mark.parametrize("noise", [[], [[]], [[], []], [[0.0] * 5, [0.0]], [[1e300] * 5]])
def test_strange_noise(http: Http, noise: list[list[float]]) -> None:
    with pytest.raises(Refused) as caught:
        http.post("/v1/generate", {"key_id": KEY_ID, "count": 1, "noise": noise})
    assert caught.value.code == "invalid-noise"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404), ("GET", "/v1/", 404), ("POST", "/v1/score/", 404), ("GET", "/v1/models/oracle", 404),
        ("GET", "/v1/score", 405), ("DELETE", "/v1/models", 405), ("PUT", "/v1/generate", 405),
        ("GET", "/v1/models/%2e%2e%2f%00", 404),
    ],
)  # fmt: skip
def test_routes_that_are_none(http: Http, method: str, path: str, status: int) -> None:
    with pytest.raises(Refused) as caught:
        http.checked(http.client.request(method, path))
    assert caught.value.status == status


def test_oversized_bodies(http: Http) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(MAX_BYTES // 65536 + 2):
            yield b" " * 65536

    for body in (b" " * (MAX_BYTES + 1), parts()):
        with pytest.raises(Refused) as caught:
            http.checked(http.client.post("/v1/score", content=body))
        assert (caught.value.status, caught.value.code) == (413, "batch-too-large")


def test_records_differ_in_their_fields(http: Http) -> None:
    short = {field: text for field, text in RECORD.items() if field != "alpha"}
    long = {**RECORD, "delta": RECORD["alpha"]}
    for record, code, field in ((short, "missing-field", "alpha"), (long, "extra-field", "delta")):
        with pytest.raises(Refused) as caught:
            http.post("/v1/score", {"key_id": KEY_ID, "records": [RECORD, RECORD, record]})
        assert (caught.value.code, caught.value.field, caught.value.row) == (code, field, 2)


def test_any_content_type_and_padded_tokens(http: Http) -> None:
    padded = {field: text + "=" * (-len(text) % 4) for field, text in RECORD.items()}
    answer = http.client.post(
        "/v1/score",
        content=json.dumps({"key_id": KEY_ID, "records": [padded]}),
        headers={"content-type": "text/plain"},
    )
    assert answer.status_code == 200


def test_pages_of_bentoml_stay(http: Http) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/docs.json", "/", "/v1/docs"):
        assert http.client.get(path).status_code == 200, path
    page = http.client.get("/v1/docs").text
    assert "//cdn" not in page
    assert http.client.get("/static_content/swagger-ui-bundle.js").status_code == 200


def test_openapi_describes_the_routes(http: Http) -> None:
    found = http.client.get("/v1/openapi.json").json()
    assert set(found["paths"]) == {"/score", "/generate", "/models", "/models/{kind}", "/health"}
    assert found["servers"] == [{"url": "/v1"}]
    body = found["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["required"] == ["key_id", "records"]


def test_health_and_models(http: Http) -> None:
    health = http.checked(http.client.get("/v1/health"))
    assert health["status"] == "serving"
    assert health["device"] in {"cpu", "cuda"}
    assert health["device_reason"]
    assert health["notices"] == []
    models = http.checked(http.client.get("/v1/models"))["models"]
    assert {model["kind"]: model["model"] for model in models} == health["models"]
