"""OpenTelemetry traces, exported over OTLP/HTTP; set up by the standard ``OTEL_*`` variables only.

A request's span joins the trace that its ``traceparent`` names (W3C Trace Context, level 1), in an
HTTP header or in gRPC metadata.  ``tracestate`` is not read: it is text of other vendors for their
own processes further down, and the host calls nobody.

Nothing of the OpenTelemetry packages is imported unless an endpoint is set.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from cipherscore.errors import request_errors
from serving.call import Call
from serving.telemetry import families as f

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger("bentoml.cipherscore")

FLUSH_SECONDS = 3.0
"""Longest wait for the collector when the server ends."""

_SERVICE_NAME = "cipherscore"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

_SERVICES = {
    "cipherscore.v1.CipherScore": ("Score", "ScoreStream", "Generate", "GetModel"),
    "inference.GRPCInferenceService": (
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
        "ModelStreamInfer", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
    ),
    "grpc.health.v1.Health": ("HealthCheck", "HealthList", "HealthWatch"),
}  # fmt: skip
_SERVICE_OF = {method: service for service, methods in _SERVICES.items() for method in methods}
_HTTP_STATUS = {
    f.OK: 200, f.CANCELLED: 499, f.INTERNAL: 500, "not-found": 404, "method-not-allowed": 405,
    **{code: error.http_status for code, error in request_errors().items()},
}  # fmt: skip
_GRPC_NAMES = {
    f.OK: "OK", f.CANCELLED: "CANCELLED", f.INTERNAL: "INTERNAL",
    **{code: error.grpc_status for code, error in request_errors().items()},
}  # fmt: skip
_GRPC_STATUS = {code: grpc.StatusCode[name].value[0] for code, name in _GRPC_NAMES.items()}
_GRPC_UNKNOWN = grpc.StatusCode.UNKNOWN.value[0]
_ROUTES = {
    "Score": ("POST", "/v1/score"),
    "Generate": ("POST", "/v1/generate"),
    "Models": ("GET", "/v1/models"),
    "GetModel": ("GET", "/v1/models/{kind}"),
    "Health": ("GET", "/v1/health"),
    "ServerLive": ("GET", "/v2/health/live"),
    "ServerReady": ("GET", "/v2/health/ready"),
    "ServerMetadata": ("GET", "/v2"),
    "ModelMetadata": ("GET", "/v2/models/{model}"),
    "ModelReady": ("GET", "/v2/models/{model}/ready"),
    "ModelInfer": ("POST", "/v2/models/{model}/infer"),
    "RepositoryIndex": ("POST", "/v2/repository/index"),
    "RepositoryModelLoad": ("POST", "/v2/repository/models/{model}/load"),
    "RepositoryModelUnload": ("POST", "/v2/repository/models/{model}/unload"),
}
"""Routes of HTTP requests as templates: a path as it was sent may hold anything."""


def parse_traceparent(text: str) -> tuple[int, int, int] | None:
    """Return (trace id, span id, flags) of a ``traceparent``; None if it is none."""
    found = _TRACEPARENT.match(text)
    if not found or found[1] == _NO_TRACE or found[2] == _NO_SPAN:
        return None
    return int(found[1], 16), int(found[2], 16), int(found[3], 16)


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment asks for traces to be exported."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() not in ("", "otlp"):
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


def open_tracer(environment: Mapping[str, str] = os.environ) -> Tracer | None:
    """Return a tracer if the environment asks for one and it can be set up.

    A wrong ``OTEL_*`` value is logged and costs the traces, not the service.
    """
    if not wanted(environment):
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        logger.warning("no traces: %s is the one OTLP protocol known here", _PROTOCOL)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        return Tracer(OTLPSpanExporter(), environment)
    except Exception as error:  # noqa: BLE001 - of any of the packages behind it
        logger.warning("no traces: the exporter cannot be set up (%s)", type(error).__name__)
        return None


class Tracer:
    """Makes the spans of requests and of model runs.

    Args:
        exporter: Where they go, in batches, from a thread of its own.  A collector that is away
            costs spans only: at most ``OTEL_BSP_MAX_QUEUE_SIZE`` wait for it.
        environment: Of the process; names the service.
    """

    def __init__(self, exporter: SpanExporter, environment: Mapping[str, str] = os.environ) -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        resource = Resource.create({} if named else {"service.name": _SERVICE_NAME})
        self._trace = trace
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("cipherscore.serving")
        self._error = trace.Status(trace.StatusCode.ERROR)

    def start(self, call: Call) -> None:
        """Open the span of a request; sampling is decided here."""
        method = call.method if call.method in f.METHODS else f.OTHER
        attributes = {"cipherscore.method": method}
        if call.transport == "grpc":
            attributes["rpc.system"] = "grpc"
            attributes["rpc.service"] = _SERVICE_OF.get(method, f.OTHER)
            attributes["rpc.method"] = method
        elif method in _ROUTES:
            attributes["http.request.method"], attributes["http.route"] = _ROUTES[method]
        call.span = self._tracer.start_span(
            span_name(method),
            context=self._context(call.traceparent),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
        )

    def _context(self, traceparent: str) -> Context:
        from opentelemetry.context import Context  # noqa: PLC0415

        found = parse_traceparent(traceparent)
        if found is None:
            return Context()
        trace_id, span_id, flags = found
        parent = self._trace.SpanContext(
            trace_id, span_id, is_remote=True, trace_flags=self._trace.TraceFlags(flags)
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(parent), Context())

    def end(self, call: Call, code: str) -> None:
        """Close the span of a request."""
        span: Any = call.span
        if span is None:
            return
        if span.is_recording():
            if call.model:
                span.set_attribute("cipherscore.model", call.model)
            if call.rows:
                span.set_attribute("cipherscore.rows", call.rows)
            code = code if code in f.CODES else f.OTHER
            span.set_attribute("cipherscore.code", code)
            if call.transport == "grpc":
                status = _GRPC_STATUS.get(code, _GRPC_UNKNOWN)
                span.set_attribute("rpc.grpc.status_code", status)
            else:
                span.set_attribute("http.response.status_code", _HTTP_STATUS.get(code, 400))
            if code != f.OK:
                span.set_attribute("error.type", code)
                if _HTTP_STATUS.get(code, 400) >= 500:
                    span.set_status(self._error)
        span.end()

    def run(
        self,
        calls: Sequence[Call],
        model: str,
        facts: Mapping[str, str],
        rows: int,
        queue_seconds: float,
        run_seconds: float,
    ) -> None:
        """Record a model run that just ended, before the requests it served are answered.

        It is a child of the first of them that is sampled and is linked to all that are; each of
        them is marked with its id and with the time it waited.

        Args:
            calls: The requests whose rows were in it.
            model: The version that ran.
            facts: More about it, names without their prefix.
            rows: Rows of the run.
            queue_seconds: Mean wait of the requests.
            run_seconds: How long it took.
        """
        spans: list[Any] = [call.span for call in calls if _recording(call.span)]
        if not spans:
            return
        ended = time.time_ns()
        run = self._tracer.start_span(
            "cipherscore.run",
            context=self._trace.set_span_in_context(spans[0]),
            links=[self._trace.Link(span.get_span_context()) for span in spans],
            start_time=ended - int(run_seconds * 1e9),
            attributes={
                "cipherscore.model": model,
                "cipherscore.rows": rows,
                "cipherscore.batch.requests": len(calls),
                "cipherscore.queue_seconds": queue_seconds,
                **{f"cipherscore.{name}": value for name, value in facts.items()},
            },
        )
        batch_id = f"{run.get_span_context().span_id:016x}"
        for span in spans:
            span.set_attribute("cipherscore.batch.id", batch_id)
            span.set_attribute("cipherscore.queue_seconds", queue_seconds)
        run.end(ended)

    def close(self) -> None:
        """Export what is left, for at most `FLUSH_SECONDS`; later spans are dropped."""
        # The SDK's own shutdown waits for a collector that is away; the process must not.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_SECONDS)


def span_name(method: str) -> str:
    """Return the name of the span of a method: ``ModelInfer`` is ``cipherscore.model_infer``."""
    return f"cipherscore.{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', method).lower()}"


def trace_id_of(call: Call) -> str:
    """Return the trace a request belongs to, as 32 hexadecimal digits, or nothing."""
    span: Any = call.span
    if span is not None:
        return f"{span.get_span_context().trace_id:032x}"
    found = parse_traceparent(call.traceparent) if call.traceparent else None
    return f"{found[0]:032x}" if found else ""


def _recording(span: Any) -> bool:
    return span is not None and span.is_recording()
