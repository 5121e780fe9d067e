"""Open-loop load that may be refused: requests fall due at random moments whatever comes back.

Python cannot be the bottleneck of an overload test for free, so this is one process that spins on
its core, sends frames that were laid out beforehand and reads no more of an answer than its kind.
Prints JSON.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.endurance.wire import FAILED, RIGHT, SHED, Http1, Http2, Wire
from benchmarks.serving import client_process
from benchmarks.serving.payloads import Body

_READ = 1 << 18
_START_DELAY = 0.2
_DRAIN_SECONDS = 5.0
_TURN = 64
_TRIES = 16
"""Connections looked at for one that is free."""


@dataclass(frozen=True)
class Times:
    """Quantiles in seconds."""

    p50: float
    p90: float
    p99: float
    p999: float

    @classmethod
    def of(cls, seconds: np.ndarray) -> Times:
        """Return those of ``seconds``; zeros if there are none."""
        if not len(seconds):
            return cls(0.0, 0.0, 0.0, 0.0)
        return cls(*(float(q) for q in np.quantile(seconds, [0.5, 0.9, 0.99, 0.999])))


@dataclass(frozen=True)
class OpenLoop:
    """Result of a run; rates are per second of the measured time.

    Attributes:
        wanted: Requests that should have been sent.
        offered: Requests that were sent.
        goodput: Requests answered rightly.
        shed: Requests refused as overload, with a hint when to come back.
        failed: Requests with another end: errors, wrong lengths, broken connections; a number.
        abandoned: Requests that the client gave up before it could send them, because all it may
            have open was open; a number.
        unanswered: Requests sent and never answered; a number.
        since_due: Times of right answers from the moment the request was due.
        since_sent: The same from the moment it was sent.
        refusal: Times of refusals from the moment the request was sent.
        lag: How late requests were sent.
    """

    wanted: float
    offered: float
    goodput: float
    shed: float
    failed: int
    abandoned: int
    unanswered: int
    since_due: Times
    since_sent: Times
    refusal: Times
    lag: Times


def open_loop(
    port: int, body: Body, *, rate: float, seconds: float, warmup: float, connections: int,
    core: int, answer: int, patience: float = 1.0,
) -> OpenLoop:  # fmt: skip
    """Run the client in a process of its own; the options of `main` say what the arguments are.

    Raises:
        ClientError: It failed.
    """
    options: dict[str, object] = {
        "rate": rate, "seconds": seconds, "warmup": warmup, "connections": connections,
        "answer": answer, "patience": patience, "grpc": body.grpc,
    }  # fmt: skip
    return _loaded(client_process.run("benchmarks.endurance.openloop", port, body, core, options))


def _loaded(found: dict[str, object]) -> OpenLoop:
    times = ("since_due", "since_sent", "refusal", "lag")
    parts = {name: Times(**found[name]) for name in times}  # type: ignore[arg-type]
    return OpenLoop(**{**found, **parts})  # type: ignore[arg-type]


class _Connection:
    """One connection: what is due goes out in order, within the server's limits."""

    def __init__(self, port: int, wire: Wire) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.wire = wire
        self.due: deque[int] = deque()
        self.open: dict[int, int] = {}
        self.broken = False
        self.unsent = b""

    def flush(self, sent: np.ndarray, stale: float, moments: list[float]) -> None:
        """Send what is due and allowed; drop what was due before ``stale``."""
        due, wire = self.due, self.wire
        parts = []
        while due:
            if moments[due[0]] < stale:
                due.popleft()
                continue
            if not wire.room(len(self.open)):
                break
            number = due.popleft()
            key, request = wire.request()
            parts.append(request)
            self.open[key] = number
            sent[number] = time.perf_counter()
        reply = wire.reply()
        if parts or reply:
            self.unsent += reply + b"".join(parts)
        if self.unsent:
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            except BlockingIOError:
                return
            except OSError:
                self.broken = True

    def receive(self, ended: np.ndarray, outcome: np.ndarray) -> int:
        """Read what has come; return how many requests ended."""
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        finished = self.wire.feed(data) if data else []
        now = time.perf_counter()
        count = 0
        for key, kind in finished:
            number = self.open.pop(key, -1)
            if number >= 0:
                ended[number] = now
                outcome[number] = kind
                count += 1
        if not data or self.wire.over:
            self.broken = True
        return count


