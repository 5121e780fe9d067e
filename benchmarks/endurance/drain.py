"""Servers told to end under load: is anything lost that they had taken?"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.endurance.clients import (
    Client,
    Failure,
    Generating,
    Json,
    Ledger,
    Scoring,
    Streaming,
    channel,
    traffic,
)
from benchmarks.endurance.host import Host, serving
from benchmarks.endurance.results import Result, say

if TYPE_CHECKING:
    from benchmarks.endurance.questions import Questions
    from benchmarks.serving.model import Files

DRAIN_SECONDS = 10.0
CLIENTS = 3
"""Of each kind."""
_FRESH = 20
_OK = "ok"
_REFUSALS = {"UNAVAILABLE", "refused", "closed", "http-503"}
"""How a request may fail that the server never took."""
_METHODS = {"Score", "Generate"}


@dataclass
class Drained:
    """One server's end.

    Attributes:
        code: Exit code.
        seconds: From SIGTERM to the end.
        right: Right answers by client.
        refused: Failures by client and status.
        lost: Requests the server had taken, by its own log, that got no right answer.
        odd: Failures that are no refusals.
        uncounted: Answers that the server says it gave and no client got.
        watch: What an open health watch was told.
    """

    code: int
    seconds: float
    right: dict[str, int]
    refused: dict[str, int]
    lost: list[dict[str, Any]]
    odd: list[dict[str, Any]]
    uncounted: int
    watch: list[int]


def run(
    files: Files, asked: Questions, scratch: Path, times: int, server_core: int,
    clients: int = CLIENTS, **settings: object,
) -> Result:  # fmt: skip
    """Start a server, load it, end it; again and again."""
    result = Result("drain")
    settings = {"drain_seconds": DRAIN_SECONDS, "log_requests": "all", "threads": 1, **settings}
    found = []
    for number in range(times):
        found.append(_once(files, asked, scratch, server_core, clients, settings))
        last = found[-1]
        say(
            f"{number + 1}: exit code {last.code} after {last.seconds:.2f} s; right "
            f"{sum(last.right.values())}, refused {last.refused}, lost {len(last.lost)}, "
            f"odd {len(last.odd)}, not received {last.uncounted}, watch {last.watch}"
        )
    drain = float(str(settings["drain_seconds"]))
    result.figures = {"drains": [asdict(one) for one in found]}
    result.checks["no request that was taken was lost"] = not any(
        one.lost or one.uncounted for one in found
    )
    result.checks["every other one was refused as one that was not taken"] = not any(
        one.odd for one in found
    )
    result.checks["the exit code was 0"] = all(one.code == 0 for one in found)
    slowest = max(one.seconds for one in found)
    result.checks[f"the slowest took {slowest:.1f} s, less than {drain:g}"] = slowest < drain
    serving_, ended = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    result.checks["a health watch was told"] = all(one.watch == [serving_, ended] for one in found)
    return result


def _once(
    files: Files, asked: Questions, scratch: Path, core: int, clients: int,
    settings: dict[str, object],
) -> Drained:  # fmt: skip
    with serving(files, core, scratch, **settings) as host:
        with _watch(host) as states, traffic(_clients(host, asked, clients)) as ledger:
            time.sleep(random.uniform(1.0, 2.0))  # noqa: S311 - no secret
            code, seconds = host.terminate()
            time.sleep(0.2)
        return _found(host.log, ledger, code, seconds, states)


def _clients(host: Host, asked: Questions, count: int) -> list[Client]:
    digests: set[str] = set()
    kinds = [
        Client("grpc", lambda: Scoring(host.grpc), asked.small, pause=0.01),
        Client("grpc-fresh", lambda: Scoring(host.grpc), asked.small, pause=0.01, fresh=_FRESH),
        Client("http", lambda: Json(host.http), asked.small, pause=0.01),
        Client("http-fresh", lambda: Json(host.http), asked.small, pause=0.01, fresh=1),
    ]
    return [
        *kinds * count,
        Client("stream", lambda: Streaming(host.grpc), asked.small, pause=0.01),
        Client("generate", lambda: Generating(host.grpc, asked, digests), asked.small[:1]),
    ]


@contextmanager
def _watch(host: Host) -> Iterator[list[int]]:
    """Keep a health watch open; yields what it is told."""
    states: list[int] = []
    opened = channel(host.grpc)

    def watch() -> None:
        try:
            stub = health_pb2_grpc.HealthStub(opened)
            answers = stub.Watch(health_pb2.HealthCheckRequest(service=""))
            states.extend(answer.status for answer in answers)
        except grpc.RpcError:
            pass

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield states
    finally:
        opened.close()
        thread.join(10)


def _found(log: Path, ledger: Ledger, code: int, seconds: float, states: list[int]) -> Drained:
    taken = _taken(log)
    # Streams count once in the server's log, so they are judged by their failures alone.
    answered = Counter({kind: number for kind, number in ledger.right.items() if kind != "stream"})
    told = sum(1 for line in taken.values() if line["code"] == _OK)
    failures = [f for f in ledger.failures if f.client != "stream"]
    broken = [f for f in ledger.failures if f.client == "stream" and f.status not in _STREAM_ENDS]
    lost = [asdict(f) for f in failures if f.request_id in taken and not _was_refused(f)]
    return Drained(
        code=code,
        seconds=seconds,
        right=dict(ledger.right),
        refused=ledger.kinds(),
        lost=lost,
        odd=[asdict(f) for f in [*failures, *broken] if f.status not in _REFUSALS],
        uncounted=told - answered.total(),
        watch=list(states),
    )


_STREAM_ENDS = {"UNAVAILABLE", "ended"}


def _was_refused(failure: Failure) -> bool:
    """Return whether the server took the request only to say that it is ending."""
    return failure.code == "draining"


def _taken(log: Path) -> dict[str, dict[str, Any]]:
    """Return the server's lines about requests that it took, by their id."""
    found = {}
    for text in log.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line.get("message") == "request" and line.get("method") in _METHODS:
            found[line["request_id"]] = line
        elif "suppressed" in line:
            raise RuntimeError("the server left lines out; ask less of it")
    return found
