"""Starts a server, checks its answers, measures its points, checks again."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.environments import CannotInstallError
from benchmarks.serving import inprocess, load, machine, paced, payloads, probe, rows, servers
from benchmarks.serving.client_process import ClientError
from benchmarks.serving.load import LoadError
from benchmarks.serving.model import Files
from benchmarks.serving.payloads import Body, Protocol
from benchmarks.serving.probe import Probe, ProbeError
from benchmarks.serving.processes import Running
from benchmarks.serving.results import Measurement, Store
from benchmarks.serving.servers import Ports, Server
from benchmarks.serving.workloads import IDLE_RATE, IN_PROCESS_BATCHES, Point

IN_PROCESS = "in-process"
_ROWS_SEED = 7


@dataclass(frozen=True)
class Plan:
    """How everything is measured.

    Attributes:
        out: Folder of the run.
        server_core: Core of the servers and of the model in process.
        client_core: Core of the clients.
        warmup: Seconds before each measured part.
        start_seconds: How long a server may take to answer its first request.
    """

    out: Path
    server_core: int
    client_core: int
    warmup: float
    start_seconds: float

    @property
    def scratch(self) -> Path:
        """Folder of logs and servers' own files."""
        return self.out / "scratch"


@cache
def body(protocol: Protocol, count: int) -> Body:
    """Return the request of a protocol with ``count`` rows."""
    indices = rows.random_indices(count, _ROWS_SEED)
    return payloads.make(protocol, rows.NAME, rows.vocabulary(), indices)


class Reference:
    """Right answers, from the model in this process."""

    def __init__(self, files: Files, precision: str) -> None:
        self._session = onnxruntime.InferenceSession(
            str(files.onnx(precision)), providers=["CPUExecutionProvider"]
        )
        self._known: dict[int, np.ndarray] = {}

    def __call__(self, count: int) -> np.ndarray:
        """Return the probabilities of `body`'s rows."""
        if count not in self._known:
            feed = {"indices": rows.random_indices(count, _ROWS_SEED)}
            (self._known[count],) = self._session.run(["probability"], feed)
        return self._known[count]


def measure_server(
    server: Server,
    precision: str,
    files: Files,
    points: Sequence[Point],
    turn: int,
    seconds: float,
    plan: Plan,
    store: Store,
) -> None:
    """Measure what is missing of a server's points in a round; failures are kept as such."""
    missing = [p for p in points if not store.has(server.name, precision, p.name, turn)]
    if not missing:
        return
    print(f"round {turn + 1}: {server.name} {precision}", flush=True)
    found = _Session(server, precision, turn, seconds, plan, store, Reference(files, precision))
    foreign = machine.busy()
    start = time.monotonic()
    try:
        with servers.started(server, precision, files, plan.server_core, plan.scratch) as (
            running,
            ports,
        ):
            found.ready(running.process, ports, missing[0])
            facts = {
                "start_seconds": time.monotonic() - start,
                "others_busy_cores": round(foreign, 2),
            }
            for point in missing:
                found.measure(running, ports, point, facts)
    except (ProbeError, CannotInstallError, OSError) as error:
        found.fail(missing, str(error))


@dataclass(frozen=True)
class _Session:
    """One server, running."""

    server: Server
    precision: str
    turn: int
    seconds: float
    plan: Plan
    store: Store
    reference: Reference

    def ready(self, process: subprocess.Popen[bytes], ports: Ports, first: Point) -> None:
        """Wait for the first right answer."""
        probe.await_ready(
            process,
            ports.of(first.protocol),
            body(first.protocol, first.rows),
            self.reference(first.rows),
            probe.TOLERANCE[self.precision],
            self.plan.start_seconds,
        )

    def measure(self, running: Running, ports: Ports, point: Point, facts: dict[str, Any]) -> None:
        """Measure one point between two checked answers."""
        port = ports.of(point.protocol)
        try:
            before = self._ask(port, point)
            cpu = _children_cpu()
            start = time.monotonic()
            if point.kind == "closed":
                value, details = self._closed(running, port, point, before)
            else:
                value, details = self._paced(port, point, before)
            details["client_busy"] = (_children_cpu() - cpu) / (time.monotonic() - start)
            self._ask(port, point)
        except (ProbeError, LoadError, ClientError) as error:
            self.fail([point], str(error))
            return
        details.update(facts, difference=before.difference)
        self._keep(point, value, details)
        print(f"  {point.name}: {value:.6g} {point.unit}", flush=True)

    def fail(self, points: Sequence[Point], reason: str) -> None:
        """Keep why there is no figure."""
        print(f"  {self.server.name} {self.precision}: {reason}", flush=True)
        for point in points:
            self._keep(point, 0.0, {}, reason)

    def _keep(self, point: Point, value: float, details: dict[str, Any], failure: str = "") -> None:
        self.store.add(
            Measurement(
                self.server.name, self.precision, point.name, self.turn, value, point.unit,
                details, failure,
            )
        )  # fmt: skip

    def _ask(self, port: int, point: Point) -> Probe:
        return probe.ask(
            port, body(point.protocol, point.rows), self.reference(point.rows),
            probe.TOLERANCE[self.precision],
        )  # fmt: skip

    def _closed(
        self, running: Running, port: int, point: Point, right: Probe
    ) -> tuple[float, dict[str, Any]]:
        found = load.closed(
            port, body(point.protocol, point.rows), point.shape, seconds=self.seconds,
            warmup=self.plan.warmup, core=self.plan.client_core, answer=right.length,
            server_cpu=running.cpu_seconds,
        )  # fmt: skip
        return found.per_second * point.rows, asdict(found)

    def _paced(self, port: int, point: Point, right: Probe) -> tuple[float, dict[str, Any]]:
        rate = IDLE_RATE
        if point.share:
            peak = self.store.median(f"{self.server.name}/{self.precision}/single-64")
            if peak is None:
                raise ClientError("its peak is not known")
            rate = point.share * peak
        found = paced.paced(
            port, body(point.protocol, point.rows), rate=rate, seconds=self.seconds,
            warmup=self.plan.warmup, connections=point.shape.connections,
            core=self.plan.client_core, answer=right.length,
        )  # fmt: skip
        if found.errors:
            raise ClientError(f"{found.errors} of {found.sent} requests had no right answer")
        return found.p99, asdict(found)


def measure_in_process(
    files: Files, precision: str, turn: int, seconds: float, plan: Plan, store: Store,
    batches: Sequence[int] = IN_PROCESS_BATCHES, prefix: str = "batch",
) -> None:  # fmt: skip
    """Measure the model without a server, on the servers' core."""
    if all(store.has(IN_PROCESS, precision, f"{prefix}-{batch}", turn) for batch in batches):
        return
    print(f"round {turn + 1}: {IN_PROCESS} {precision}", flush=True)
    facts = {"others_busy_cores": round(machine.busy(), 2)}
    found = inprocess.limits(files.onnx(precision), plan.server_core, batches, seconds)
    rates = {f"{prefix}-{batch}": rate for batch, rate in found.items()}
    if prefix == "batch":
        rates["best"] = max(found.values())
    for name, rate in rates.items():
        store.add(Measurement(IN_PROCESS, precision, name, turn, rate, "rows/s", dict(facts)))
        print(f"  {name}: {rate:.6g} rows/s", flush=True)


def _children_cpu() -> float:
    """Return the processor time of clients that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
