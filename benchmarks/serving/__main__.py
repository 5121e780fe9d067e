"""CipherScore and its peers, side by side.

    .venv/bin/python -m benchmarks.serving --out var/benchmarks/serving

Every server does the same work: twenty tokens a row, looked up in the model's vocabulary, then the
capstone's network of 0.94 M parameters on ONNX Runtime with one thread (the Flask peer: on torch).
The server runs on one core, the client on another; rounds are interleaved.  Writes ``result.json``
and ``result.md``; a run that was interrupted goes on where it was when called again with the same
``--out``.  The goals are checked by ``python -m benchmarks.serving.check result.json``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import environments
from benchmarks.serving import machine, measure, model, report, servers, workloads
from benchmarks.serving.measure import Plan
from benchmarks.serving.model import Files
from benchmarks.serving.results import Store
from benchmarks.serving.servers import Server

_IN_PROCESS_SHARE = 0.5
"""Seconds of a batch size in process, as a share of a point's."""
_TOOLS = ("h2load", "taskset", "setpriv")
_QUICK = 0.7
"""Seconds of a point with ``--quick``."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for the results; an old run there goes on.")],
    only: Annotated[str, typer.Option(help="Servers to measure, by comma; default: all.")] = "",
    precisions: Annotated[str, typer.Option(help="Precisions.")] = "fp32,int8",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 3,
    other_rounds: Annotated[
        int, typer.Option(min=0, help="Rounds of servers that no goal names; 0: all.")
    ] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds of each point.")] = 2.5,
    other_seconds: Annotated[
        float, typer.Option(help="The same, of servers that no goal names.")
    ] = 1.5,
    warmup: Annotated[float, typer.Option(help="Seconds before each point.")] = 0.4,
    connections: Annotated[int, typer.Option(min=1, help="Most of a gRPC client.")] = 8,
    server_core: Annotated[int, typer.Option(help="Core of the servers.")] = 0,
    client_core: Annotated[int, typer.Option(help="Core of the clients.")] = 1,
    start_seconds: Annotated[float, typer.Option(help="A server's time to become ready.")] = 90.0,
    growth: Annotated[bool, typer.Option(help="Cost by rows, batch size and width.")] = True,
    quick: Annotated[bool, typer.Option(help="One short round, to see that it works.")] = False,
) -> None:
    """Measure, and write the report."""
    if lacking := [tool for tool in _TOOLS if not shutil.which(tool)]:
        raise typer.BadParameter(f"{', '.join(lacking)} needed (nghttp2, util-linux)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if quick:
        rounds, seconds, other_seconds, warmup = 1, _QUICK, _QUICK, 0.2
    names = only.split(",") if only else list(servers.BY_NAME)
    if unknown := [name for name in names if name not in servers.BY_NAME]:
        raise typer.BadParameter(f"{unknown} unknown; there are {', '.join(servers.BY_NAME)}")
    out.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, {client_core})
    plan = Plan(out, server_core, client_core, warmup, start_seconds)
    plan.scratch.mkdir(exist_ok=True)
    store = Store(out / "measurements.jsonl")
    chosen = precisions.split(",")
    ready, skipped = _installed([servers.BY_NAME[name] for name in names])
    facts = {
        "machine": machine.facts(server_core, client_core),
        "settings": {
            "rounds": rounds, "other_rounds": other_rounds, "seconds": seconds,
            "other_seconds": other_seconds, "warmup": warmup, "connections": connections,
        },
        "skipped": skipped,
    }  # fmt: skip
    files = model.make(out / "model")
    try:
        for turn in range(rounds):
            for server, precision in _order(ready, chosen, turn, rounds):
                if server is None:
                    length = seconds * _IN_PROCESS_SHARE
                    measure.measure_in_process(files, precision, turn, length, plan, store)
                    continue
                goal = server.name in workloads.GOAL_SERVERS
                if not goal and other_rounds and turn >= other_rounds:
                    continue
                points = workloads.points(
                    server, precision, connections, first_round=growth and turn == 0
                )
                length = seconds if goal else other_seconds
                measure.measure_server(server, precision, files, points, turn, length, plan, store)
        if growth:
            _growth(files, chosen, ready, seconds, connections, plan, store)
    finally:
        report.write(out, facts, store.measurements)


def _installed(wanted: Sequence[Server]) -> tuple[list[Server], dict[str, str]]:
    """Return the servers that can run, and why others cannot; all are installed before a figure."""
    ready, skipped = [], {}
    for server in wanted:
        try:
            servers.python(server)
        except environments.CannotInstallError as error:
            skipped[server.name] = str(error)
            print(f"{server.name}: skipped: {error}", flush=True)
        else:
            ready.append(server)
    return ready, skipped


def _order(
    ready: Sequence[Server], precisions: Sequence[str], turn: int, rounds: int
) -> list[tuple[Server | None, str]]:
    """Return what is measured in a round, begun elsewhere in each so that drift is shared.

    None is the model in process.  What is compared runs close together: servers of one precision,
    and the model in process after the first of them, which is ours.
    """
    found: list[tuple[Server | None, str]] = []
    for precision in precisions:
        same: list[tuple[Server | None, str]] = [
            (server, precision) for server in ready if precision in server.precisions
        ]
        found += [*same[:1], (None, precision), *same[1:]]
    start = turn * len(found) // rounds
    return found[start:] + found[:start]


def _growth(
    files: Files, precisions: Sequence[str], ready: Sequence[Server], seconds: float,
    connections: int, plan: Plan, store: Store,
) -> None:  # fmt: skip
    """Measure cost by batch size and by width of the hidden layers; rows are in the first round."""
    length = seconds * _IN_PROCESS_SHARE
    for precision in precisions:
        measure.measure_in_process(
            files, precision, 0, length, plan, store, workloads.GROWTH_BATCHES, "growth-batch"
        )
    own = servers.BY_NAME["ours-native"]
    if own not in ready:
        return
    for width in workloads.GROWTH_WIDTHS:
        scaled = model.make(plan.out / f"model-{width:g}", width)
        prefix = f"growth-width-{width:g}"
        measure.measure_in_process(scaled, "fp32", 0, length, plan, store, (1, 1024), prefix)
        points = workloads.width_points(own, prefix, connections)
        measure.measure_server(own, "fp32", scaled, points, 0, length, plan, store)


if __name__ == "__main__":
    typer.run(main)
