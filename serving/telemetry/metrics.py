"""Counting.  The hot path is a dictionary look-up and a few additions in memory."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from serving.telemetry import families as f
from serving.telemetry.families import Family
from serving.telemetry.segment import Numbers, Segment

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_MODELS = 200
"""Versions with series of their own in one worker's life; later ones count as `families.OTHER`."""

_GAUGES = frozenset(family.name for family in f.FAMILIES if family.kind == "gauge")
_MAXIMA = frozenset(family.name for family in f.FAMILIES if family.merge == "max")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LATENCY = f.REQUEST_SECONDS.buckets
_LATENCY_SUM = len(_LATENCY) + 1
_NOWHERE = -1
_Slots: TypeAlias = tuple[int, int, int, int, int, int]
"""Where a request is counted: in flight, outcome, latency, refusal, version, rows."""


class Metrics:
    """What one worker counts.  Not thread-safe: called on the event loop only.

    Args:
        directory: Where workers share their numbers; empty for a process on its own.
    """

    def __init__(self, directory: str = "") -> None:
        self._segment = Segment(directory)
        self._values = self._segment.values
        self._kinds: dict[str, str] = {f.OTHER: f.OTHER}
        self._outcomes: dict[tuple[str, str, str, str], _Slots] = {}
        self._batches: dict[tuple[str, str], tuple[int, int, int, int]] = {}
        self._infos: list[int] = []
        self.in_flight = {
            transport: self._slot(f.IN_FLIGHT, transport) for transport in f.TRANSPORTS
        }
        self._values[self._slot(f.WORKER_STARTS)] = 1
        # So that the first event is a rise from 0, which an alert sees, and not a first value.
        for reason in sorted(f.REFUSALS):
            self._slot(f.REFUSED, reason)
        for kind in f.KINDS:
            for outcome in sorted(f.SWAPS):
                self._slot(f.SWAPS_TOTAL, kind, outcome)

    def _slot(self, family: Family, *labels: str) -> int:
        return self._segment.slots(family.name, labels, family.size)

    # ---- requests

    def started(self, transport: str) -> None:
        """Count a request in."""
        self._values[self.in_flight[transport]] += 1

    def finished(
        self, transport: str, method: str, code: str, model: str, rows: int, seconds: float
    ) -> None:
        """Count an admitted request out.

        Args:
            transport: grpc or http.
            method: Short name; one outside `families.METHODS` counts as other.
            code: Outcome; see `families.CODES`.
            model: Version that answered; empty where there was none.
            rows: Rows asked for; counted if the outcome is ok.
            seconds: Since admission.
        """
        values = self._values
        key = (transport, method, code, model)
        slots = self._outcomes.get(key)
        if slots is None:
            slots = self._outcome(*key)
        flying, requests, latency, refused, served, rowed = slots
        values[flying] -= 1
        values[requests] += 1
        if latency >= 0:
            values[latency + bisect_left(_LATENCY, seconds)] += 1
            values[latency + _LATENCY_SUM] += seconds
        else:
            values[refused] += 1
        if served >= 0:
            values[served] += 1
            if rowed >= 0:
                values[rowed] += rows

    def _outcome(self, transport: str, method: str, code: str, model: str) -> _Slots:
        """Return where such a request is counted; remembered only for known names."""
        method, code = _of(f.METHODS, method), _of(f.CODES, code)
        model = self._known(model) if model else ""
        slots = self._outcomes.get((transport, method, code, model))
        if slots is not None:
            return slots
        self._slot(f.REQUESTS, transport, method, f.INTERNAL)  # so that the first one is a rise
        kind, refused = self._kinds.get(model, ""), code in f.REFUSALS
        slots = self._outcomes[transport, method, code, model] = (
            self.in_flight[transport],
            self._slot(f.REQUESTS, transport, method, code),
            _NOWHERE if refused else self._slot(f.REQUEST_SECONDS, transport, method),
            self._slot(f.REFUSED, code) if refused else _NOWHERE,
            self._slot(f.MODEL_REQUESTS, kind, model, code) if model else _NOWHERE,
            self._slot(f.ROWS, kind, model) if model and code == f.OK else _NOWHERE,
        )
        return slots

    def refused(self, transport: str, method: str, code: str, count: int = 1) -> None:
        """Count requests that were not admitted."""
        labels = (transport, _of(f.METHODS, method), _of(f.CODES, code))
        self._values[self._slot(f.REQUESTS, *labels)] += count
        if code in f.REFUSALS:
            self._values[self._slot(f.REFUSED, code)] += count

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
        """Count one model run; ``queue_seconds`` is the mean wait of its requests."""
        slots = self._batches.get((model, precision))
        if slots is None:
            model = self._known(model)
            slots = (
                self._slot(f.BATCH_ROWS, model),
                self._slot(f.BATCH_REQUESTS, model),
                self._slot(f.QUEUE_SECONDS, model),
                self._slot(f.RUN_SECONDS, model, precision),
            )
            if model != f.OTHER:
                self._batches[model, precision] = slots
        self._observe(f.BATCH_ROWS, slots[0], rows)
        self._observe(f.BATCH_REQUESTS, slots[1], requests)
        self._observe(f.QUEUE_SECONDS, slots[2], queue_seconds)
        self._observe(f.RUN_SECONDS, slots[3], run_seconds)

    def explained(self, model: str, rows: int) -> None:
        """Count rows that were scored with reasons."""
        self._values[self._slot(f.REASON_ROWS, self._known(model))] += rows

    def _observe(self, family: Family, slot: int, value: float) -> None:
        self._values[slot + bisect_left(family.buckets, value)] += 1
        self._values[slot + len(family.buckets) + 1] += value

    def serving(self, versions: Iterable[tuple[str, str, str, str, str]]) -> None:
        """Say which versions are live: (kind, model, stage, provider, precision) of each."""
        for slot in self._infos:
            self._values[slot] = 0
        self._infos.clear()
        for kind, model, stage, provider, precision in versions:
            if len(self._kinds) <= MAX_MODELS:
                self._kinds.setdefault(model, kind)
            labels = (kind, self._known(model), _of(f.STAGES, stage), provider, precision)
            self._infos.append(self._slot(f.MODEL_INFO, *labels))
        for slot in self._infos:
            self._values[slot] = 1

    def _known(self, model: str) -> str:
        return model if model in self._kinds else f.OTHER

    def swap(self, kind: str, outcome: str) -> None:
        """Count a change of the served versions, or a failure to make one."""
        kind = kind if kind in f.KINDS else f.OTHER
        self._values[self._slot(f.SWAPS_TOTAL, kind, _of(f.SWAPS, outcome))] += 1

    def compared(self, shadow: str, largest: float, changed: int, rows: int) -> None:
        """Count a shadow version's answer; a ``largest`` that is no number: it had none."""
        shadow = self._known(shadow)
        if math.isnan(largest):
            self._values[self._slot(f.SHADOW_FAILURES, shadow)] += 1
            return
        self._values[self._slot(f.SHADOW_ROWS, shadow)] += rows
        self._values[self._slot(f.SHADOW_DISAGREEMENTS, shadow)] += changed
        self._observe(f.SHADOW_DIFFERENCE, self._slot(f.SHADOW_DIFFERENCE, shadow), largest)

    # ---- the process

    def sample(self, queue_rows: int, connections: int, loop_delay: float) -> None:
        """Note what is not counted event by event."""
        self._values[self._slot(f.QUEUE_ROWS)] = queue_rows
        self._values[self._slot(f.CONNECTIONS)] = connections
        self._observe(f.LOOP_DELAY, self._slot(f.LOOP_DELAY), max(0.0, loop_delay))

    def suppressed(self, lines: int) -> None:
        """Count request log lines that were not written."""
        self._values[self._slot(f.LOG_SUPPRESSED)] += lines

    def exposition(self) -> bytes:
        """Return the sum over all workers in Prometheus' text format."""
        numbers, processes = self._segment.merged(_GAUGES, _MAXIMA)
        numbers[f.WORKERS.name, ()] = [float(len(processes))]
        numbers[f.MEMORY.name, ()] = [float(sum(map(_resident, processes)))]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(numbers))
        return generate_latest(registry)


