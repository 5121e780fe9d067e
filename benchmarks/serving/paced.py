"""Open-loop load: gRPC requests at fixed rate, sent at random moments whatever the server does.

    python -m benchmarks.serving.paced --port 50051 --body request.bin --rate 10000 ...

h2load's own pacing sends bursts of what is due every ten milliseconds, which measures the burst and
not the server; so this client sends each request at its own moment of a Poisson process, spinning
on its core, and times it from the moment it was due.  Prints JSON.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.serving import client_process, frames
from benchmarks.serving.payloads import Body

_DRAIN_SECONDS = 5.0
_READ = 1 << 18
_START_DELAY = 0.05


@dataclass(frozen=True)
class Paced:
    """Result of an open-loop run; times are from the moment a request was due.

    Attributes:
        rate: Requests per second that were asked for.
        sent: Requests measured.
        errors: Requests without a right answer.
        p50: Median time, seconds.
        p90: 90th percentile.
        p99: 99th percentile.
        p999: 99.9th percentile.
        lag_p99: 99th percentile of how late this client sent, which is part of the times.
    """

    rate: float
    sent: int
    errors: int
    p50: float
    p90: float
    p99: float
    p999: float
    lag_p99: float


def paced(
    port: int, body: Body, *, rate: float, seconds: float, warmup: float, connections: int,
    core: int, answer: int,
) -> Paced:  # fmt: skip
    """Run the client in a process of its own; the arguments are those of `load.closed`.

    Raises:
        ClientError: It failed.
    """
    options: dict[str, object] = {
        "rate": rate, "seconds": seconds, "warmup": warmup, "connections": connections,
        "answer": answer,
    }  # fmt: skip
    return Paced(**client_process.run("benchmarks.serving.paced", port, body, core, options))


class _Connection:
    """One connection: what is due goes out in order, within the server's limits."""

    def __init__(self, port: int, request: Callable[[int], bytes], size: int, answer: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.reader = frames.Reader(answer)
        self.due: deque[int] = deque()
        self.open: dict[int, int] = {}
        self._request, self._size = request, size
        self._stream = 1
        self._out = frames.opening()

    def flush(self, sent: np.ndarray) -> None:
        """Send what is due and allowed."""
        reader, due = self.reader, self.due
        if reader.reply:
            self._out += reader.reply
            reader.reply = b""
        parts = []
        while due and reader.window >= self._size and len(self.open) < reader.max_streams:
            number = due.popleft()
            parts.append(self._request(self._stream))
            self.open[self._stream] = number
            self._stream += 2
            reader.window -= self._size
            sent[number] = time.perf_counter()
        if parts:
            self._out += b"".join(parts)
        if self._out:
            try:
                self._out = self._out[self.socket.send(self._out) :]
            except BlockingIOError:
                return

    def receive(self, ended: np.ndarray, right: np.ndarray) -> int:
        """Read what has come; return how many requests ended."""
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return 0
        if not data:
            raise frames.ConnectionBroken("the server closed the connection")
        finished = self.reader.feed(data)
        if finished:
            now = time.perf_counter()
            for stream, good in finished:
                number = self.open.pop(stream, -1)
                if number >= 0:
                    ended[number] = now
                    right[number] = good
        return len(finished)


def run(connections: list[_Connection], due: np.ndarray) -> tuple[np.ndarray, ...]:
    """Send request ``i`` at ``due[i]`` seconds; return when each was sent and ended, and if right.

    A request without an answer has the end `nan`.
    """
    count = len(due)
    sent, ended = np.full(count, np.nan), np.full(count, np.nan)
    right = np.zeros(count, bool)
    poll = select.epoll()
    by_file = {c.socket.fileno(): c for c in connections}
    for file in by_file:
        poll.register(file, select.EPOLLIN)
    start = time.perf_counter() + _START_DELAY
    moments = (due + start).tolist()
    end = moments[-1] + _DRAIN_SECONDS
    following, finished, turn = 0, 0, 0
    while finished < count:
        now = time.perf_counter()
        while following < count and moments[following] <= now:
            connections[turn].due.append(following)
            following += 1
            turn = (turn + 1) % len(connections)
        if now > end:
            break
        for connection in connections:
            connection.flush(sent)
        for file, _ in poll.poll(0):
            finished += by_file[file].receive(ended, right)
    return sent - start, ended - start, right


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")],
    path: Annotated[str, typer.Option(help="gRPC method.")],
    body: Annotated[Path, typer.Option(help="Request with its five-byte prefix.")],
    rate: Annotated[float, typer.Option(help="Requests per second.")],
    answer: Annotated[int, typer.Option(help="Bytes of a right answer.")],
    seconds: Annotated[float, typer.Option(help="Measured time.")] = 3.0,
    warmup: Annotated[float, typer.Option(help="Time before it.")] = 1.0,
    connections: Annotated[int, typer.Option(help="Connections.")] = 8,
) -> None:
    """Measure."""
    content = body.read_bytes()
    request = frames.request(path, f"127.0.0.1:{port}", content)
    generator = np.random.default_rng(os.getpid())
    gaps = generator.exponential(1 / rate, max(20, round(rate * (seconds + warmup))))
    due = np.cumsum(gaps)
    opened = [_Connection(port, request, len(content), answer) for _ in range(connections)]
    gc.disable()
    try:
        sent, ended, right = run(opened, due)
    except (frames.ConnectionBroken, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    counted = due >= warmup
    right &= ~np.isnan(ended)
    times = (ended - due)[counted & right]
    if not len(times):
        print("no request had a right answer", file=sys.stderr)
        raise typer.Exit(1)
    p50, p90, p99, p999 = (float(q) for q in np.quantile(times, [0.5, 0.9, 0.99, 0.999]))
    lag = float(np.nanquantile((sent - due)[counted], 0.99))
    errors = int((counted & ~right).sum())
    result = Paced(rate, int(counted.sum()), errors, p50, p90, p99, p999, lag)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    typer.run(main)
