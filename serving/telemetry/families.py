"""Every metric this server exports: name, labels, buckets.  docs/observability.md tells the same.

Labels take values from fixed sets or from what the server itself loaded; what a caller sends never
becomes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cipherscore.errors import request_errors

OTHER = "other"
"""Stands for any label value outside its set."""

METHODS = frozenset({
    # cipherscore.v1 and /v1
    "Score", "ScoreStream", "Generate", "GetModel", "Models", "Health", "OpenApi", "Docs",
    # Open Inference Protocol, both transports, under the names of its gRPC methods
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
    "ModelStreamInfer", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
    # standard services, and this package's own page
    "HealthCheck", "HealthList", "HealthWatch", "Reflection", "Metrics",
    OTHER,
})  # fmt: skip
"""Short names of requests."""

OK, CANCELLED, INTERNAL = "ok", "cancelled", "internal"
CODES = frozenset(
    {OK, CANCELLED, INTERNAL, "not-found", "method-not-allowed", "unsupported-media-type", OTHER}
    | set(request_errors())
)
"""Outcomes of requests: ``ok``, the code of a `RequestError`, or one of the few others."""

REFUSALS = frozenset(
    {"unauthenticated", "permission-denied", "rate-limited", "overloaded", "draining"}
)
"""Outcomes that say "not now" or "not you"; no work was done, so they are kept out of latencies."""

TRANSPORTS = ("grpc", "http")
KINDS = ("classifier", "generator")
STAGES = frozenset({"production", "canary", "shadow", "pinned", OTHER})
SWAPS = frozenset({"swapped", "failed", "loaded", "unloaded", OTHER})

Number = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Family:
    """One metric.

    Attributes:
        name: With its prefix.
        kind: What it counts like.
        help: One line.
        labels: Names of its labels.
        buckets: Upper bounds of a histogram's buckets, ascending, without infinity.
        merge: How workers' gauges combine; all else is summed.
    """

    name: str
    kind: Number
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Literal["sum", "max"] = "sum"

    @property
    def size(self) -> int:
        """Numbers of one series: a value, or the buckets, the one without bound, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


def _steps(first: int, last: int) -> tuple[float, ...]:
    """Return 1, 2, 5 of each power of ten from 10**first, up to and with 10**last."""
    found = [float(f"{digit}e{power}") for power in range(first, last) for digit in (1, 2, 5)]
    return (*found, float(f"1e{last}"))


_ROWS = tuple(float(1 << power) for power in range(17))
_BATCH = tuple(float(1 << power) for power in range(11))
_DIFFERENCES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.2, 0.5)

REQUESTS = Family(
    "cipherscore_requests_total", "counter", "Requests by outcome.", ("transport", "method", "code")
)
REQUEST_SECONDS = Family(
    "cipherscore_request_seconds",
    "histogram",
    "Seconds from admission to the end of the answer; refused requests are left out.",
    ("transport", "method"),
    _steps(-4, 1),
)
REFUSED = Family(
    "cipherscore_refused_total", "counter", "Requests refused without work.", ("reason",)
)
IN_FLIGHT = Family(
    "cipherscore_requests_in_flight", "gauge", "Requests being answered.", ("transport",)
)
MODEL_REQUESTS = Family(
    "cipherscore_model_requests_total",
    "counter",
    "Requests by the version that answered.",
    ("kind", "model", "code"),
)
ROWS = Family(
    "cipherscore_rows_total", "counter", "Rows scored or generated.", ("kind", "model")
)  # fmt: skip
REASON_ROWS = Family(
    "cipherscore_reason_rows_total", "counter", "Rows scored with reason codes.", ("model",)
)
BATCH_ROWS = Family(
    "cipherscore_batch_rows", "histogram", "Rows of a model run.", ("model",), _ROWS
)
BATCH_REQUESTS = Family(
    "cipherscore_batch_requests", "histogram", "Requests sharing a model run.", ("model",), _BATCH
)
QUEUE_SECONDS = Family(
    "cipherscore_queue_seconds",
    "histogram",
    "Mean seconds that the requests of a model run had waited.",
    ("model",),
    _steps(-5, 1),
)
RUN_SECONDS = Family(
    "cipherscore_run_seconds",
    "histogram",
    "Seconds of a model run.",
    ("model", "precision"),
    _steps(-5, 1),
)
QUEUE_ROWS = Family("cipherscore_queue_rows", "gauge", "Rows waiting for a model run.")
CONNECTIONS = Family("cipherscore_connections", "gauge", "Open gRPC connections.")
LOOP_DELAY = Family(
    "cipherscore_loop_delay_seconds",
    "histogram",
    "How late the event loop ran a timer, once a second.",
    (),
    _steps(-4, 1),
)
MODEL_INFO = Family(
    "cipherscore_model_info",
    "gauge",
    "1 for each version being served.",
    ("kind", "model", "stage", "provider", "precision"),
    merge="max",
)
SWAPS_TOTAL = Family(
    "cipherscore_swap_total", "counter", "Changes of the served versions.", ("kind", "outcome")
)
SHADOW_ROWS = Family(
    "cipherscore_shadow_rows_total", "counter", "Rows a shadow version scored too.", ("shadow",)
)
SHADOW_DISAGREEMENTS = Family(
    "cipherscore_shadow_disagreements_total",
    "counter",
    "Rows for which a shadow version decides otherwise.",
    ("shadow",),
)
SHADOW_FAILURES = Family(
    "cipherscore_shadow_failures_total",
    "counter",
    "Requests a shadow version could not answer.",
    ("shadow",),
)
SHADOW_DIFFERENCE = Family(
    "cipherscore_shadow_difference",
    "histogram",
    "Largest difference of a probability within a request.",
    ("shadow",),
    _DIFFERENCES,
)
LOG_SUPPRESSED = Family(
    "cipherscore_log_lines_suppressed_total", "counter", "Request log lines over the rate limit."
)
WORKER_STARTS = Family(
    "cipherscore_worker_starts_total", "counter", "Workers started, replacements included."
)
WORKERS = Family("cipherscore_workers", "gauge", "Workers running.")
MEMORY = Family(
    "cipherscore_resident_memory_bytes", "gauge", "Resident memory of all running workers."
)

FAMILIES = (
    REQUESTS, REQUEST_SECONDS, REFUSED, IN_FLIGHT, MODEL_REQUESTS, ROWS, REASON_ROWS, BATCH_ROWS,
    BATCH_REQUESTS, QUEUE_SECONDS, RUN_SECONDS, QUEUE_ROWS, CONNECTIONS, LOOP_DELAY, MODEL_INFO,
    SWAPS_TOTAL, SHADOW_ROWS, SHADOW_DISAGREEMENTS, SHADOW_FAILURES, SHADOW_DIFFERENCE,
    LOG_SUPPRESSED, WORKER_STARTS, WORKERS, MEMORY,
)  # fmt: skip