def run(
    connections: list[_Connection], due: np.ndarray, patience: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Send request ``i`` at ``due[i]`` seconds; return when each was sent and ended, and how."""
    count = len(due)
    sent, ended = np.full(count, np.nan), np.full(count, np.nan)
    outcome = np.zeros(count, np.uint8)
    poll = select.epoll()
    by_file = {c.socket.fileno(): c for c in connections}
    for file in by_file:
        poll.register(file, select.EPOLLIN)
    start = time.perf_counter() + _START_DELAY
    moments = (due + start).tolist()
    end = moments[-1] + _DRAIN_SECONDS
    turn = _Turns(connections)
    following = 0
    waiting: set[_Connection] = set(connections)
    while connections:
        now = time.perf_counter()
        for _ in range(_TURN):
            if following == count or moments[following] > now:
                break
            connection = turn.next()
            connection.due.append(following)
            waiting.add(connection)
            following += 1
        if now > end or (following == count and not any(c.open or c.due for c in connections)):
            break
        for connection in list(waiting):
            connection.flush(sent, now - patience, moments)
            if not (connection.due or connection.unsent):
                waiting.discard(connection)
        for file, _ in poll.poll(0):
            connection = by_file[file]
            connection.receive(ended, outcome)
            waiting.add(connection)
            if connection.broken:
                poll.unregister(file)
                waiting.discard(connection)
                _give_up(connection, connections, outcome)
    return sent - start, ended - start, outcome


class _Turns:
    """Chooses connections in turn, a free one if one is soon found."""

    def __init__(self, connections: list[_Connection]) -> None:
        self._connections = connections
        self._at = 0

    def next(self) -> _Connection:
        """Return the connection for the next request."""
        for _ in range(_TRIES):
            self._at = (self._at + 1) % len(self._connections)
            connection = self._connections[self._at]
            if not connection.due and connection.wire.room(len(connection.open)):
                break
        return connection


def _give_up(connection: _Connection, connections: list[_Connection], outcome: np.ndarray) -> None:
    """Count what was open on a connection that broke."""
    outcome[list(connection.open.values())] = FAILED
    connection.open.clear()
    connection.due.clear()
    connections.remove(connection)


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")],
    path: Annotated[str, typer.Option(help="gRPC method or HTTP path.")],
    body: Annotated[Path, typer.Option(help="Request body; gRPC: with its five-byte prefix.")],
    rate: Annotated[float, typer.Option(help="Requests per second.")],
    answer: Annotated[int, typer.Option(help="Bytes of a right answer's body.")],
    seconds: Annotated[float, typer.Option(help="Measured time.")] = 3.0,
    warmup: Annotated[float, typer.Option(help="Time before it.")] = 1.0,
    connections: Annotated[int, typer.Option(help="Connections.")] = 64,
    patience: Annotated[
        float, typer.Option(help="Seconds after which a request that could not be sent is dropped.")
    ] = 1.0,
    grpc: Annotated[bool, typer.Option(help="HTTP/2 gRPC, else HTTP/1.1.")] = True,
) -> None:
    """Measure."""
    content = body.read_bytes()
    authority = f"127.0.0.1:{port}"
    generator = np.random.default_rng(os.getpid())
    gaps = generator.exponential(1 / rate, max(20, round(rate * (seconds + warmup))))
    due = np.cumsum(gaps)
    opened = [
        _Connection(
            port,
            Http2(path, authority, content, answer) if grpc else Http1(path, authority, content),
        )
        for _ in range(connections)
    ]
    gc.disable()
    sent, ended, outcome = run(list(opened), due, patience)
    print(json.dumps(asdict(_result(due, sent, ended, outcome, warmup, rate))))


def _result(
    due: np.ndarray, sent: np.ndarray, ended: np.ndarray, outcome: np.ndarray, warmup: float,
    rate: float,
) -> OpenLoop:  # fmt: skip
    counted = due >= warmup
    length = float(due[-1]) - warmup
    tried = ~np.isnan(sent)
    right = counted & (outcome == RIGHT)
    refused = counted & (outcome == SHED)
    return OpenLoop(
        wanted=rate,
        offered=float((counted & tried).sum()) / length,
        goodput=float(right.sum()) / length,
        shed=float(refused.sum()) / length,
        failed=int((counted & (outcome == FAILED)).sum()),
        abandoned=int((counted & ~tried).sum()),
        unanswered=int((counted & tried & (outcome == 0)).sum()),
        since_due=Times.of((ended - due)[right]),
        since_sent=Times.of((ended - sent)[right]),
        refusal=Times.of((ended - sent)[refused]),
        lag=Times.of((sent - due)[counted & tried]),
    )


if __name__ == "__main__":
    typer.run(main)
