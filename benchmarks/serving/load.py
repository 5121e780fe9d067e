"""Closed-loop load by h2load: a fixed number of requests always under way."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.serving.payloads import PATHS, Body

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SLACK_SECONDS = 60.0
_RATE = r"finished in .*?, ([\d.]+) req/s"


class LoadError(Exception):
    """A load run whose figures must not be used; the message says why."""


@dataclass(frozen=True)
class Shape:
    """How many requests are under way, over how many connections.

    Attributes:
        connections: Connections of the client.
        streams: Requests under way on each.
    """

    connections: int
    streams: int

    @property
    def concurrency(self) -> int:
        """Requests under way in all."""
        return self.connections * self.streams


@dataclass(frozen=True)
class Closed:
    """Result of a closed-loop run.

    Attributes:
        per_second: Requests answered per second.
        requests: Requests answered in the measured time.
        mean_seconds: Mean time of a request.
        max_seconds: Longest time of a request.
        server_cpu_seconds: Processor time of the server per request.
    """

    per_second: float
    requests: int
    mean_seconds: float
    max_seconds: float
    server_cpu_seconds: float = 0.0


def closed(
    port: int,
    body: Body,
    shape: Shape,
    *,
    seconds: float,
    warmup: float,
    core: int,
    answer: int,
    server_cpu: Callable[[], float],
) -> Closed:
    """Send ``body`` for ``seconds`` after ``warmup`` seconds that do not count.

    Args:
        port: Where the server listens.
        body: The request.
        shape: Concurrency.
        seconds: Length of the measured part.
        warmup: Length of the part before it.
        core: Core of the client.
        answer: Bytes of the HTTP body of a right answer; h2load counts a failed gRPC call, whose
            body is empty, as a success.
        server_cpu: Returns the processor time of the server so far.

    Raises:
        LoadError: A request failed, or the answers are not as long as right ones.
    """
    with tempfile.NamedTemporaryFile(suffix=".bin") as content:
        content.write(body.content)
        content.flush()
        command = [
            "taskset", "-c", str(core), "h2load", f"--clients={shape.connections}",
            "--data", content.name,
        ]  # fmt: skip
        if body.grpc:
            command += [
                f"--max-concurrent-streams={shape.streams}", "--header=te: trailers",
                "--header=content-type: application/grpc",
            ]  # fmt: skip
        else:
            command += ["--h1", "--header=content-type: application/json"]
        command.append(f"http://127.0.0.1:{port}{PATHS[body.protocol]}")
        rate = _warm_up(command, shape, warmup)
        requests = max(shape.concurrency, round(rate * seconds))
        # By count and not by time: h2load would leave in the middle of requests, and the call that
        # is cancelled then is not what is measured here (it can crash Triton).
        cpu = server_cpu()
        output = _h2load([*command, f"--requests={requests}"], seconds)
        cpu = server_cpu() - cpu
    return replace(checked(output, answer, exact=body.grpc), server_cpu_seconds=cpu / requests)


def _warm_up(command: list[str], shape: Shape, seconds: float) -> float:
    """Send requests for about ``seconds``; return how many are answered per second."""
    requests, counted, rate = 2 * shape.concurrency, 0, 0.0
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0 or not counted:
        if counted:
            # Not far beyond what was seen to be possible: the first requests tell little.
            requests = max(2 * shape.concurrency, round(min(rate * left, 8 * counted)))
        output = _h2load([*command, f"--requests={requests}"], _SLACK_SECONDS)
        if requests >= counted:
            counted, rate = requests, float(_found(_RATE, output)[1])
    return rate


def _h2load(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=seconds + _SLACK_SECONDS
        )
    except subprocess.CalledProcessError as error:
        raise LoadError(f"h2load: exit code {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise LoadError("h2load did not end") from error
    return done.stdout


def checked(output: str, answer: int, *, exact: bool = True) -> Closed:
    """Return what h2load printed, if all answers were right ones.

    Args:
        output: What h2load printed.
        answer: Bytes of a right answer's body.
        exact: Whether all right answers have that length, as those of gRPC have; a number in JSON
            may have a digit more, and HTTP tells an error by its status.

    Raises:
        LoadError: They were not.
    """
    succeeded, failed, errored, timeout, good = (
        int(_found(rf"(\d+) {word}", output)[1])
        for word in ("succeeded", "failed", "errored", "timeout", "2xx")
    )
    if failed or errored or timeout or not succeeded:
        statuses = re.search(r"status codes: (.*)", output)
        raise LoadError(
            f"{succeeded} requests succeeded, {failed} failed, {errored} had errors, "
            f"{timeout} timed out; {statuses[1] if statuses else 'no status'}"
        )
    if good < succeeded:
        raise LoadError(f"{succeeded - good} of {succeeded} answers have another status than 2xx")
    data, right = int(_found(r"\((\d+)\) data", output)[1]), succeeded * answer
    if data != right if exact else abs(data - right) > right // 10:
        raise LoadError(
            f"{succeeded} answers of {answer} bytes should have {right} bytes; they have {data}: "
            "some are errors"
        )
    per_second = float(_found(_RATE, output)[1])
    times = _found(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", output)
    return Closed(per_second, succeeded, _seconds(times[3]), _seconds(times[2]))


def _found(pattern: str, output: str) -> re.Match[str]:
    found = re.search(pattern, output)
    if found is None:
        raise LoadError("h2load printed something else than expected")
    return found


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    if found is None:
        raise LoadError("h2load printed something else than expected")
    return float(found[1]) * _UNITS[found[2]]
