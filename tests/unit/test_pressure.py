"""Overload as the event loop feels it: when requests are refused, and when no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serving import pressure
from serving.pressure import CALM_SECONDS, LONG_SECONDS, STANDING_SECONDS, TURN_SECONDS, Pressure


class Turns:
    """An event loop whose turns take as long as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(pressure.time, "monotonic", lambda: self.now)
        self.pressure = Pressure()

    async def turn(self, seconds: float) -> bool:
        """Let a request come at the start of a turn, and one at its end; is that one refused?"""
        assert not self.pressure.late(self.now), "the first of a turn is never late"
        self.now += seconds
        refused = self.pressure.late(self.now)
        await asyncio.sleep(0)
        return refused

    async def standing(self) -> None:
        """Have long turns until there is pressure."""
        for _ in range(int(STANDING_SECONDS / LONG) + 2):
            assert not await self.turn(LONG)
        assert self.pressure.high


LONG, SHORT = 2 * LONG_SECONDS, TURN_SECONDS / 2


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


def test_a_single_long_turn_is_no_pressure(turns: Turns) -> None:
    async def main() -> None:
        for _ in range(5):
            assert not await turns.turn(10.0)
            assert not await turns.turn(SHORT)
        assert not turns.pressure.high

    run(main)


def test_what_comes_late_in_a_turn_is_refused_while_turns_stay_long(turns: Turns) -> None:
    async def main() -> None:
        await turns.standing()
        for _ in range(100):
            assert await turns.turn(LONG)
            assert not await turns.turn(SHORT)

    run(main)


def test_pressure_is_over_after_a_while_of_short_turns(turns: Turns) -> None:
    async def main() -> None:
        await turns.standing()
        for _ in range(int(CALM_SECONDS / SHORT) + 2):
            await turns.turn(SHORT)
        assert not turns.pressure.high
        assert not await turns.turn(LONG)

    run(main)


def test_an_idle_time_is_no_turn(turns: Turns) -> None:
    async def main() -> None:
        for _ in range(20):
            assert not await turns.turn(SHORT)
            turns.now += 10.0
        assert not turns.pressure.high

    run(main)


def test_turns_that_are_long_enough_for_batches_are_no_pressure_but_do_not_end_it(
    turns: Turns,
) -> None:
    between = (TURN_SECONDS + LONG_SECONDS) / 2

    async def main() -> None:
        for _ in range(int(3 * STANDING_SECONDS / between)):
            assert not await turns.turn(between)
        await turns.standing()
        for _ in range(int(3 * CALM_SECONDS / between)):
            assert await turns.turn(between)

    run(main)
