"""How much one client may ask of one worker."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from cipherscore.errors import RateLimited

CONCURRENCY_RETRY = 0.1
"""Seconds named to a client that has too many requests running; nobody knows when one ends."""

_SLACK = 1e-6
"""Seconds by which rounding may not refuse a request that is just in time."""


@dataclass(frozen=True)
class Limits:
    """Limits of one client; 0 is none.

    Attributes:
        rate: Requests per second in the long run.
        burst: Requests that may come at once.
        concurrent: Requests that may run at once.
    """

    rate: float = 0.0
    burst: int = 1
    concurrent: int = 0


class Limiter:
    """A token bucket and a count of running requests.

    The bucket is kept as one number, the time at which it is full again ("generic cell rate
    algorithm"): over any stretch of ``t`` seconds at most ``rate * t + burst`` requests pass.

    For one event loop; it takes no lock.
    """

    __slots__ = ("_concurrent", "_full_at", "_interval", "_tolerance", "running")

    def __init__(self, limits: Limits) -> None:
        self.running = 0
        self._full_at = 0.0
        self.change(limits)

    def change(self, limits: Limits) -> None:
        """Apply other limits from now on; what runs and what was used stays counted."""
        self._interval = 1 / limits.rate if limits.rate else 0.0
        self._tolerance = (limits.burst - 1) * self._interval + _SLACK
        self._concurrent = limits.concurrent

    def enter(self) -> None:
        """Count a request that begins.

        Raises:
            RateLimited: It is one too many; it is not counted.
        """
        if self._concurrent and self.running >= self._concurrent:
            raise RateLimited(
                f"more than {self._concurrent} requests of this client are running",
                retry_after=CONCURRENCY_RETRY,
            )
        self.charge()
        self.running += 1

    def charge(self) -> None:
        """Count a message that is not the first of its request.

        Raises:
            RateLimited: It comes too soon.
        """
        if self._interval:
            self.take(monotonic())

    def leave(self) -> None:
        """Count a request that ended."""
        self.running -= 1

    def take(self, now: float) -> None:
        """Take one token out of the bucket at `time.monotonic` ``now``.

        Raises:
            RateLimited: It is empty; ``retry_after`` says until when.
        """
        interval = self._interval
        full_at = max(self._full_at, now)
        wait = full_at - now - self._tolerance
        if wait > 0:
            raise RateLimited(
                f"this client sends more than {1 / interval:g} requests per second",
                # Who waits exactly so long must not be refused for the last bit of a sum.
                retry_after=wait + _SLACK,
            )
        self._full_at = full_at + interval

    def idle(self, now: float) -> bool:
        """Whether forgetting this limiter would change nothing."""
        return not self.running and self._full_at <= now
