"""Measurements, one JSON line each, written as they are made so that a run can be resumed."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One figure of one round.

    Attributes:
        server: Name of the server, or ``in-process``.
        precision: ``fp32`` or ``int8``.
        point: Name of the point.
        round: Number of the round.
        value: The figure; of a paced point the 99th percentile, in seconds.
        unit: ``requests/s``, ``rows/s`` or ``s``.
        details: More figures of the same run.
        failure: Why there is no figure; empty if there is one.
    """

    server: str
    precision: str
    point: str
    round: int
    value: float
    unit: str
    details: dict[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def key(self) -> str:
        """``server/precision/point``."""
        return f"{self.server}/{self.precision}/{self.point}"


class Store:
    """The measurements of a run, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.measurements: list[Measurement] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    self.measurements.append(Measurement(**json.loads(line)))
                except (ValueError, TypeError):
                    continue  # the last line of a run that was killed
            if not path.read_bytes().endswith(b"\n"):
                with path.open("a") as file:
                    file.write("\n")

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement, also over a crash."""
        self.measurements.append(measurement)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(measurement)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def has(self, server: str, precision: str, point: str, turn: int) -> bool:
        """Return whether there is a figure."""
        wanted = (server, precision, point, turn)
        return any(
            (m.server, m.precision, m.point, m.round) == wanted and not m.failure
            for m in self.measurements
        )

    def median(self, key: str) -> float | None:
        """Return the median of a point over the rounds so far."""
        values = [m.value for m in self.measurements if m.key == key and not m.failure]
        return statistics.median(values) if values else None


def summary(measurements: list[Measurement]) -> dict[str, dict[str, Any]]:
    """Return per key the unit, the values by round, their median and spread, and the details."""
    found: dict[str, dict[str, Any]] = {}
    for m in measurements:
        if m.failure:
            continue
        entry = found.setdefault(m.key, {"unit": m.unit, "rounds": {}, "details": {}})
        entry["rounds"][str(m.round)] = m.value
        entry["details"][str(m.round)] = m.details
    for entry in found.values():
        values = list(entry["rounds"].values())
        entry.update(median=statistics.median(values), min=min(values), max=max(values))
    return found


def failures(measurements: list[Measurement]) -> Iterator[Measurement]:
    """Yield what failed and was not measured later."""
    good = {(m.key, m.round) for m in measurements if not m.failure}
    seen = set()
    for m in measurements:
        if m.failure and (m.key, m.round) not in good and (m.key, m.failure) not in seen:
            seen.add((m.key, m.failure))
            yield m
