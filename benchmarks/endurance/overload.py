"""More load than the server can do: who is refused, how quickly, and how are the others served?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.endurance import openloop, questions, target
from benchmarks.endurance.host import Host, serving, total
from benchmarks.endurance.openloop import OpenLoop
from benchmarks.endurance.results import Result, ms, say
from benchmarks.endurance.target import Target
from benchmarks.serving.load import Shape
from benchmarks.serving.payloads import Protocol

FACTORS = (1.0, 1.5, 2.0, 4.0)
WORST_SECONDS = 0.05
"""p99 of accepted requests that is fine in any case ..."""
WORST_RATIO = 5.0
"""... as is this many times the p99 at half load."""
GOODPUT = 0.7
"""Share of the peak that must be answered while more is asked for.  Refusing costs, too: a tenth of
what answering does, and the peak is that of fewer connections."""
_JUDGED = 2.0
"""Factor that the goals are about."""


@dataclass(frozen=True)
class Scenario:
    """A form of load.

    Attributes:
        name: In the results.
        protocol: Form of the requests.
        rows: Rows of each.
        closed: Concurrency at which the peak is measured.
        connections: Of the overload.
        settings: Of the server.
    """

    name: str
    protocol: Protocol
    rows: int
    closed: Shape
    connections: int
    settings: Mapping[str, object] = field(default_factory=dict)


SCENARIOS = (
    Scenario("grpc", "oip", 1, Shape(16, 8), 64),
    # Here the model is what there is too little of, and an operator says how long to wait for it.
    Scenario("grpc-rows-16", "oip", 16, Shape(16, 2), 64, {"max_queue_seconds": 0.03}),
    Scenario("http", "json", 1, Shape(64, 1), 400),
)


def run(
    out: Path, server_core: int, client_core: int, seconds: float = 10.0,
    factors: Sequence[float] = FACTORS, scenarios: Sequence[Scenario] = SCENARIOS,
) -> Result:  # fmt: skip
    """Measure all scenarios."""
    files = questions.models(out / "model")
    result = Result("overload")
    for scenario in scenarios:
        with serving(files, server_core, out / "scratch", **scenario.settings) as host:
            aim = target.of(host, files, scenario.protocol, scenario.rows)
            result.figures[scenario.name] = _measure(
                host, aim, scenario, factors, seconds, client_core, result
            )
    return result


def _measure(
    host: Host, aim: Target, scenario: Scenario, factors: Sequence[float], seconds: float,
    core: int, result: Result,
) -> dict[str, Any]:  # fmt: skip
    peak = aim.peak(scenario.closed, min(seconds, 5.0), core)
    say(f"{scenario.name}: peak {peak:.0f} requests/s in a closed loop of {scenario.closed}")

    def at(factor: float, length: float) -> OpenLoop:
        found = openloop.open_loop(
            aim.port, aim.body, rate=factor * peak, seconds=length, warmup=2.0,
            connections=scenario.connections, core=core, answer=aim.answer,
        )  # fmt: skip
        say(line(scenario.name, factor, peak, found))
        return found

    before = at(0.5, seconds)
    levels = {}
    for factor in factors:
        counted = _refused(host)
        found = at(factor, seconds)
        after = at(0.5, max(2.0, seconds / 3))
        refused = _refused(host) - counted
        levels[f"{factor:g}"] = {**asdict(found), "after": asdict(after), "counted": refused}
        _judge(result, scenario, factor, peak, before, found, after)
    return {"peak": peak, "half": asdict(before), "levels": levels}


def _refused(host: Host) -> float:
    """Return how many requests the server says it refused as too much."""
    return total(host.counters(), "cipherscore_requests_total", code="overloaded")


def _judge(
    result: Result, scenario: Scenario, factor: float, peak: float, before: OpenLoop,
    found: OpenLoop, after: OpenLoop,
) -> None:  # fmt: skip
    name = f"{scenario.name} at {factor:g}x"
    result.checks[f"{name}: every request was answered or refused"] = not (
        found.failed or found.unanswered
    )
    result.checks[f"{name}: as before afterwards"] = not (
        after.failed or after.unanswered or after.shed or after.abandoned
    )
    if factor != _JUDGED:
        return
    worst = max(WORST_SECONDS, WORST_RATIO * before.since_sent.p99)
    p99 = found.since_sent.p99
    result.checks[f"{name}: p99 of the accepted {ms(p99)} ms, at most {ms(worst)}"] = p99 <= worst
    share = found.goodput / peak
    result.checks[f"{name}: {share:.0%} of the peak answered, at least {GOODPUT:.0%}"] = (
        share >= GOODPUT
    )
    # Over HTTP/1.1 a connection has one request under way; what is due waits in the client.
    due = found.offered if scenario.protocol != "json" else found.wanted
    result.checks[f"{name}: the client asked for {due / peak:.2f}x"] = due >= 0.9 * factor * peak


def line(name: str, factor: float, peak: float, found: OpenLoop) -> str:
    """Return a level's figures as one line."""
    return (
        f"{name} {factor:g}x: offered {found.offered:.0f}/s ({found.offered / peak:.2f}x), "
        f"answered {found.goodput:.0f}/s ({found.goodput / peak:.0%} of the peak), "
        f"refused {found.shed:.0f}/s, failed {found.failed}, not sent {found.abandoned}, "
        f"unanswered {found.unanswered}; accepted p50 {ms(found.since_sent.p50)} "
        f"p99 {ms(found.since_sent.p99)} ms (since due {ms(found.since_due.p99)}), "
        f"refused p50 {ms(found.refusal.p50)} p99 {ms(found.refusal.p99)} ms, "
        f"client late p99 {ms(found.lag.p99)} ms"
    )
