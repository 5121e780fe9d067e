"""A real server with everything switched on: what was planted is nowhere in what it tells."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.tokens import to_text
from tests.support.collector import Collector, attributes, collecting
from tests.support.models import KEY_ID, OTHER_KEY_ID, TinyModels, tiny_models, token
from tests.support.prometheus import Exposed
from tests.support.server import Server, serving
from tests.support.transports import Row, table

pytestmark = pytest.mark.slow

API_KEY = "cs_" + "planted-key-0123456789abcdefghij"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
SCORE = "/cipherscore.v1.CipherScore/Score"
UNKNOWN = {"alpha": token("alpha", 900), "beta": token("beta", 0), "gamma": token("gamma", 0)}
OTHER_KEY = {field: token(field, 0, OTHER_KEY_ID) for field in ("alpha", "beta", "gamma")}
WORD = "plantedplaintextvalue"
"""Stands for anything else that a caller could send by mistake."""


@dataclass
class Running:
    server: Server
    models: TinyModels
    collector: Collector
    secrets: set[bytes]
    http: httpx.Client
    channel: grpc.Channel

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(path, content=content, headers=headers)

    def call(self, path: str, request: bytes, **metadata: str) -> bytes:
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        answer = self.channel.unary_unary(path)(request, metadata=pairs, timeout=30)
        assert isinstance(answer, bytes)
        return answer

    def metrics(self) -> str:
        return httpx.get(f"{self.server.http}/metrics").text


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("telemetry")
    models = tiny_models(folder / "registry")
    clients = folder / "clients.toml"
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    clients.write_text(
        f'[[client]]\nname = "bank-a"\nscopes = ["score", "generate"]\nkey_sha256 = ["{digest}"]\n'
    )
    clients.chmod(0o600)
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        with (
            serving(
                models.home,
                folder / "log",
                clients_file=clients,
                log_requests="all",
                workers=2,
                threads=1,
            ) as server,
            httpx.Client(base_url=server.http, timeout=30) as http,
            grpc.insecure_channel(server.grpc) as channel,
        ):
            yield Running(server, models, collector, {API_KEY.encode()}, http, channel)


def forms(planted: bytes) -> set[bytes]:
    """How a token could be written out."""
    text = to_text(planted)
    return {planted, text.encode(), planted.hex().encode(), repr(planted)[2:-1].encode()}


def records(row: Row) -> list[dict[str, str]]:
    return [{field: to_text(value) for field, value in row.items()}]


def score_request(row: Row, key_id: str = KEY_ID) -> bytes:
    return pb.ScoreRequest(key_id=key_id, table=table([row])).SerializeToString()


def infer(row: Row, identifier: str = "") -> dict[str, Any]:
    data = [[to_text(value) for value in row.values()]]
    return {
        "id": identifier,
        "inputs": [
            {"name": "tokens", "shape": [1, len(row)], "datatype": "BYTES", "data": data[0]}
        ],
    }


def model_name(running: Running) -> str:
    found = running.http.get("/v1/models/classifier", headers={"x-api-key": API_KEY}).json()
    return str(found["model"])


def known_row(running: Running) -> dict[str, bytes]:
    return {field: token(field, 0) for field in ("alpha", "beta", "gamma")}


def successes(running: Running) -> None:
    row = known_row(running)
    key = {"authorization": f"Bearer {API_KEY}", "traceparent": TRACEPARENT}
    assert running.post("/v1/score", {"key_id": KEY_ID, "records": records(row)}, **key).is_success
    running.call(SCORE, score_request(row), **key)


def mistakes(running: Running) -> None:
    """Everything a caller could get wrong, with a token or a word in each place."""
    key = {"authorization": f"Bearer {API_KEY}"}
    for row in (UNKNOWN, OTHER_KEY):
        text = to_text(row["alpha"])
        body = {"key_id": KEY_ID, "records": records(row)}
        assert running.post("/v1/score", body, **key).is_client_error
        for wrong in (
            {"key_id": text, "records": records(row)},
            {"key_id": KEY_ID, "records": [{text: text}]},
            {"key_id": KEY_ID, "records": [{"alpha": WORD, "beta": WORD, "gamma": WORD}]},
            {"key_id": KEY_ID, "model": text, "records": records(row)},
            {text: text},
            f'{{"{text}'.encode(),
        ):
            assert running.post("/v1/score", wrong, **key).is_client_error
        for path in (f"/v1/{text}", f"/{text}", f"/v1/models/{text}", f"/v2/models/{text}",
                     f"/v2/{text}", f"/v1/health?{text}", f"/?token={text}",
                     f"/v2/models/{text}/versions/{text}/ready"):  # fmt: skip
            running.http.get(path, headers=key)
        running.post(f"/v2/models/{text}/infer", infer(row, text), **key)
        name = model_name(running).partition(":")[0]
        running.post(f"/v2/models/{name}/infer", infer(row, WORD), **key)
        planted = {
            "x-request-id": text, "traceparent": text, "tracestate": f"a={text}",
            "user-agent": text, "cookie": text, "referer": f"http://x/?{text}",
        }  # fmt: skip
        running.post("/v1/score", body, **key, **planted)
        for credential in ({"authorization": f"Bearer {text}"}, {"x-api-key": text}):
            assert running.post("/v1/score", body, **credential).status_code == 401
            refused(running, SCORE, score_request(row), **credential)
        refused(running, SCORE, score_request(row), **key)
        refused(running, SCORE, score_request(row, text), **key)
        refused(running, SCORE, text.encode(), **key)
        refused(running, f"/cipherscore.v1.CipherScore/{text}", b"", **key)
        refused(running, f"/{text}/Score", b"", **key)
        metadata = {"x_request_id": text, "traceparent": text, "tracestate": f"a={text}"}
        refused(running, SCORE, score_request(row), **key, **metadata)


def refused(running: Running, path: str, request: bytes, **metadata: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        running.call(path, request, **metadata)
    assert caught.value.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def test_planted_values_are_nowhere(running: Running) -> None:
    before = Exposed(running.metrics()).total("cipherscore_requests_total")
    successes(running)
    mistakes(running)
    planted = {API_KEY.encode(), WORD.encode()}
    for row in (UNKNOWN, OTHER_KEY, known_row(running)):
        for value in row.values():
            planted |= forms(value)
    running.collector.wait(lambda spans: len(spans) >= 10)
    wait_for(lambda: '"unauthenticated"' in running.server.log.read_text())
    tag = model_name(running).encode()
    told = {
        "log": running.server.log.read_bytes(),
        "metrics": running.metrics().encode(),
        "spans": b"".join(running.collector.bodies),
    }
    for where, content in told.items():
        for value in planted:
            assert value not in content, where
        # The search finds what is there.
        assert tag in content, where
        assert b"Score" in content, where
        assert b"unknown-token" in content, where
    assert Exposed(told["metrics"].decode()).total("cipherscore_requests_total") > before + 30


def test_every_line_is_json(running: Running) -> None:
    successes(running)
    lines = [json.loads(line) for line in running.server.log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    scored = [line for line in lines if line.get("method") == "Score" and line["code"] == "ok"]
    assert {line["transport"] for line in scored} == {"grpc", "http"}
    for line in scored:
        assert line["client"] == "bank-a"
        assert line["rows"] == 1
        assert line["trace_id"] == TRACE
        assert line["request_id"]


def test_the_trace_of_the_caller_goes_on_over_both_transports(running: Running) -> None:
    successes(running)

    def complete(spans: list[Any]) -> bool:
        ours = [attributes(s) for s in spans if s.trace_id.hex() == TRACE]
        systems = {"grpc" if "rpc.system" in a else "http" for a in ours if "cipherscore.code" in a}
        return systems == {"grpc", "http"} and any("cipherscore.provider" in a for a in ours)

    spans = running.collector.wait(complete)
    runs = {span.span_id.hex(): span for span in spans if span.name == "cipherscore.run"}
    scored = [s for s in spans if s.name == "cipherscore.score" and s.trace_id.hex() == TRACE]
    for span in scored:
        assert span.parent_span_id.hex() == TRACEPARENT.split("-")[2]
        run = runs[attributes(span)["cipherscore.batch.id"]]
        assert span.span_id in {link.span_id for link in run.links}


def test_one_scrape_tells_of_both_workers(running: Running) -> None:
    """Each new connection goes to one worker or the other; the sum is the same from anywhere."""
    row = known_row(running)
    where = {"transport": "http", "method": "Score", "code": "ok"}
    before = Exposed(running.metrics()).value("cipherscore_requests_total", **where)
    body = json.dumps({"key_id": KEY_ID, "records": records(row)}).encode()
    for _ in range(20):
        answer = httpx.post(
            f"{running.server.http}/v1/score", content=body, headers={"x-api-key": API_KEY}
        )
        assert answer.is_success, answer.text
        assert answer.headers["x-request-id"]
    for _ in range(6):
        found = Exposed(running.metrics())
        assert found.value("cipherscore_requests_total", **where) == before + 20
        assert found.value("cipherscore_workers") == 2
        assert found.total("cipherscore_batch_rows_count") > 0


def test_each_worker_looks_at_itself_once_a_second(running: Running) -> None:
    successes(running)  # the channel stays open

    def looked() -> bool:
        found = Exposed(running.metrics())
        return (
            found.value("cipherscore_loop_delay_seconds_count") >= 2
            and found.value("cipherscore_connections") >= 1
        )

    wait_for(looked)
    assert Exposed(running.metrics()).value("cipherscore_queue_rows") == 0


def test_bentoml_tells_no_metrics_of_its_own(running: Running) -> None:
    with suppress(httpx.HTTPError):
        running.http.get(f"/{WORD}")
    assert "bentoml_" not in running.metrics()
    assert WORD not in running.metrics()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