class _Snapshot:
    """Numbers as prometheus_client wants them."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        series: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
        for (name, labels), numbers in sorted(self._numbers.items()):
            series.setdefault(name, []).append((labels, numbers))
        for family in f.FAMILIES:
            yield _metric(family, series.get(family.name, []))


def _metric(family: Family, series: list[tuple[tuple[str, ...], list[float]]]) -> Metric:
    name, text, labels = family.name, family.help, family.labels
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for values, numbers in series:
            histogram.add_metric(values, *_cumulative(family, numbers))
        return histogram
    metric = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(
        name, text, labels=labels
    )
    for values, numbers in series:
        # A version that is not served any more has no row, instead of a row with 0.
        if family.merge == "sum" or numbers[0]:
            metric.add_metric(values, numbers[0])
    return metric


def _cumulative(family: Family, numbers: list[float]) -> tuple[list[tuple[str, float]], float]:
    """Return the buckets as Prometheus counts them, each with all lower ones, and the sum."""
    buckets: list[tuple[str, float]] = []
    count = 0.0
    for bound, number in zip((*map(str, family.buckets), "+Inf"), numbers, strict=False):
        count += number
        buckets.append((bound, count))
    return buckets, numbers[-1]


def _of(known: frozenset[str], value: str) -> str:
    return value if value in known else f.OTHER


def _resident(process: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
