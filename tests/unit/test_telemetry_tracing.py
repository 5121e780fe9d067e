"""Traces: exported to a collector double, joined to the caller's trace, silent about payloads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherscore.errors import request_errors
from serving.call import Call, Transport
from serving.settings import Settings
from serving.telemetry import families, tracing
from serving.telemetry.observer import Observer
from serving.telemetry.tracing import open_tracer, parse_traceparent, span_name, wanted
from tests.support.collector import Collector, attributes, collecting
from tests.support.server import ROOT, free_port

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
TAG = "credit:1"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.address)
        yield found


@pytest.fixture
def observer(collector: Collector) -> Iterator[Observer]:
    found = Observer.of_worker(Settings(log_requests="none"))
    yield found
    found.close()


def begin(
    observer: Observer,
    transport: Transport = "grpc",
    method: str = "Score",
    traceparent: str = TRACEPARENT,
) -> Call:
    call = Call(transport, method, "tester", time.monotonic(), traceparent=traceparent)
    call.rows, call.model = 3, TAG
    observer.started(call)
    return call


class TestSpans:
    def test_a_grpc_request_joins_the_callers_trace(
        self, observer: Observer, collector: Collector
    ) -> None:
        observer.finished(begin(observer), "ok")
        observer.close()
        (span,) = collector.spans
        assert span.name == "cipherscore.score"
        assert span.trace_id.hex() == TRACE
        assert span.parent_span_id.hex() == PARENT
        assert span.kind == span.SPAN_KIND_SERVER
        assert attributes(span) == {
            "rpc.system": "grpc",
            "rpc.service": "cipherscore.v1.CipherScore",
            "rpc.method": "Score",
            "rpc.grpc.status_code": 0,
            "cipherscore.method": "Score",
            "cipherscore.model": TAG,
            "cipherscore.rows": 3,
            "cipherscore.code": "ok",
        }
        assert collector.services() == {"cipherscore"}

    def test_an_http_request_names_its_route(
        self, observer: Observer, collector: Collector
    ) -> None:
        observer.finished(begin(observer, "http", "ModelInfer"), "unknown-token")
        observer.close()
        (span,) = collector.spans
        found = attributes(span)
        assert span.name == "cipherscore.model_infer"
        assert span.trace_id.hex() == TRACE
        assert found["http.request.method"] == "POST"
        assert found["http.route"] == "/v2/models/{model}/infer"
        assert found["http.response.status_code"] == request_errors()["unknown-token"].http_status
        assert found["error.type"] == "unknown-token"
        assert span.status.code == 0  # the caller's fault, not the server's

    def test_a_bug_marks_the_span_as_an_error(
        self, observer: Observer, collector: Collector
    ) -> None:
        observer.finished(begin(observer), "internal")
        observer.close()
        (span,) = collector.spans
        assert span.status.code == span.status.STATUS_CODE_ERROR
        assert attributes(span)["rpc.grpc.status_code"] == 13

    def test_a_request_without_context_starts_a_trace(
        self, observer: Observer, collector: Collector
    ) -> None:
        observer.finished(begin(observer, traceparent=""), "ok")
        observer.close()
        (span,) = collector.spans
        assert not span.parent_span_id
        assert any(span.trace_id)

    def test_what_the_caller_does_not_sample_is_not_exported(
        self, observer: Observer, collector: Collector
    ) -> None:
        observer.finished(begin(observer, traceparent=f"00-{TRACE}-{PARENT}-00"), "ok")
        observer.finished(begin(observer, method="Generate"), "ok")
        observer.close()
        assert [span.name for span in collector.spans] == ["cipherscore.generate"]

    def test_no_unknown_text_is_exported(self, observer: Observer, collector: Collector) -> None:
        planted = "cGxhbnRlZC10b2tlbg"
        call = begin(observer, "http", f"/v1/{planted}", traceparent=planted)
        observer.finished(call, planted)
        observer.close()
        (span,) = collector.spans
        assert span.name == "cipherscore.other"
        assert planted.encode() not in b"".join(collector.bodies)


class TestModelRuns:
    def test_a_run_is_linked_to_the_requests_it_served(
        self, observer: Observer, collector: Collector
    ) -> None:
        calls = [begin(observer), begin(observer, traceparent="")]
        unsampled = begin(observer, traceparent=f"00-{TRACE}-{PARENT}-00")
        traced = observer.traced(TAG, provider="CPUExecutionProvider", precision="fp32")
        assert traced is not None
        traced([*calls, unsampled], 9, 0.0005, 0.002)
        for call in [*calls, unsampled]:
            observer.finished(call, "ok")
        observer.close()
        spans = {span.name: span for span in collector.spans}
        run = spans["cipherscore.run"]
        served = [span for span in collector.spans if span.name == "cipherscore.score"]
        assert {link.span_id for link in run.links} == {span.span_id for span in served}
        assert run.parent_span_id in {span.span_id for span in served}
        assert run.end_time_unix_nano - run.start_time_unix_nano == pytest.approx(2e6, abs=1e3)
        found = attributes(run)
        assert found["cipherscore.batch.requests"] == 3
        assert found["cipherscore.rows"] == 9
        assert found["cipherscore.provider"] == "CPUExecutionProvider"
        assert found["cipherscore.precision"] == "fp32"
        for span in served:
            assert attributes(span)["cipherscore.batch.id"] == run.span_id.hex()
            assert attributes(span)["cipherscore.queue_seconds"] == 0.0005

    def test_a_run_for_nobody_who_is_traced_makes_no_span(
        self, observer: Observer, collector: Collector
    ) -> None:
        call = begin(observer, traceparent=f"00-{TRACE}-{PARENT}-00")
        traced = observer.traced(TAG)
        assert traced is not None
        traced([call], 1, 0.0, 0.001)
        observer.finished(call, "ok")
        observer.close()
        assert not collector.bodies


class TestTraceparent:
    def test_the_example_of_the_specification(self) -> None:
        assert parse_traceparent(TRACEPARENT) == (int(TRACE, 16), int(PARENT, 16), 1)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            TRACEPARENT.upper(),
            TRACEPARENT + "-",
            TRACEPARENT + "\n",
            f"ff-{TRACE}-{PARENT}-01",
            f"00-{'0' * 32}-{PARENT}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-{PARENT}",
        ],
    )
    def test_what_is_none(self, text: str) -> None:
        assert parse_traceparent(text) is None

    @given(st.text())
    def test_any_text_is_survived(self, text: str) -> None:
        assert parse_traceparent(text) is None


class TestSwitches:
    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({}, False),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
            ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, False),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        ],
    )
    def test_an_endpoint_switches_traces_on(
        self, environment: dict[str, str], expected: bool
    ) -> None:
        assert wanted(environment) is expected
        if not expected:
            assert open_tracer(environment) is None

    def test_another_protocol_is_refused_in_words(self, caplog: pytest.LogCaptureFixture) -> None:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        assert open_tracer(environment) is None
        assert "http/protobuf" in caplog.text

    def test_the_service_name_and_sampler_are_the_environments(
        self, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "scoring-eu")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        silent = Observer.of_worker(Settings(log_requests="none"))
        silent.finished(begin(silent), "ok")
        silent.close()
        assert not collector.bodies
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
        observer = Observer.of_worker(Settings(log_requests="none"))
        observer.finished(begin(observer), "ok")
        observer.close()
        assert collector.services() == {"scoring-eu"}

    def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded(self) -> None:
        program = (
            "import sys; from serving.telemetry.observer import Observer;"
            "from serving.settings import Settings;"
            "Observer.of_worker(Settings()).close();"
            "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
        )
        clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=clean, check=True)


class TestCollectorAway:
    def test_requests_do_not_notice(
        self, monkeypatch: pytest.MonkeyPatch, collector: Collector
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.5)
        observer = Observer.of_worker(Settings(log_requests="none"))
        for _ in range(200):
            observer.finished(begin(observer), "ok")
        observer.close()
        assert b'code="ok",method="Score",transport="grpc"} 200.0' in observer.exposition()[0]

    def test_closing_does_not_wait_for_it(
        self, monkeypatch: pytest.MonkeyPatch, collector: Collector
    ) -> None:
        """A collector that takes the connection and never answers."""
        release = threading.Event()
        monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.2)
        observer = Observer.of_worker(Settings(log_requests="none"))
        assert observer._tracer is not None
        monkeypatch.setattr(observer._tracer._provider, "shutdown", lambda: release.wait(60))
        observer.finished(begin(observer), "ok")
        observer.close()
        assert not release.is_set()
        release.set()


@pytest.mark.parametrize("method", sorted(families.METHODS))
def test_span_names(method: str) -> None:
    assert span_name(method).replace("cipherscore.", "").replace("_", "") == method.lower()
