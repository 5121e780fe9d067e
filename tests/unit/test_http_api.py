"""The HTTP application below its ASGI interface: admission, headers, streaming, leaving clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cipherscore.errors import (
    Draining,
    ModelUnavailable,
    Overloaded,
    PermissionDenied,
    RateLimited,
    RequestError,
    Unauthenticated,
)
from cipherscore.tokens import to_text
from registry.version import Version
from serving.call import Call
from serving.clients_file import digest, new_key
from serving.generation import CHUNK_ROWS, Chunk
from serving.http_message import request_id
from serving.http_rows import ScoreWriter
from serving.scorer import Scores
from tests.support.asgi import InProcess, Reply, in_process, request, versions_in
from tests.support.models import KEY_ID, vocabulary

RECORD = {field: to_text(column[0]) for field, column in vocabulary().tokens.items()}
BODY = json.dumps({"key_id": KEY_ID, "records": [RECORD]}).encode()


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Version]:
    return versions_in(tmp_path_factory.mktemp("registry"))


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


class Codes:
    """Notes how calls end."""

    def __init__(self, target: InProcess) -> None:
        self.ended: list[tuple[str, str]] = []
        self.calls: list[Call] = []
        finish = target.gate.finish

        def noting(call: Call, code: str) -> None:
            self.ended.append((call.method, code))
            self.calls.append(call)
            finish(call, code)

        target.gate.finish = noting  # type: ignore[method-assign]


def test_a_row_is_scored_and_the_call_told(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)
        trace = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
        headers = [
            (b"x-request-id", b"mine-1"),
            (b"traceparent", trace),
            (b"x-request-timeout-ms", b"1500"),
        ]
        reply = await request(target.app, "POST", "/v1/score", BODY, headers)
        assert reply.status == 200
        assert reply.headers["x-request-id"] == "mine-1"
        (call,) = codes.calls
        assert codes.ended == [("Score", "ok")]
        assert (call.rows, call.model, call.request_id) == (1, versions[0].tag, "mine-1")
        assert call.traceparent == trace.decode()
        assert call.deadline - call.started == pytest.approx(1.5)

    run(story())


@pytest.mark.parametrize(
    ("error", "status", "header", "value"),
    [
        (Unauthenticated("x"), 401, "www-authenticate", 'Bearer realm="cipherscore"'),
        (PermissionDenied("x"), 403, None, None),
        (RateLimited("x", retry_after=0.2), 429, "retry-after", "1"),
        (Overloaded("x", retry_after=2.1), 429, "retry-after", "3"),
        (Draining("x", retry_after=1.0), 503, "retry-after", "1"),
    ],
)
def test_who_is_not_admitted(
    versions: list[Version], error: RequestError, status: int, header: str | None, value: str | None
) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)

        def admit(*_: Any, **__: Any) -> Call:
            raise error

        target.gate.admit = admit  # type: ignore[method-assign]
        read = []

        async def never() -> Any:
            read.append(1)

        reply = await request(target.app, "POST", "/v1/score", BODY, [(b"x-request-id", b"mine-2")])
        assert reply.status == status
        assert json.loads(reply.body)["code"] == error.code
        assert reply.headers["x-request-id"] == "mine-2"
        if header is not None:
            assert reply.headers[header] == value
        assert codes.ended == []

    run(story())


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "1_0", "²", "9" * 13, "+5"])
def test_a_timeout_that_is_none(versions: list[Version], text: str) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)
        headers = [(b"x-request-timeout-ms", text.encode("latin-1"))]
        reply = await request(target.app, "POST", "/v1/score", BODY, headers)
        assert (reply.status, json.loads(reply.body)["field"]) == (400, "x-request-timeout-ms")
        assert codes.ended == [("Score", "invalid-request")]

    run(story())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([(b"content-type", b"application/json")], 200),
        ([(b"content-type", b"Application/JSON ; charset=utf-8")], 200),
        ([(b"content-type", b"text/plain")], 415),
        ([(b"content-type", b"application/x-www-form-urlencoded")], 415),
        ([(b"content-encoding", b"gzip")], 415),
        ([(b"content-encoding", b"identity")], 200),
    ],
)
def test_kinds_of_bodies(versions: list[Version], headers: Any, status: int) -> None:
    async def story() -> Reply:
        return await request(in_process(versions).app, "POST", "/v1/score", BODY, headers)

    assert run(story()).status == status


def test_a_request_id_that_may_not_stand_in_a_header_is_replaced() -> None:
    made = {request_id({"x-request-id": bad}) for bad in ("", "x" * 49, "a\tb", "é", "a\nb")}
    assert len(made) == 5
    assert all(len(one) == 32 and one.isalnum() for one in made)
    assert request_id({"x-request-id": "x" * 48}) == "x" * 48


def test_a_client_that_leaves_is_not_computed_for(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)
        begun: list[Call] = []

        def never_done(call: Call, *_: Any) -> None:
            begun.append(call)

        target.app._api._dataplane.score = never_done  # type: ignore[method-assign]
        reply = await request(target.app, "POST", "/v1/score", [BODY], leave_after=1)
        assert reply.status == 0
        assert begun[0].cancelled
        assert codes.ended == [("Score", "cancelled")]
        assert target.gate.running == 0

    run(story())


def test_a_client_that_leaves_within_its_body(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)
        reply = await request(target.app, "POST", "/v1/score", [BODY[:9], BODY[9:]], leave_after=1)
        assert reply.status == 0
        assert codes.ended == [("Score", "cancelled")]

    run(story())


def test_a_bug_is_answered_and_logged_without_its_message(
    versions: list[Version], caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)

        def broken(*_: Any) -> None:
            raise ValueError(BODY.decode())

        target.app._api._dataplane.score = broken  # type: ignore[method-assign]
        reply = await request(target.app, "POST", "/v1/score", BODY)
        assert (reply.status, json.loads(reply.body)["code"]) == (500, "internal")
        assert codes.ended == [("Score", "internal")]
        assert RECORD["beta"].encode() not in reply.body

    run(story())
    assert "ValueError" in caplog.text
    assert RECORD["beta"] not in caplog.text


GENERATE = {"key_id": KEY_ID, "count": 3, "seed": 7}
LINES = [(b"accept", b"application/x-ndjson")]


def order(**changes: Any) -> bytes:
    return json.dumps({**GENERATE, **changes}).encode()


def test_lines_are_the_rows_of_the_document(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions, max_generated_json_rows=CHUNK_ROWS + 700)
        body = order(count=CHUNK_ROWS + 600)
        whole = await request(target.app, "POST", "/v1/generate", body)
        streamed = await request(target.app, "POST", "/v1/generate", body, LINES)
        document = json.loads(whole.body)
        lines = [json.loads(line) for line in streamed.body.splitlines()]
        assert [line["record"] for line in lines] == document["records"]
        assert [line["credit_class"] for line in lines] == document["credit_classes"]
        assert streamed.complete
        assert streamed.headers["content-type"] == "application/x-ndjson"
        assert streamed.headers["cipherscore-model"] == document["model"] == versions[1].tag
        assert streamed.headers["cipherscore-seed"] == "7"

    run(story())


def test_lines_go_past_the_limit_of_documents(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions, max_generated_json_rows=10, max_generated_rows=20)
        assert (await request(target.app, "POST", "/v1/generate", order(count=11))).status == 413
        reply = await request(target.app, "POST", "/v1/generate", order(count=20), LINES)
        assert reply.body.count(b"\n") == 20
        reply = await request(target.app, "POST", "/v1/generate", order(count=21), LINES)
        assert (reply.status, json.loads(reply.body)["code"]) == (413, "batch-too-large")

    run(story())


def test_a_failure_in_the_middle_of_lines(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)
        generator = target.lineup.generator()

        def failing(*_: Any) -> Any:
            yield Chunk(np.zeros((5, 3), dtype=np.int32), np.zeros(5, dtype=np.int32))
            raise ModelUnavailable("the model broke")

        generator.start = lambda *_: (7, failing())
        reply = await request(target.app, "POST", "/v1/generate", order(count=100), LINES)
        *lines, last = [json.loads(line) for line in reply.body.splitlines()]
        assert reply.status == 200
        assert not reply.complete
        assert len(lines) == 5
        assert last["code"] == "model-unavailable"
        assert codes.ended == [("Generate", "model-unavailable")]

    run(story())


def test_a_reader_that_leaves_stops_the_generator(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions)
        codes = Codes(target)
        made = []
        generator = target.lineup.generator()

        def endless(*_: Any) -> Any:
            while len(made) < 1_000:
                made.append(1)
                yield Chunk(np.zeros((9, 3), dtype=np.int32), np.zeros(9, dtype=np.int32))

        generator.start = lambda *_: (7, endless())
        await request(
            target.app, "POST", "/v1/generate", [order(count=9_000)], LINES, leave_after=1
        )
        assert codes.ended == [("Generate", "cancelled")]
        assert len(made) < 100

    run(story())


def test_a_late_generation_ends_at_its_deadline(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions)
        body, headers = order(count=200_000), [*LINES, (b"x-request-timeout-ms", b"1")]
        reply = await request(target.app, "POST", "/v1/generate", body, headers)
        assert json.loads(reply.body.splitlines()[-1])["code"] == "deadline-passed"
        assert not reply.complete

    run(story())


@pytest.mark.parametrize(
    ("accept", "streamed"),
    [
        ("", False), ("*/*", False), ("application/json", False),
        ("application/x-ndjson; q=0, */*", False), ("Application/X-NDJSON", True),
        ("application/json;q=0.5, application/x-ndjson", True),
    ],
)  # fmt: skip
def test_who_gets_lines(versions: list[Version], accept: str, streamed: bool) -> None:
    async def story() -> Reply:
        app = in_process(versions).app
        return await request(app, "POST", "/v1/generate", order(), [(b"accept", accept.encode())])

    assert (run(story()).headers["content-type"] == "application/x-ndjson") == streamed


def test_what_is_not_ours_goes_on(versions: list[Version]) -> None:
    async def story() -> None:
        app = in_process(versions).app
        for path in (
            "/",
            "/livez",
            "/readyz",
            "/v1",
            "/v11/score",
            "/v2x",
            "/metricsx",
            "/docs.json",
        ):
            assert (await request(app, "GET", path)).body == b"bento " + path.encode()

    run(story())


def test_readiness_and_metrics(versions: list[Version]) -> None:
    async def story() -> None:
        target = in_process(versions)
        await request(target.app, "POST", "/v1/score", BODY)
        page = (await request(target.app, "GET", "/metrics")).body.decode()
        assert 'cipherscore_requests_total{code="ok",method="Score",transport="http"} 1.0' in page
        target.lineup.ready = False
        assert (await request(target.app, "GET", "/readyz")).status == 503
        target.lineup.ready = True
        assert (await request(target.app, "GET", "/readyz")).status == 418
        target.gate.draining = True
        assert (await request(target.app, "GET", "/readyz")).status == 503
        assert (await request(target.app, "POST", "/v1/score", BODY)).status == 503
        assert (await request(target.app, "GET", "/v1/health")).status == 200

    run(story())


def test_probabilities_are_written_with_all_their_digits() -> None:
    probability = np.array([1e-30, 0.1, 1 / 3, 1.0, 0.0], dtype=np.float32)
    bad = np.array([False, True, False, True, False])
    written = json.loads(ScoreWriter().write(Scores(probability, bad, 'a"ü:1', 0.1)))
    assert [row["probability"] for row in written["results"]] == probability.astype(float).tolist()
    assert [row["decision"] for row in written["results"]] == ["good", "bad", "good", "bad", "good"]
    assert (written["model"], written["threshold"]) == ('a"ü:1', 0.1)


def test_clients_by_their_keys(versions: list[Version], tmp_path: Path) -> None:
    key = new_key()
    file = tmp_path / "clients.toml"
    file.write_text(
        f'[[client]]\nname = "a"\nscopes = ["score"]\nkey_sha256 = ["{digest(key)}"]\nrate_per_second = 0.001\nrate_burst = 2\n'
    )
    shown = [(b"authorization", f"Bearer {key}".encode())]

    async def story() -> None:
        target = in_process(versions, clients_file=file)
        app = target.app

        async def ask(path: str, headers: Any = (), body: bytes = BODY) -> Reply:
            return await request(app, "POST", path, body, headers)

        for wrong in ([], [(b"authorization", b"Bearer x")], [(b"x-api-key", b"x")]):
            reply = await ask("/v1/score", wrong, b"not even JSON")
            assert (reply.status, json.loads(reply.body)["code"]) == (401, "unauthenticated")
            assert reply.headers["www-authenticate"].startswith("Bearer")
        assert (await ask("/v1/generate", shown, order())).status == 403
        assert (await ask("/v1/score", shown)).status == 200
        assert (await ask("/v1/score", [(b"x-api-key", key.encode())])).status == 200
        limited = await ask("/v1/score", shown)
        assert (limited.status, json.loads(limited.body)["code"]) == (429, "rate-limited")
        assert int(limited.headers["retry-after"]) >= 1
        page = json.loads((await request(app, "GET", "/v1/openapi.json")).body)
        assert {} not in page["paths"]["/score"]["post"]["security"]
        assert (await request(app, "GET", "/v1/health")).status == 200
        assert target.gate.running == 0

    run(story())
