"""``result.json`` and ``result.md``: medians, spreads, machine, versions, goals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.serving import check, machine, workloads
from benchmarks.serving.results import Measurement, failures, summary
from benchmarks.serving.servers import BY_NAME, PEERS, SERVERS, Server

_NONE = "-"
_BUSY = 0.25
"""Cores' worth of other work from which the report warns."""
_CLIENT_LIMIT = 0.95
Points = Mapping[str, Mapping[str, Any]]


def write(out: Path, facts: Mapping[str, Any], measurements: list[Measurement]) -> None:
    """Write both files."""
    points = summary(measurements)
    failed = [
        {"figure": m.key, "round": m.round, "reason": m.failure} for m in failures(measurements)
    ]
    measured = {key.split("/")[0] for key in points}
    versions = {s.name: _versions(s) for s in SERVERS if s.name in measured}
    result = {**facts, "versions": versions, "points": points, "failures": failed}
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "result.md").write_text(markdown(result))
    print(f"written: {out / 'result.json'} and {out / 'result.md'}")


def markdown(result: Mapping[str, Any]) -> str:
    """Return the report of a result."""
    points: Points = result["points"]
    parts = ["# Serving, side by side", _machine(result)]
    for title, words, section in _SECTIONS:
        parts += [f"## {title}", *([words] if words else []), section(points)]
    parts += ["## Servers", _servers(result)]
    if result["failures"] or result["skipped"]:
        parts += ["## Not measured", _failures(result)]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first two are right-aligned."""
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("| " + " | ".join("---" if i < 2 else "---:" for i in range(len(head))) + " |")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a figure with three significant digits or none behind the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(points: Points, key: str) -> str:
    """Return a point's median with its spread."""
    point = points.get(key)
    if point is None:
        return _NONE
    if len(point["rounds"]) == 1:
        return number(point["median"])
    return f"{number(point['median'])} ({number(point['min'])} to {number(point['max'])})"


def _versions(server: Server) -> dict[str, str]:
    if server.ours:
        return machine.own_versions(server.packages)
    pinned = environments.versions(PEERS / server.peer)
    return {package: pinned[package] for package in server.packages if package in pinned}


def _stalls(facts: Mapping[str, Any]) -> list[str]:
    found = facts.get("stalls", {})
    return [
        f"Before anything was started, core {core} was taken from a process that only looked at "
        f"the clock for {100 * stall['share']:.2f} % of the time, for "
        f"{1000 * stall['longest']:.1f} ms at most."
        for core, stall in found.items()
    ]


def _machine(result: Mapping[str, Any]) -> str:
    facts, settings = result["machine"], result["settings"]
    used = ", ".join(facts["cpu_features"])
    hardware = (
        f"{facts['cpu']}, {facts['cores']} cores ({used}), {facts['memory_gib']} GiB, Linux "
        f"{facts['kernel']}; Python {facts['python']}, ONNX Runtime {facts['onnxruntime']}, "
        f"{facts['h2load']}. Servers on core {facts['server_core']}, clients on core "
        f"{facts['client_core']}."
    )
    others = settings["other_rounds"] or settings["rounds"]
    rounds = (
        f"{settings['rounds']} rounds of {settings['seconds']:g} s per point; {others} of "
        f"{settings['other_seconds']:g} s for servers that no goal names. gRPC clients share at "
        f"most {settings['connections']} connections."
    )
    lines = [hardware, rounds, *_stalls(facts)]
    details = [d for p in result["points"].values() for d in p["details"].values()]
    foreign = max((d.get("others_busy_cores", 0.0) for d in details), default=0.0)
    if foreign > _BUSY:
        lines.append(
            f"**The machine was not quiet:** other work took up to {foreign:.1f} cores just before "
            "a server was started. Read ratios, and those with care."
        )
    if bound := _client_bound(result["points"]):
        lines.append("The client's core was full in: " + ", ".join(bound) + ".")
    return "\n\n".join(lines)


