"""Ends calls whose deadline has passed, without a timer for each."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

TICK: Final = 0.01
"""Seconds; a deadline is noticed that much late at most."""
_SLOTS: Final = 32


class Mortal(Protocol):
    """What has a deadline."""

    deadline: float
    closed: bool

    def expire(self) -> None:
        """End it: its deadline has passed."""


class Deadlines:
    """A timer wheel.  Lives on one event loop.

    Most calls end within a tick and never get onto the wheel: adding them is one ``append``, and
    ending them is nothing.  A deadline beyond the wheel's round waits in its last slot, and is
    looked at again when that comes.
    """

    def __init__(self) -> None:
        self.fresh: list[Mortal] = []
        """Calls that began since the last tick: append here, then `arm` unless ``armed``."""
        self.armed = False
        self._slots: list[set[Mortal]] = [set() for _ in range(_SLOTS)]
        self._waiting = 0
        self._tick = int(time.monotonic() / TICK)

    def add(self, call: Mortal) -> None:
        """Have ``call`` ended at its deadline."""
        self.fresh.append(call)
        if not self.armed:
            self.arm()

    def arm(self) -> None:
        """Start ticking; it stops by itself when nothing is left."""
        self.armed = True
        asyncio.get_running_loop().call_later(TICK, self._turn)

    def _turn(self) -> None:
        now = time.monotonic()
        tick = int(now / TICK)
        due: list[Mortal] = []
        # After a long stop of the loop one round covers all slots.
        for passed in range(max(self._tick + 1, tick - _SLOTS + 1), tick + 1):
            slot = self._slots[passed % _SLOTS]
            if slot:
                self._waiting -= len(slot)
                due += slot
                slot.clear()
        self._tick = tick
        due += self.fresh
        self.fresh = []
        for call in due:
            if not call.closed:
                self._place(call, now, tick)
        if self._waiting or self.fresh:
            self.arm()
        else:
            self.armed = False

    def _place(self, call: Mortal, now: float, tick: int) -> None:
        if call.deadline <= now:
            call.expire()
            return
        soon = min(call.deadline, now + _SLOTS * TICK)  # which also makes infinity a number
        ahead = min(max(int(soon / TICK) + 1 - tick, 1), _SLOTS - 1)
        self._slots[(tick + ahead) % _SLOTS].add(call)
        self._waiting += 1
