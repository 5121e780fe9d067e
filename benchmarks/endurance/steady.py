"""Load at a fixed rate by h2load, in slices, with the time of every request."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving import load
from benchmarks.serving.payloads import PATHS, Body

_SLACK_SECONDS = 60.0
_LEVELS = (0.5, 0.99, 0.999)


@dataclass(frozen=True)
class Slice:
    """What a slice of load met.

    Attributes:
        requests: Requests answered.
        per_second: The same per second.
        p50: Median time of a request, seconds.
        p99: 99th percentile.
        p999: 99.9th percentile.
        error: Why not all answers were right; empty if they were.
    """

    requests: int
    per_second: float
    p50: float
    p99: float
    p999: float
    error: str = ""


def run(
    port: int, body: Body, *, requests: int, rate: float, connections: int, streams: int,
    core: int, answer: int,
) -> Slice:  # fmt: skip
    """Send ``requests`` requests.

    Args:
        port: Where the server listens.
        body: A gRPC request.
        requests: How many.
        rate: Requests per second; 0: as many as the server answers.
        connections: Connections of the client.
        streams: Most requests under way on each.
        core: Core of the client.
        answer: Bytes of a right answer's body.
    """
    with tempfile.TemporaryDirectory() as folder:
        content, log = Path(folder, "body"), Path(folder, "log")
        content.write_bytes(body.content)
        command = [
            "taskset", "-c", str(core), "h2load", f"--clients={connections}",
            f"--max-concurrent-streams={streams}", f"--requests={requests}",
            f"--data={content}", f"--log-file={log}", "--header=te: trailers",
            "--header=content-type: application/grpc",
        ]  # fmt: skip
        if rate:
            command.append(f"--rps={rate / connections:g}")
        command.append(f"http://127.0.0.1:{port}{PATHS[body.protocol]}")
        limit = _SLACK_SECONDS + (2 * requests / rate if rate else requests / 100)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=limit
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            return Slice(0, 0.0, 0.0, 0.0, 0.0, f"h2load: {type(error).__name__}")
        times = np.fromfile(log, np.int64, sep=" ")[2::3] / 1e6
    p50, p99, p999 = (float(q) for q in np.quantile(times, _LEVELS)) if len(times) else (0.0,) * 3
    try:
        found = load.checked(done.stdout, answer)
    except load.LoadError as error:
        return Slice(len(times), 0.0, p50, p99, p999, str(error))
    return Slice(found.requests, found.per_second, p50, p99, p999)
