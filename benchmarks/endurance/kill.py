"""Workers killed at any time: what does it cost, and how soon is there another?"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.endurance.clients import Client, Failure, Json, Ledger, Scoring, traffic
from benchmarks.endurance.host import Host, serving, total
from benchmarks.endurance.results import Result, say

if TYPE_CHECKING:
    from benchmarks.endurance.questions import Questions
    from benchmarks.serving.model import Files

WORKERS = 2
CLIENTS = 4
"""Of each kind."""
REPLACED_SECONDS = 60.0
_FRESH = 50
_NOTICE_SECONDS = 0.25
"""A request sent so soon after the worker has gone may still use a connection whose end the client
has not seen yet."""
_RETRYING = "grpc-retry"


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        at: `time.monotonic`.
        gone: Seconds until the kernel had closed its sockets.
        replaced: Seconds until another worker served.
        failures: Requests that it cost.
        late: Those among them that were sent after it, to a connection that had ended.
    """

    at: float
    gone: float
    replaced: float
    failures: int
    late: int


@dataclass
class _Counters:
    """Watches that no counter ever falls."""

    host: Host
    falls: list[str] = field(default_factory=list)
    looks: int = 0
    last: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Compare with the last look."""
        try:
            found = self.host.counters()
        except OSError:
            return  # the worker that was asked has just been killed
        self.looks += 1
        for series, value in self.last.items():
            if found.get(series, 0.0) < value:
                self.falls.append(f"{series} from {value:g} to {found.get(series, 0.0):g}")
        self.last = found

    def watch(self, stop: threading.Event) -> None:
        """Look again and again."""
        while not stop.wait(0.25):
            self.look()


def run(
    files: Files, asked: Questions, scratch: Path, kills: int, server_core: int,
    clients: int = CLIENTS, **settings: object,
) -> Result:  # fmt: skip
    """Kill workers under load."""
    result = Result("kill")
    settings = {"workers": WORKERS, "threads": 1, **settings}
    with serving(files, server_core, scratch, **settings) as host:
        counters, stop = _Counters(host), threading.Event()
        watcher = threading.Thread(target=counters.watch, args=(stop,))
        watcher.start()
        try:
            with traffic(_clients(host, asked, clients)) as ledger:
                time.sleep(1.0)
                found = [_kill(host) for _ in range(kills)]
                time.sleep(1.0)
        finally:
            stop.set()
            watcher.join()
        counters.look()
        _judge(result, found, ledger, counters, clients)
    return result


def _clients(host: Host, asked: Questions, count: int) -> list[Client]:
    # Connections are made anew every few requests, so that each worker gets its share.
    kinds = [
        Client("grpc", lambda: Scoring(host.grpc), asked.small, fresh=_FRESH),
        Client(_RETRYING, lambda: Scoring(host.grpc, retry=True), asked.small, fresh=_FRESH),
        Client("http", lambda: Json(host.http), asked.small, fresh=_FRESH),
    ]
    return kinds * count


def _kill(host: Host) -> Kill:
    """Kill a worker at a random moment."""
    time.sleep(random.uniform(0.2, 1.5))  # noqa: S311 - no secret
    before, bound = host.workers(), host.bound()
    victim = random.choice(sorted(before))  # noqa: S311
    at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while victim in host.workers():  # until then its sockets still take connections
        time.sleep(0.002)
    gone = time.monotonic() - at
    while host.bound() == bound or len(host.workers()) < len(before):
        if time.monotonic() > at + REPLACED_SECONDS:
            break
        time.sleep(0.05)
    replaced = time.monotonic() - at
    say(f"killed worker {victim}, gone after {gone:.3f} s; another served after {replaced:.1f} s")
    return Kill(at, gone, replaced, 0, 0)


def _judge(
    result: Result, moments: Sequence[Kill], ledger: Ledger, counters: _Counters,
    clients: int,
) -> None:  # fmt: skip
    failures = [f for f in ledger.failures if f.status != "wrong"]
    kills, stray = _assigned(moments, failures)
    missing = _missing(ledger, counters.last)
    result.figures = {
        "kills": [asdict(kill) for kill in kills],
        "right": dict(ledger.right),
        "failures": ledger.kinds(),
        "stray": [asdict(failure) for failure in stray],
        "looks_at_counters": counters.looks,
        "falls": counters.falls,
        "missing": dict(missing),
    }
    for failure in stray:
        since = min((failure.begun - kill.at for kill in moments), key=abs, default=0.0)
        told = f"{failure.client} {failure.status} {failure.code}"
        say(f"not explained: {told}, begun {since:.3f} s from a kill")
    say(f"{sum(ledger.right.values())} right answers, failures: {ledger.kinds() or 'none'}")
    result.checks["no answer was wrong"] = not ledger.wrong()
    result.checks["every killed worker was replaced"] = all(
        kill.replaced < REPLACED_SECONDS for kill in kills
    )
    result.checks["only requests under way to the killed worker failed"] = not stray
    most = max((kill.failures for kill in kills), default=0)
    result.checks[f"at most {most} failed at once, one a connection"] = most <= 3 * clients
    retrying = [f for f in failures if f.client == _RETRYING]
    result.checks[f"{len(retrying)} failed of a client that asks again"] = not retrying
    result.checks[f"no counter fell in {counters.looks} looks"] = not counters.falls
    result.checks["no answered request is missing in the counters"] = not missing


def _assigned(
    moments: Sequence[Kill], failures: Sequence[Failure]
) -> tuple[list[Kill], list[Failure]]:
    """Return what each kill cost, and the failures that no kill explains."""
    costs: list[list[Failure]] = [[] for _ in moments]
    stray = []
    for failure in failures:
        for position, kill in enumerate(moments):
            last = kill.at + kill.gone + _NOTICE_SECONDS
            if failure.begun <= last and failure.ended >= kill.at:
                costs[position].append(failure)
                break
        else:
            stray.append(failure)
    kills = [
        replace(kill, failures=len(cost), late=sum(failure.begun > kill.at for failure in cost))
        for kill, cost in zip(moments, costs, strict=True)
    ]
    return kills, stray


def _missing(ledger: Ledger, counted: dict[str, float]) -> Counter[str]:
    """Return how many right answers the server did not count, by transport."""
    answered = Counter[str]()
    for kind, number in ledger.right.items():
        answered["http" if kind == "http" else "grpc"] += number
    found = Counter[str]()
    for transport, number in answered.items():
        told = total(
            counted, "cipherscore_requests_total", transport=transport, method="Score", code="ok"
        )
        if told < number:
            found[transport] = number - round(told)
    return found
