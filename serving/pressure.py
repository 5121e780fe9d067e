"""Whether this worker keeps up with what comes; the early sign of overload.

An event loop that does not keep up reads, in each of its turns, more than it can answer, and each
request waits in its socket, unseen, for about as long as a turn takes.  So the length of turns
tells how long requests wait, whatever they wait for.  While turns stay long, what comes late in a
turn is refused: that is cheap, it bounds the next turn, and those that are taken are answered in
time.  A single long turn is no overload; nobody is refused for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

LONG_SECONDS: Final = 0.01
"""A turn of the loop that takes longer tells of overload ..."""
STANDING_SECONDS: Final = 0.1
"""... if all turns did for this long."""
TURN_SECONDS: Final = 0.002
"""How long requests are taken in one turn, under pressure.  Long enough for batches that cost no
more per row than larger ones do."""
CALM_SECONDS: Final = 1.0
"""How long turns must have been shorter than that for it to be over."""
RETRY_SECONDS: Final = 0.5
"""When a refused request may come again."""


class Pressure:
    """Watches the turns of the event loop it lives on.

    Attributes:
        high: Whether what comes late in a turn is to be refused.
    """

    __slots__ = ("_began", "_high_until", "_long_since", "high")

    def __init__(self) -> None:
        self.high = False
        self._began = 0.0
        self._long_since = 0.0
        self._high_until = 0.0

    def late(self, now: float) -> bool:
        """Take note of a request; return whether it is to be refused.

        Args:
            now: `time.monotonic`.
        """
        if not self._began:
            self._began = now
            asyncio.get_running_loop().call_soon(self._end)
            return False
        return self.high and now - self._began > TURN_SECONDS

    def _end(self) -> None:
        """The loop has come round."""
        now = time.monotonic()
        took = now - self._began
        self._began = 0.0
        if self.high:
            if took > TURN_SECONDS:
                self._high_until = now + CALM_SECONDS
            self.high = now < self._high_until
        elif took <= LONG_SECONDS:
            self._long_since = 0.0
        elif not self._long_since:
            self._long_since = now
        elif now - self._long_since > STANDING_SECONDS:
            self.high = True
            self._high_until = now + CALM_SECONDS
            self._long_since = 0.0