def _client_bound(points: Points) -> list[str]:
    """Return the closed-loop points whose client had no time to spare."""
    return sorted(
        key
        for key, point in points.items()
        if point["unit"] != "s"
        and any(d.get("client_busy", 0.0) > _CLIENT_LIMIT for d in point["details"].values())
    )


def _rows(points: Points) -> list[tuple[str, str, str, str]]:
    """Return label, key prefix, point prefix and precision of each measured server."""
    found = []
    for server in SERVERS:
        for precision in server.precisions:
            prefix = f"{server.name}/{precision}/"
            if any(key.startswith(prefix) for key in points):
                found.append((server.label, prefix, "", precision))
                if prefix + "http-single-1" in points:
                    found.append(("CipherScore, HTTP JSON", prefix, "http-", precision))
    return found


def _throughput(points: Points) -> str:
    head = ["server", "precision", *map(str, workloads.CONCURRENCY), "rows/s", "rows/s, columns"]
    names = [f"single-{c}" for c in workloads.CONCURRENCY] + ["rows-1000"]
    lines = []
    for label, prefix, kind, precision in _rows(points):
        cells = [spread(points, prefix + kind + name) for name in names]
        cells.append(_NONE if kind else spread(points, prefix + "columnar-1000"))
        lines.append([label, precision, *cells])
    return table(head, lines)


def _cost(points: Points) -> str:
    head = ["server", "precision", *(f"{c}" for c in workloads.CONCURRENCY), "1,000 rows"]
    names = [f"single-{c}" for c in workloads.CONCURRENCY] + ["rows-1000"]
    lines = []
    for label, prefix, kind, precision in _rows(points):
        found = [points.get(prefix + kind + name) for name in names]
        cells = [
            number(min(d["server_cpu_seconds"] for d in p["details"].values()) * 1e6)
            if p
            else _NONE
            for p in found
        ]
        lines.append([label, precision, *cells])
    return table(head, lines)


def _in_process(points: Points) -> str:
    batches = workloads.IN_PROCESS_BATCHES
    lines = [
        ["in process", p, *(spread(points, f"in-process/{p}/batch-{b}") for b in batches)]
        for p in ("fp32", "int8")
        if f"in-process/{p}/best" in points
    ]
    return table(["", "precision", *(f"{b:,}" for b in batches)], lines)


def _big(points: Points) -> str:
    lines = []
    for server in SERVERS:
        for precision in server.precisions if server.ours else ():
            best = points.get(f"in-process/{precision}/best")
            cells = []
            for name in ("columnar-1000", "columnar-100000"):
                key = f"{server.name}/{precision}/{name}"
                share = f" [{points[key]['median'] / best['median']:.0%}]" if (
                    best and key in points
                ) else ""  # fmt: skip
                cells.append(spread(points, key) + share)
            if cells != [_NONE, _NONE]:
                lines.append([server.label, precision, *cells])
    return table(["server", "precision", "1,000 rows", "100,000 rows"], lines)


