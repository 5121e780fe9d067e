"""Load for a long time: does memory stay, do answers stay right and quick?"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.endurance import questions, steady, target
from benchmarks.endurance.clients import Client, Generating, Json, Scoring, Streaming, traffic
from benchmarks.endurance.host import Host, Usage, serving, usage
from benchmarks.endurance.questions import Questions
from benchmarks.endurance.results import Result, mib, ms, say
from benchmarks.serving.load import Shape

SHARE = 0.5
GROWTH_BYTES = 8 << 20
"""Growth of a process that still counts as none: allocators keep what they once had."""
DRIFT = 2.0
"""Times by which the p99 of the last minutes may exceed that of the first."""
_SETTLED = 3
"""Minutes, or slices, that do not count: caches and pools fill up."""
_SAMPLE_SECONDS = 2.0
_CONNECTIONS, _STREAMS = 8, 32
_SLICES = 20


@dataclass(frozen=True)
class Sample:
    """What the server's processes took in a slice of time.

    Attributes:
        worker: The median sample of the worker that takes most.
        parent: The last sample of the parent.
    """

    worker: Usage
    parent: Usage


class _Sampler(threading.Thread):
    """Looks at the processes every few seconds."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self._host = host
        self._ended = threading.Event()
        self._workers: list[Usage] = []

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._workers.append(_largest(self._host))

    def take(self) -> Sample:
        """Return the samples since this was last called, as one."""
        found, self._workers = self._workers or [_largest(self._host)], []
        found.sort(key=lambda one: one.pss)
        return Sample(found[len(found) // 2], usage(self._host.process.pid))

    def end(self) -> None:
        """Stop."""
        self._ended.set()
        self.join()


def _largest(host: Host) -> Usage:
    return max((usage(pid) for pid in host.workers()), key=lambda one: one.pss)


@contextmanager
def _sampling(host: Host) -> Iterator[_Sampler]:
    sampler = _Sampler(host)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.end()


def trickle(host: Host, asked: Questions) -> list[Client]:
    """Return clients that ask a little of everything."""
    digests: set[str] = set()
    return [
        Client("http", lambda: Json(host.http), asked.small, pause=0.1, fresh=500),
        Client("grpc", lambda: Scoring(host.grpc), asked.small, pause=0.1, fresh=500),
        Client("rows-1000", lambda: Scoring(host.grpc), asked.large, pause=1.0),
        Client("stream", lambda: Streaming(host.grpc), asked.small, pause=0.2, fresh=100),
        Client(
            "generate", lambda: Generating(host.grpc, asked, digests), asked.small[:1], pause=5.0
        ),
    ]


def soak(
    out: Path, minutes: int, server_core: int, client_core: int, minute_seconds: float = 60.0
) -> Result:
    """Ask for half of what the server can do, for ``minutes`` minutes."""
    files = questions.models(out / "model")
    asked = questions.make(files)
    result = Result("soak")
    with serving(files, server_core, out / "scratch") as host:
        aim = target.of(host, files, "oip")
        peak = aim.peak(Shape(8, 8), 3.0, client_core)
        rate = SHARE * peak
        say(f"peak {peak:.0f} requests/s; soaking at {rate:.0f}/s for {minutes} min")
        found: list[dict[str, Any]] = []
        with traffic(trickle(host, asked)) as ledger, _sampling(host) as sampler:
            for minute in range(minutes):
                part = steady.run(
                    aim.port, aim.body, requests=round(rate * minute_seconds), rate=rate,
                    connections=_CONNECTIONS, streams=_STREAMS, core=client_core,
                    answer=aim.answer,
                )  # fmt: skip
                found.append(_told(minute + 1, part, sampler.take(), ledger.take_times()))
                say(_line(found[-1]))
        result.figures = {
            "peak": peak, "rate": rate, "minutes": found, "right": dict(ledger.right),
            "failures": ledger.kinds(), "counters": _outcomes(host),
        }  # fmt: skip
        errors = [minute["error"] for minute in found if minute["error"]]
        result.checks["every answer was right"] = not errors and not ledger.failures
        _judge(result, found, rate)
    return result


def million(out: Path, requests: int, server_core: int, client_core: int) -> Result:
    """Send a number of requests as fast as they are answered."""
    files = questions.models(out / "model")
    result = Result("million")
    with serving(files, server_core, out / "scratch") as host:
        aim = target.of(host, files, "oip")
        found = []
        with _sampling(host) as sampler:
            for number in range(_SLICES):
                part = steady.run(
                    aim.port, aim.body, requests=-(-requests // _SLICES), rate=0.0,
                    connections=_CONNECTIONS, streams=8, core=client_core, answer=aim.answer,
                )  # fmt: skip
                found.append(_told(number + 1, part, sampler.take(), {}))
                say(_line(found[-1]))
        result.figures = {"requests": requests, "minutes": found, "counters": _outcomes(host)}
        errors = [part["error"] for part in found if part["error"]]
        result.checks["every answer was right"] = not errors
        answered = sum(part["requests"] for part in found)
        result.checks[f"at least {requests} requests were answered"] = answered >= requests
        _judge_memory(result, found)
    return result


def _told(
    number: int, part: steady.Slice, sample: Sample, times: dict[str, list[float]]
) -> dict[str, Any]:
    clients = {
        kind: {
            "requests": len(seconds),
            "p50": float(np.quantile(seconds, 0.5)),
            "p99": float(np.quantile(seconds, 0.99)),
        }
        for kind, seconds in times.items()
    }
    return {
        "number": number, **asdict(part), "worker": asdict(sample.worker),
        "parent": asdict(sample.parent), "clients": clients,
    }  # fmt: skip


def _line(part: dict[str, Any]) -> str:
    worker, parent = part["worker"], part["parent"]
    return (
        f"{part['number']:3} {part['requests']:8} requests, p50 {ms(part['p50'])} "
        f"p99 {ms(part['p99'])} ms; worker {mib(worker['rss'])} MiB (PSS {mib(worker['pss'])}), "
        f"{worker['files']} files, {worker['threads']} threads; parent {mib(parent['rss'])} MiB, "
        f"{parent['files']} files{' ERROR ' + part['error'] if part['error'] else ''}"
    )


def _judge(result: Result, found: Sequence[dict[str, Any]], rate: float) -> None:
    _judge_memory(result, found)
    settled = found[min(_SETTLED - 1, len(found) - 1) :]
    third = max(1, len(settled) // 3)
    first, last = (
        statistics.median(minute["p99"] for minute in part)
        for part in (settled[:third], settled[-third:])
    )
    result.figures["p99_first"], result.figures["p99_last"] = first, last
    result.checks[f"p99 drifted from {ms(first)} to {ms(last)} ms, at most {DRIFT:g}x"] = (
        last <= DRIFT * first
    )
    slow = [minute for minute in found if minute["per_second"] < 0.95 * rate]
    result.checks["the load was answered at the rate it was asked for"] = not slow


def _judge_memory(result: Result, found: Sequence[dict[str, Any]]) -> None:
    settled = found[min(_SETTLED - 1, len(found) - 1) :]
    for process in ("worker", "parent"):
        growth = settled[-1][process]["pss"] - settled[0][process]["pss"]
        files = settled[-1][process]["files"] - settled[0][process]["files"]
        result.figures[f"{process}_growth"] = growth
        result.figures[f"{process}_files_growth"] = files
        result.checks[
            f"the {process} grew by {mib(growth)} MiB and {files} files since slice {_SETTLED}"
        ] = growth <= GROWTH_BYTES and files <= 3 * _CONNECTIONS


def _outcomes(host: Host) -> dict[str, float]:
    return {
        series: value
        for series, value in host.counters().items()
        if series.startswith("cipherscore_requests_total") and value
    }
