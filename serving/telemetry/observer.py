"""What the rest of the server tells about its work; counted, logged and traced here."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from serving.call import Call
from serving.settings import Settings
from serving.telemetry import families as f
from serving.telemetry.logs import RequestLog
from serving.telemetry.metrics import CONTENT_TYPE, Metrics
from serving.telemetry.segment import VARIABLE
from serving.telemetry.tracing import Tracer, open_tracer, trace_id_of

logger = logging.getLogger("bentoml.cipherscore")

SAMPLE_SECONDS = 1.0
_ids = random.Random()  # noqa: S311 - an id must be unique, not secret; five times as fast


class Traced(Protocol):
    """Who is to be told about each model run before its requests are answered."""

    def __call__(
        self, calls: Sequence[Call], rows: int, queue_seconds: float, run_seconds: float
    ) -> None:
        """Take the calls that have rows in the run, their mean wait, and how long it took."""


def request_id_of(call: Call) -> str:
    """Return the request's id: the caller's, else one made now; it goes back to the caller."""
    if not call.request_id:
        call.request_id = f"{_ids.getrandbits(128):032x}"
    return call.request_id


class Observer:
    """Counts, logs and traces what one worker does.  Called on the event loop only.

    Args:
        settings: Which requests to log.
        tracer: Makes spans; None for none.
        directory: Where the workers share their counts; empty for a process on its own.
    """

    def __init__(
        self, settings: Settings, tracer: Tracer | None = None, directory: str = ""
    ) -> None:
        self._metrics = Metrics(directory)
        self._tracer = tracer
        self._log = RequestLog(settings.log_requests)
        self._sampler: asyncio.TimerHandle | None = None

    @classmethod
    def of_worker(cls, settings: Settings) -> Observer:
        """Return the observer of a worker, as its environment says."""
        return cls(settings, open_tracer(), os.environ.get(VARIABLE, ""))

    # ---- requests

    def started(self, call: Call) -> None:
        """A request was admitted."""
        self._metrics.started(call.transport)
        if self._tracer is not None:
            self._tracer.start(call)

    def finished(self, call: Call, code: str) -> None:
        """An admitted request was answered.

        Args:
            call: The request.
            code: ok, the code of a `RequestError`, cancelled or internal.
        """
        seconds = time.monotonic() - call.started
        self._metrics.finished(
            call.transport, call.method, code, call.model, call.rows, seconds
        )  # fmt: skip
        if self._tracer is not None:
            self._tracer.end(call, code)
        log = self._log
        if (log.successes or (log.errors and code != f.OK)) and log.due():
            self._write(call, code, seconds)

    def refused(self, transport: str, method: str, code: str, count: int = 1) -> None:
        """Requests were not admitted; one log line tells of all ``count`` of them."""
        self._metrics.refused(transport, method, code, count)
        if self._log.errors and self._log.due():
            fields = {"transport": transport, "method": _method(method), "code": code}
            if count > 1:
                fields["requests"] = str(count)
            self._log.write(logging.INFO, "request refused", fields)

    def _write(self, call: Call, code: str, seconds: float) -> None:
        fields: dict[str, Any] = {
            "request_id": request_id_of(call),
            "transport": call.transport,
            "method": _method(call.method),
            "code": code,
            "client": call.client,
            "rows": call.rows,
            "model": call.model,
            "seconds": round(seconds, 6),
        }
        trace_id = trace_id_of(call)
        if trace_id:
            fields["trace_id"] = trace_id
        level = logging.ERROR if code == f.INTERNAL else logging.INFO
        self._log.write(level, "request", fields)

    # ---- models

    def batch(
        self,
        model: str,
        precision: str,
        requests: int,
        rows: int,
        queue_seconds: float,
        run_seconds: float,
    ) -> None:
        """A model ran; ``queue_seconds`` is the mean wait of its requests."""
        self._metrics.batch(model, precision, requests, rows, queue_seconds, run_seconds)

    def explained(self, model: str, rows: int) -> None:
        """A request of ``rows`` rows was answered with reasons."""
        self._metrics.explained(model, rows)

    def traced(self, model: str, **facts: str) -> Traced | None:
        """Return what is to be told about each run of ``model`` before its requests are answered.

        None if nothing is traced.  ``facts`` are shown with the run: provider, precision.
        """
        if self._tracer is None:
            return None
        tracer = self._tracer
        return partial(_trace_run, tracer, model, facts)

    def serving(self, versions: Iterable[tuple[str, str, str, str, str]]) -> None:
        """Say which versions are live: (kind, model, stage, provider, precision) of each.

        Only models named here get series of their own.
        """
        self._metrics.serving(versions)

    def swap(self, kind: str, model: str, outcome: str) -> None:
        """A version was swapped in (``swapped``), loaded or unloaded, or that ``failed``."""
        self._metrics.swap(kind, outcome)
        level = logging.WARNING if outcome == "failed" else logging.INFO
        fields = {"kind": kind, "model": model, "outcome": outcome}
        logger.log(level, "model versions changed", extra=fields)

    def compared(self, served: str, shadow: str, largest: float, changed: int, rows: int) -> None:
        """A shadow version answered as well.

        Args:
            served: The version whose answer the caller got.
            shadow: The other one.
            largest: Largest difference of a probability; no number if the shadow failed.
            changed: Rows it decides otherwise.
            rows: Rows compared.
        """
        del served
        self._metrics.compared(shadow, largest, changed, rows)

    # ---- the process

    def start(self, queue_rows: Callable[[], int], connections: Callable[[], int]) -> None:
        """Ask once a second how many rows wait and how many connections are open."""
        loop = asyncio.get_running_loop()

        def sample(due: float) -> None:
            now = loop.time()
            self._metrics.sample(queue_rows(), connections(), now - due)
            if self._log.withheld:
                self._metrics.suppressed(self._log.report())
            following = max(due, now) + SAMPLE_SECONDS
            self._sampler = loop.call_at(following, sample, following)

        sample(loop.time())

    def exposition(self) -> tuple[bytes, str]:
        """Return the metrics of all workers in Prometheus' text format, and its content type."""
        return self._metrics.exposition(), CONTENT_TYPE

    def close(self) -> None:
        """Send and write what is held back; takes at most a few seconds."""
        if self._sampler is not None:
            self._sampler.cancel()
        if self._log.withheld:
            self._metrics.suppressed(self._log.report())
        if self._tracer is not None:
            self._tracer.close()


def _trace_run(
    tracer: Tracer,
    model: str,
    facts: dict[str, str],
    calls: Sequence[Call],
    rows: int,
    queue_seconds: float,
    run_seconds: float,
) -> None:
    tracer.run(calls, model, facts, rows, queue_seconds, run_seconds)


def _method(method: str) -> str:
    return method if method in f.METHODS else f.OTHER
