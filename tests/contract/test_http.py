"""What only HTTP can be asked: bodies that are no request, routes that are none, BentoML's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cipherscore.tokens import to_text
from tests.contract.conftest import MAX_BYTES, MAX_GENERATED, MAX_JSON_GENERATED
from tests.contract.test_scoring import GOOD_ROW
from tests.support.models import KEY_ID, TinyModels
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
    "unknown member": {"key_id": KEY_ID, "records": [RECORD], "models": "x"},
    "records an object": {"key_id": KEY_ID, "records": RECORD},
    "record a list": {"key_id": KEY_ID, "records": [list(RECORD.values())]},
    "record null": {"key_id": KEY_ID, "records": [None]},
    "key a number": {"key_id": 11, "records": [RECORD]},
    "token a number": {"key_id": KEY_ID, "records": [{**RECORD, "beta": 3}]},
    "token null": {"key_id": KEY_ID, "records": [{**RECORD, "beta": None}]},
    "token a list": {"key_id": KEY_ID, "records": [{**RECORD, "beta": [RECORD["beta"]]}]},
    "model null": {"key_id": KEY_ID, "records": [RECORD], "model": None},
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


def test_padded_tokens(http: Http) -> None:
    padded = {field: text + "=" * (-len(text) % 4) for field, text in RECORD.items()}
    assert padded != RECORD
    body = {"key_id": KEY_ID, "records": [padded]}
    assert http.post("/v1/score", body) == http.post("/v1/score", {**body, "records": [RECORD]})


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"content-type": "application/json"}, 200),
        ({"content-type": "application/json; charset=UTF-8"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-encoding": "gzip"}, 415),
    ],
)
def test_kinds_of_bodies(http: Http, header: dict[str, str], status: int) -> None:
    body = json.dumps({"key_id": KEY_ID, "records": [RECORD]})
    for content in (body, iter([body[:20].encode(), body[20:].encode()])):
        answer = http.client.post("/v1/score", content=content, headers=header)
        assert answer.status_code == status
        if status == 415:
            assert answer.json()["code"] == "unsupported-media-type"


def test_a_version_by_name(http: Http, models: TinyModels) -> None:
    body = {"key_id": KEY_ID, "records": [RECORD]}
    expected = http.post("/v1/score", body)
    name, tag = models.classifier.tag.split(":")[0], models.classifier.tag
    for wanted in ("", name, tag):
        assert http.post("/v1/score", {**body, "model": wanted}) == expected
    assert (
        http.checked(http.client.get("/v1/models/classifier", params={"model": tag}))["model"]
        == tag
    )
    for wanted in ("other", f"{name}:other", models.generator.tag, "x" * 10_000, "\x00"):
        for attack in (
            lambda wanted=wanted: http.post("/v1/score", {**body, "model": wanted}),
            lambda wanted=wanted: http.checked(
                http.client.get("/v1/models/classifier", params={"model": wanted})
            ),
        ):
            with pytest.raises(Refused) as caught:
                attack()
            assert (caught.value.status, caught.value.code) == (404, "unknown-model")


def test_methods(http: Http) -> None:
    for path, allowed in (
        ("/v1/score", "POST, OPTIONS"),
        ("/v1/generate", "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/classifier", "GET, HEAD, OPTIONS"),
    ):
        answer = http.client.options(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")
        answer = http.client.request("DELETE", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    whole, head = http.client.get("/v1/models"), http.client.head("/v1/models")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_request_ids(http: Http) -> None:
    body = json.dumps({"key_id": KEY_ID, "records": [RECORD]})
    for path, content in (("/v1/score", body), ("/v1/score", "{"), ("/v1/nothing", "")):
        mine = http.client.post(path, content=content, headers={"x-request-id": "mine-1"})
        assert mine.headers["x-request-id"] == "mine-1"
        made = {http.client.post(path, content=content).headers["x-request-id"] for _ in range(9)}
        assert len(made) == 9


def test_timeouts_that_are_none(http: Http) -> None:
    body = json.dumps({"key_id": KEY_ID, "records": [RECORD]})
    for text, status in (("60000", 200), ("0", 400), ("-1", 400), ("soon", 400), ("1.5", 400)):
        headers = {"x-request-timeout-ms": text}
        assert http.client.post("/v1/score", content=body, headers=headers).status_code == status


def test_rows_line_by_line(http: Http, models: TinyModels) -> None:
    body = {"key_id": KEY_ID, "count": MAX_JSON_GENERATED, "seed": 5}
    document = http.post("/v1/generate", body)
    headers = {"accept": "application/x-ndjson"}
    with http.client.stream("POST", "/v1/generate", json=body, headers=headers) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["cipherscore-model"] == models.generator.tag
        assert answer.headers["cipherscore-seed"] == "5"
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["record"] for line in lines] == document["records"]
    assert [line["credit_class"] for line in lines] == document["credit_classes"]
    many = {"key_id": KEY_ID, "count": MAX_GENERATED}
    with http.client.stream("POST", "/v1/generate", json=many, headers=headers) as answer:
        assert sum(1 for _ in answer.iter_lines()) == MAX_GENERATED
    with pytest.raises(Refused) as caught:
        http.checked(
            http.client.post(
                "/v1/generate", json={**many, "count": MAX_GENERATED + 1}, headers=headers
            )
        )
    assert caught.value.code == "batch-too-large"


def test_readers_that_leave(http: Http) -> None:
    headers = {"accept": "application/x-ndjson"}
    body = {"key_id": KEY_ID, "count": MAX_GENERATED}
    for _ in range(5):
        with http.client.stream("POST", "/v1/generate", json=body, headers=headers) as answer:
            next(answer.iter_bytes())


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
    post = found["paths"]["/score"]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert found["components"]["schemas"][body.split("/")[-1]]["required"] == ["key_id", "records"]
    assert {
        "200",
        "400",
        "401",
        "403",
        "404",
        "409",
        "413",
        "415",
        "422",
        "429",
        "503",
        "504",
    } <= set(post["responses"])
    assert {} in post["security"]  # this server knows no clients
    for answer in post["responses"].values():
        assert answer.get("$ref", "").split("/")[-1] in {"", *found["components"]["responses"]}


def test_health_and_models(http: Http) -> None:
    health = http.checked(http.client.get("/v1/health"))
    assert health["status"] == "serving"
    assert health["device"] in {"cpu", "cuda"}
    assert health["device_reason"]
    assert health["notices"] == []
    models = http.checked(http.client.get("/v1/models"))["models"]
    assert {model["kind"]: model["model"] for model in models} == health["models"]