def _open_loop(points: Points) -> str:
    head = ["server", "precision", "load", "requests/s", "p50", "p90", "p99", "p99.9", "p99 : p50",
            "lag"]  # fmt: skip
    names = {"idle": "idle", "paced-25": "25 %", "paced-50": "50 %", "paced-75": "75 %"}
    lines = []
    for label, prefix, kind, precision in _rows(points):
        for name, words in names.items():
            point = points.get(prefix + name)
            if kind or point is None:
                continue
            found = list(point["details"].values())

            def middle(detail: str, found: list[dict[str, float]] = found) -> float:
                return sorted(d[detail] for d in found)[len(found) // 2]

            times = [f"{middle(q) * 1e3:.2f}" for q in ("p50", "p90", "p99", "p999")]
            ratio = f"{middle('p99') / middle('p50'):.1f}"
            lag = f"{middle('lag_p99') * 1e3:.2f}"
            lines.append([label, precision, words, number(middle("rate")), *times, ratio, lag])
    return table(head, lines)


def _growth(points: Points) -> str:
    rows = [
        [f"{count:,}", "fp32", number(point["median"]), f"{1e6 / point['median']:.1f}"]
        for count in workloads.GROWTH_ROWS
        if (point := points.get(f"ours-native/fp32/growth-rows-{count}"))
    ]
    batches = [
        [f"{batch:,}", p, number(point["median"]), f"{1e6 / point['median']:.1f}"]
        for p in ("fp32", "int8")
        for batch in workloads.GROWTH_BATCHES
        if (point := points.get(f"in-process/{p}/growth-batch-{batch}"))
    ]
    widths = [_width_row(points, width) for width in sorted({1.0, *workloads.GROWTH_WIDTHS})]
    return "\n\n".join(
        [
            "Rows of one columnar request, CipherScore, over gRPC:",
            table(["rows", "precision", "rows/s", "µs a row"], rows),
            "Batch size, the model alone:",
            table(["batch", "precision", "rows/s", "µs a row"], batches),
            "Width of the hidden layers (1 is 256-1024-512-256), fp32:",
            table(
                ["width", "precision", "in process, batch 1", "in process, batch 1,024",
                 "CipherScore, requests/s at 64", "CipherScore, rows/s, columns of 1,000"],
                widths,
            ),
        ]
    )  # fmt: skip


def _width_row(points: Points, width: float) -> list[str]:
    middle = "" if width == 1.0 else f"growth-width-{width:g}-"
    batch = middle or "batch-"
    keys = [
        f"in-process/fp32/{batch}1", f"in-process/fp32/{batch}1024",
        f"ours-native/fp32/{middle}single-64", f"ours-native/fp32/{middle}columnar-1000",
    ]  # fmt: skip
    return [f"{width:g}", "fp32", *(spread(points, key) for key in keys)]


def _goals(points: Points) -> str:
    verdicts = [str(check.judge(goal, points)) for goal in check.load_goals()]
    return "\n".join(["```text", *verdicts, "```"])


def _servers(result: Mapping[str, Any]) -> str:
    lines = []
    for name, versions in result["versions"].items():
        named = ", ".join(f"{package} {version}" for package, version in versions.items())
        lines.append([BY_NAME[name].label, named, BY_NAME[name].settings])
    text = table(["server", "versions", "settings"], lines)
    return text.replace("| --- | --- | ---: |", "| --- | --- | --- |")


def _failures(result: Mapping[str, Any]) -> str:
    lines = [f"- {name}: skipped, {reason}" for name, reason in result["skipped"].items()]
    groups: dict[tuple[str, int, str], list[str]] = {}
    for failure in result["failures"]:
        server, precision, point = failure["figure"].split("/")
        key = (f"{server} {precision}", failure["round"], failure["reason"])
        groups.setdefault(key, []).append(point)
    for (server, turn, reason), names in groups.items():
        lines.append(f"- {server}, round {turn + 1}, {', '.join(names)}: {reason}")
    return "\n".join(lines)


_SECTIONS: tuple[tuple[str, str, Callable[[Points], str]], ...] = (
    (
        "Throughput",
        (
            "Median over the rounds (lowest to highest). One row per request: requests/s at that "
            "many requests under way. 1,000 rows per request: rows/s, as rows of tokens and, where "
            "the server takes it, as columns."
        ),
        _throughput,
    ),
    (
        "Processor time of the server",
        (
            "Microseconds per request at that many requests under way; the lowest of the rounds, "
            "as other work on a machine only adds to it."
        ),
        _cost,
    ),
    ("The model alone, in process, one core", "Rows/s by batch size.", _in_process),
    (
        "Big requests against the model alone",
        "Rows/s of CipherScore; in brackets the share of the model alone at its best.",
        _big,
    ),
    (
        "Open loop",
        (
            "One row per request over gRPC at random moments (Poisson), timed from the moment a "
            "request was due. Milliseconds. *Lag* is how late the client itself sent, 99th "
            "percentile; it is part of the times."
        ),
        _open_loop,
    ),
    ("Growth", "", _growth),
    ("Goals", "", _goals),
)
