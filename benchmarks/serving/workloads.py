"""What is asked of each server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.serving.load import Shape
from benchmarks.serving.payloads import Protocol
from benchmarks.serving.servers import Server

CONCURRENCY = (1, 16, 64)
IN_PROCESS_BATCHES = (1, 64, 1000, 1024, 4096)
GROWTH_BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
GROWTH_ROWS = (1, 10, 100, 1000, 10_000, 100_000)
GROWTH_WIDTHS = (0.5, 2.0)
IDLE_RATE = 100.0
"""Requests per second at which a server does nothing most of the time."""
GOAL_SERVERS = ("ours-native", "triton", "fastapi")
"""Servers that a goal names: measured in every round and for longer than the others."""


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        name: Name in the results, like ``single-16``.
        kind: ``closed``: so many requests always under way; ``paced``: at random moments.
        protocol: Form of the request.
        rows: Rows of one request.
        shape: Concurrency of ``closed``, connections of ``paced``.
        share: ``paced``: rate as a share of the server's ``single-64``; 0: `IDLE_RATE`.
    """

    name: str
    kind: Literal["closed", "paced"]
    protocol: Protocol
    rows: int
    shape: Shape
    share: float = 0.0

    @property
    def unit(self) -> str:
        """What its value counts."""
        if self.kind == "paced":
            return "s"
        return "requests/s" if self.rows == 1 else "rows/s"


def _shape(protocol: Protocol, concurrency: int, connections: int) -> Shape:
    """HTTP/1.1 needs a connection for each request under way."""
    if protocol == "json":
        return Shape(concurrency, 1)
    clients = min(concurrency, connections)
    return Shape(clients, concurrency // clients)


def points(
    server: Server, precision: str, connections: int, *, first_round: bool
) -> tuple[Point, ...]:
    """Return what is measured of a server.

    Args:
        server: The server.
        precision: Its model's.
        connections: Most connections of a gRPC client.
        first_round: Whether to add what is measured once only.
    """
    own: Protocol = "oip" if server.transport == "grpc" else "json"
    found = _closed(own, "", connections)
    if "columnar" in server.protocols:
        found.append(_rows("columnar-1000", "columnar", 1000))
    if server.ours:
        found.append(_rows("columnar-100000", "columnar", 100_000))
    if server.name == "ours-native":
        found += _closed("json", "http-", connections)
    if server.name in {"ours-native", "triton"}:
        found += [_paced("paced-50", 0.5, connections), _paced("idle", 0.0, 1)]
        if first_round:
            found += [_paced("paced-25", 0.25, connections), _paced("paced-75", 0.75, connections)]
    if first_round and server.name == "ours-native" and precision == "fp32":
        found += [_rows(f"growth-rows-{rows}", "columnar", rows) for rows in GROWTH_ROWS]
    return tuple(found)


def _closed(protocol: Protocol, prefix: str, connections: int) -> list[Point]:
    singles = [
        Point(f"{prefix}single-{c}", "closed", protocol, 1, _shape(protocol, c, connections))
        for c in CONCURRENCY
    ]
    return [*singles, _rows(f"{prefix}rows-1000", protocol, 1000)]


def _rows(name: str, protocol: Protocol, rows: int) -> Point:
    """Enough requests under way that one waits while another is computed.

    The biggest are long enough alone: a second would wait about as long as ours lets any wait.
    """
    return Point(name, "closed", protocol, rows, Shape(4 if rows <= 1000 else 1, 1))


def _paced(name: str, share: float, connections: int) -> Point:
    return Point(name, "paced", "oip", 1, Shape(connections, 1), share)


def width_points(server: Server, prefix: str, connections: int) -> tuple[Point, ...]:
    """Return what is measured of a server whose model is wider or narrower."""
    own: Protocol = "oip" if server.transport == "grpc" else "json"
    return (
        Point(f"{prefix}-single-64", "closed", own, 1, _shape(own, 64, connections)),
        _rows(f"{prefix}-columnar-1000", "columnar", 1000),
    )
