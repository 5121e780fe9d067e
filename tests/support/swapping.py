"""Constant traffic against a server whose versions change, every answer checked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tests.support.models import SIZES, expected_probability, vocabulary
from tests.support.server import Server
from tests.support.transports import Grpc, Http, Scored

TOLERANCE = 1e-5
_TOKENS = vocabulary().tokens


def rows_of(indices: np.ndarray) -> list[dict[str, bytes]]:
    """Return records of vocabulary indices, int [rows, fields]."""
    return [{name: _TOKENS[name][i] for name, i in zip(SIZES, row, strict=True)} for row in indices]


def draw(random: np.random.Generator, rows: int) -> np.ndarray:
    """Return random vocabulary indices, int [rows, fields]."""
    return np.stack([random.integers(size, size=rows) for size in SIZES.values()], axis=1)


def check(scored: Scored, indices: np.ndarray, seeds: Mapping[str, int]) -> None:
    """Assert that the named version, and no other, gave these answers."""
    assert scored.model in seeds, scored.model
    expected = expected_probability(indices, seeds[scored.model])
    assert np.abs(np.array(scored.probability) - expected).max() < TOLERANCE, scored.model


@dataclass
class Traffic:
    """What came back: answers by transport and version, and everything that went wrong."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latest: dict[int, str] = field(default_factory=dict)
    """Version that last answered each client."""

    def seen(self, tag: str) -> bool:
        """Return whether every client's last answer came from ``tag``."""
        return set(self.latest.values()) == {tag}


@contextmanager
def traffic(
    server: Server, seeds: Mapping[str, int], clients: int, *, fresh: bool = False
) -> Iterator[Traffic]:
    """Score without a pause, with ``clients`` gRPC and as many HTTP clients, until the block ends.

    Args:
        server: Who is asked.
        seeds: Tag of each version that may answer, and the seed its model was made from.
        clients: Number of clients of each transport.
        fresh: Connect anew every few requests, so that each worker gets its share.
    """
    found, stop, lock = Traffic(), threading.Event(), threading.Lock()

    def client(number: int, connect: Callable[[], Grpc | Http]) -> None:
        random = np.random.default_rng(number)
        while not stop.is_set():
            transport = connect()
            for _ in range(10 if fresh else 1_000_000):
                if stop.is_set():
                    break
                indices = draw(random, int(random.integers(1, 5)))
                try:
                    scored = transport.score(rows_of(indices))
                    check(scored, indices, seeds)
                except Exception as error:
                    with lock:
                        found.failures.append(f"{transport.name}: {error!r}"[:500])
                    break
                with lock:
                    found.answers[transport.name, scored.model] += 1
                    found.latest[number] = scored.model
            close(transport)

    connects: Sequence[Callable[[], Grpc | Http]] = [
        *[lambda: Grpc(server.grpc)] * clients,
        *[lambda: Http(server.http)] * clients,
    ]
    threads = [
        threading.Thread(target=client, args=(number, connect))
        for number, connect in enumerate(connects)
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def close(transport: Grpc | Http) -> None:
    """Close a transport's connection."""
    (transport.channel if isinstance(transport, Grpc) else transport.client).close()


def until(met: Callable[[], bool], failures: Sequence[str], seconds: float = 60) -> None:
    """Wait until ``met()``, but not when something failed meanwhile."""
    end = time.monotonic() + seconds
    while not met():
        assert not failures, failures
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
