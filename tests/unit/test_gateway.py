"""The gateway over HTTP, in process and as a real uvicorn process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from cipherscore.client import AsyncClient
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.gateway.app import create_app
from cipherscore.client.gateway.server import create_server
from cipherscore.client.keys import Argon2Parameters, Keyset
from cipherscore.client.records import RecordCodec
from cipherscore.errors import ConfigurationError, request_errors
from cipherscore.schema import Field, Schema, Target
from cipherscore.schema_file import save_schema
from tests.support.host_double import MODEL, THRESHOLD, HostDouble, fail, probability, serve, sleep

PATH = "/predictCreditRisk"
SECRET = "A-SECRET-VALUE"
SCHEMA = Schema(
    name="small",
    target=Target("risk", good="1", bad="2"),
    fields=(
        Field("colour", "categorical", categories={"C1": "", "C2": "", SECRET: ""}),
        Field("amount", "numeric", edges=(0.0, 10.0, 20.0), valid_range=(0.0, 100.0)),
        Field("job", "categorical", categories={"J1": "", "J2": ""}, missing="level"),
    ),
)
KEYSET = Keyset.create()
CODEC = RecordCodec(FieldCipher(KEYSET, SCHEMA))
GOOD = {"colour": "C1", "amount": 3, "job": "J1"}

records = st.fixed_dictionaries(
    {
        "colour": st.sampled_from(["C1", "C2", SECRET]),
        "amount": st.integers(0, 100) | st.floats(0, 100),
        "job": st.sampled_from(["J1", "J2", None, ""]),
    },
    optional={"risk": st.sampled_from([1, 2, "1"])},
)


def classes(rows):
    values = [probability(list(CODEC.encode(row).values())) for row in rows]
    return [[2] if value >= THRESHOLD else [1] for value in values]


@pytest.fixture
def server():
    """One of its own for each test: a request that a test gave up may reach it late."""
    tokens = {name: list(column) for name, column in CODEC.levels.items()}
    host = HostDouble(tokens, CODEC.key_id)
    with serve(host) as port:
        yield host, port


@pytest.fixture
def host(server):
    return server[0]


def connect(port, **options):
    return AsyncClient(KEYSET, SCHEMA, f"127.0.0.1:{port}", **options)


@pytest.fixture
def http(server, host):
    app = create_app(connect(server[1], retries=0), max_body_bytes=100_000, max_records=200)
    with TestClient(app) as client:
        yield client


def post(http, body, **options):
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return http.post(PATH, content=content, **options)


class TestPredict:
    @pytest.mark.parametrize("count", [1, 2, 200])
    def test_classes_come_back_in_order(self, http, count):
        rows = [{**GOOD, "amount": n % 20, "colour": f"C{n % 2 + 1}"} for n in range(count)]
        answer = post(http, rows)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == classes(rows)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(rows=st.lists(records, min_size=1, max_size=10))
    def test_any_valid_records(self, http, rows):
        assert post(http, rows).json() == classes(rows)

    def test_as_a_form_too_because_curl_sends_one(self, http):
        answer = post(http, [GOOD], headers={"content-type": "application/x-www-form-urlencoded"})
        assert answer.json() == classes([GOOD])

    def test_a_body_in_chunks(self, http):
        body = json.dumps([GOOD] * 3).encode()
        answer = http.post(PATH, content=(body[at : at + 7] for at in range(0, len(body), 7)))
        assert answer.json() == classes([GOOD] * 3)

    def test_classes_that_are_no_numbers(self, server, host):
        schema = Schema("words", SCHEMA.fields, Target("risk", good="yes", bad="no"))
        client = AsyncClient(KEYSET, schema, f"127.0.0.1:{server[1]}")
        with TestClient(create_app(client)) as http:
            assert post(http, [GOOD]).json()[0] in (["yes"], ["no"])


class TestBadRecords:
    @pytest.mark.parametrize(
        ("change", "field", "text"),
        [
            ({"colour": "C9"}, "colour", "C9"),
            ({"colour": None}, "colour", "None"),
            ({"colour": ["C1"]}, "colour", "allowed: C1"),
            ({"colour": {"C1": {}}}, "colour", "allowed: C1"),
            ({"colour": "\ud800"}, "colour", "allowed: C1"),
            ({"colour": "x" * 50_000}, "colour", "50000 long"),
            ({"amount": 101}, "amount", "0 to 100"),
            ({"amount": "many"}, "amount", "many"),
            ({"amount": True}, "amount", "True"),
            ({"extra": 1}, "extra", "does not know"),
            ({"\ud800": 1}, "\ud800", "does not know"),
            ({"Colour": "C1"}, "Colour", "does not know"),
        ],
    )
    def test_the_field_and_the_record_are_named(self, http, host, change, field, text):
        answer = post(http, [GOOD, GOOD, {**GOOD, **change}, {}])
        assert answer.status_code == 400
        content = answer.json()
        assert (content["field"], content["record"]) == (field, 2)
        assert text in content["error"]
        assert len(content["error"]) < 400
        assert host.requests == []

    def test_a_missing_field(self, http):
        content = post(http, [GOOD, {"amount": 3, "job": "J1"}]).json()
        assert (content["field"], content["record"]) == ("colour", 1)
        assert "lacks" in content["error"]

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"", "not JSON"),
            (b"[", "not JSON"),
            (b"[{}] x", "not JSON"),
            (b"{'a': 1}", "not JSON"),
            (b"\xff\xfe[]", "UTF-8"),
            (json.dumps([GOOD]).encode("utf-16"), "UTF-8"),
            (json.dumps(GOOD), "list"),
            (b"null", "list"),
            (b'"text"', "list"),
            (b"[]", "no record"),
            (b"[1]", "record 0 is not a JSON object"),
            (json.dumps([GOOD, []]), "record 1 is not a JSON object"),
            (b'[{"colour": "C1", "amount": NaN, "job": "J1"}]', "NaN"),
            (b'[{"colour": "C1", "amount": -Infinity, "job": "J1"}]', "-Infinity"),
            (b'[{"colour": "C1", "amount": 1e999, "job": "J1"}]', "inf"),
            (b'[{"colour": "C1", "colour": "C2", "amount": 1}]', "'colour' twice"),
            (b'[{"amount": ' + b"9" * 90_000 + b"}]", "90000 digits"),
            (b"[" * 50_000, "nested too deeply"),
            (b'[{"colour": ' + b'{"a":' * 16_000, "nested too deeply"),
        ],
    )
    def test_a_body_that_is_no_list_of_records(self, http, host, body, text):
        start = time.monotonic()
        answer = post(http, body)
        assert answer.status_code == 400
        assert text in answer.json()["error"]
        assert host.requests == []
        assert time.monotonic() - start < 2

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(body=st.binary(max_size=60) | st.text(alphabet='[]{}":,0-eN ', max_size=60))
    def test_any_other_body_is_refused_and_never_a_failure(self, http, body):
        content = body if isinstance(body, bytes) else body.encode()
        assert post(http, content).status_code == 400


class TestLimits:
    def test_too_many_records(self, http, host):
        answer = post(http, [GOOD] * 201)
        assert answer.status_code == 413
        assert "at most 200" in answer.json()["error"]
        assert host.requests == []

    def test_too_long_a_body(self, http):
        answer = post(http, b" " * 100_001)
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"
        assert "100000 bytes" in answer.json()["error"]
        assert post(http, json.dumps([GOOD]).ljust(100_000)).status_code == 200

    def test_without_a_content_length_it_stops_reading(self, server, host):
        read = 0

        async def receive():
            nonlocal read
            read += 1
            return {"type": "http.request", "body": b" " * 1000, "more_body": True}

        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}
        client = connect(server[1])
        asyncio.run(create_app(client, max_body_bytes=10_000)(scope, receive, send))
        assert sent[0]["status"] == 413
        assert read == 11

    def test_a_caller_that_hangs_up(self, server):
        async def receive():
            return {"type": "http.disconnect"}

        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}
        asyncio.run(create_app(connect(server[1]))(scope, receive, send))
        assert sent[0]["status"] == 400


class TestOtherRequests:
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_a_wrong_method(self, http, method):
        answer = http.request(method, PATH)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert answer.json()["error"]

    @pytest.mark.parametrize("path", ["/", "/predictcreditrisk", "/v1/score", "/docs"])
    def test_an_unknown_path(self, http, path):
        answer = http.post(path, content=b"[]")
        assert answer.status_code == 404
        assert answer.json()["error"]

    def test_health(self, http, host):
        assert http.get("/livez").json() == {"status": "alive"}
        assert http.get("/readyz").json() == {"status": "ready", "model": MODEL}
        assert http.post("/livez").status_code == 405

    def test_not_ready_while_the_host_is_away(self, http, host):
        host.script = [fail(grpc.StatusCode.UNAVAILABLE)]
        answer = http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["status"] == "not ready"
        assert http.get("/livez").status_code == 200

    def test_not_ready_under_another_key(self, http, host):
        host.edit = lambda answer: setattr(answer, "key_id", "00000000")
        answer = http.get("/readyz")
        assert answer.status_code == 503
        assert "key 00000000" in answer.json()["error"]


class TestHostFailures:
    @pytest.mark.parametrize(
        ("act", "status"),
        [
            (fail(grpc.StatusCode.UNAVAILABLE), 503),
            (fail(grpc.StatusCode.INTERNAL), 502),
            (fail(grpc.StatusCode.UNIMPLEMENTED), 502),
        ],
    )
    def test_a_host_that_fails(self, http, host, act, status):
        host.script = [act]
        answer = post(http, [GOOD])
        assert answer.status_code == status
        assert "as told" in answer.json()["error"]

    def test_a_slow_host(self, server, host):
        host.script = [sleep(1)]
        with TestClient(create_app(connect(server[1], timeout=0.2))) as http:
            answer = post(http, [GOOD])
        assert answer.status_code == 504
        assert "0.2 s" in answer.json()["error"]

    def test_a_host_that_talks_nonsense(self, http, host):
        host.edit = lambda answer: answer.probability.pop()
        assert post(http, [GOOD]).status_code == 502

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("unknown-token", 422),
            ("batch-too-large", 413),
            ("model-unavailable", 503),
            ("unknown-model", 502),
            ("wrong-key", 502),
            ("missing-field", 502),
            ("rate-limited", 429),
            ("overloaded", 429),
            ("draining", 503),
            ("deadline-passed", 504),
            ("unauthenticated", 502),
            ("permission-denied", 502),
        ],
    )
    def test_a_host_that_refuses(self, http, host, code, status):
        grpc_status = grpc.StatusCode[request_errors()[code].grpc_status]
        metadata = {"cipherscore_error_code": code, "cipherscore_error_field": "colour"}
        host.script = [fail(grpc_status, "why", **metadata)]
        answer = post(http, [GOOD])
        assert answer.status_code == status
        assert answer.json() == {"error": "why", "field": "colour"}

    @pytest.mark.parametrize(
        ("milliseconds", "header"),
        [("1", "1"), ("1200", "2"), ("60000", "60"), ("-1", None), ("x", None), (None, None)],
    )
    def test_when_to_try_again_is_passed_on(self, http, host, milliseconds, header):
        metadata = {"cipherscore_error_code": "rate-limited"}
        if milliseconds is not None:
            metadata["grpc_retry_pushback_ms"] = milliseconds
        host.script = [fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "why", **metadata)]
        answer = post(http, [GOOD])
        assert answer.status_code == 429
        assert answer.headers.get("retry-after") == header


class TestSecrecy:
    def test_no_value_is_logged(self, http, host, caplog, monkeypatch):
        caplog.set_level(logging.DEBUG)
        bad = {**GOOD, "colour": SECRET, "amount": SECRET}
        post(http, [bad])
        post(http, [{**GOOD, "colour": SECRET}])
        host.script = [fail(grpc.StatusCode.INTERNAL)]
        post(http, [{**GOOD, "colour": SECRET}])

        async def broken(_self, rows, **_):
            raise ZeroDivisionError(str(rows))

        monkeypatch.setattr(AsyncClient, "score", broken)
        answer = post(http, [{**GOOD, "colour": SECRET}])
        assert answer.status_code == 500
        assert answer.json() == {"error": "the gateway failed"}
        ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
        assert any("ZeroDivisionError" in r.getMessage() for r in ours)
        assert not [r for r in ours if SECRET in r.getMessage() or SECRET in str(r.exc_info)]

    def test_only_loopback_names_reach_a_loopback_gateway(self, server, host):
        app = create_server(connect(server[1])).config.app
        with TestClient(app, base_url="http://127.0.0.1:8049") as http:
            assert http.get("/livez").status_code == 200
            for name in ("localhost", "LOCALHOST:8049", "[::1]:8049", "127.0.0.1"):
                assert http.get("/livez", headers={"host": name}).status_code == 200
            for name in ("rebound.example", "127.0.0.1.rebound.example:8049", "", "[::1"):
                answer = http.post(PATH, json=[GOOD], headers={"host": name})
                assert answer.status_code == 421
        assert host.requests == []

    def test_loopback_is_the_default_and_anything_else_is_warned_about(self, server, caplog):
        config = create_server(connect(server[1])).config
        assert (config.host, config.port, config.access_log) == ("127.0.0.1", 8049, False)
        assert not caplog.records
        create_server(connect(server[1]), "0.0.0.0")
        assert "clear text" in caplog.text

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_a_wrong_port(self, server, port):
        with pytest.raises(ConfigurationError, match="65535"):
            create_server(connect(server[1]), port=port)


PROGRAM = """
import sys
from cipherscore.client import AsyncClient
from cipherscore.client.gateway.server import run
keyset, schema, address, port = sys.argv[1:]
run(AsyncClient(keyset, schema, address, passphrase="a long enough passphrase"), port=int(port))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_real_process(server, host, tmp_path):
    KEYSET.save(tmp_path / "keys.json", "a long enough passphrase", Argon2Parameters(8, 1, 1))
    save_schema(SCHEMA, tmp_path / "schema.toml")
    port = free_port()
    command = [
        sys.executable, "-c", PROGRAM, str(tmp_path / "keys.json"), str(tmp_path / "schema.toml"),
        f"127.0.0.1:{server[1]}", str(port),
    ]  # fmt: skip
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            wait_until_ready(http, process)
            rows = [{**GOOD, "colour": SECRET, "amount": n % 20} for n in range(2000)]
            assert post(http, rows).json() == classes(rows)
            assert post(http, [{**GOOD, "amount": SECRET}]).status_code == 400
            assert http.post(PATH, content=(b" " * 65_536 for _ in range(300))).status_code == 413
            assert "server" not in http.get("/livez").headers
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, -signal.SIGTERM)
    assert SECRET not in output
    assert "Traceback" not in output


def wait_until_ready(http, process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        try:
            if http.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the gateway did not start")
