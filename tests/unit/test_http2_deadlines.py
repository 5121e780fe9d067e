"""The timer wheel."""

import asyncio
import math
import time
from itertools import pairwise

import pytest

from serving.http2 import deadlines
from serving.http2.deadlines import TICK, Deadlines


class Mortal:
    def __init__(self, deadline):
        self.deadline = deadline
        self.closed = False
        self.expired = 0.0

    def expire(self):
        assert not self.expired
        self.expired = time.monotonic()
        self.closed = True


async def until(condition):
    while not condition():  # noqa: ASYNC110 - the wheel has no event
        await asyncio.sleep(TICK)


def test_each_expires_after_its_deadline_and_in_order():
    async def main():
        wheel, now = Deadlines(), time.monotonic()
        seconds = [0.0, 0.005, 0.02, 0.1, 0.31, 0.32, 0.33, 0.7, 1.1]  # a round is 0.32
        calls = [Mortal(now + each) for each in seconds]
        for call in calls:
            wheel.add(call)
        await until(lambda: all(call.expired for call in calls))
        assert all(call.expired >= call.deadline for call in calls)
        # Those of one turn of the wheel expire together, in no order.
        ended = [call.expired for call in calls]
        assert all(later > earlier - 0.05 for earlier, later in pairwise(ended))
        await until(lambda: not wheel.armed)

    asyncio.run(main())


def test_what_has_ended_is_left_alone_and_the_wheel_stops():
    async def main():
        wheel, now = Deadlines(), time.monotonic()
        ended, endless = Mortal(now + 0.05), Mortal(math.inf)
        wheel.add(ended)
        wheel.add(endless)
        ended.closed = True
        await asyncio.sleep(0.5)
        assert not ended.expired
        assert not endless.expired
        assert wheel.armed
        endless.closed = True
        await until(lambda: not wheel.armed)
        again = Mortal(time.monotonic())
        wheel.add(again)
        await until(lambda: again.expired)

    asyncio.run(main())


def test_a_loop_that_stood_still_misses_none(monkeypatch):
    async def main():
        wheel, now = Deadlines(), time.monotonic()
        calls = [Mortal(now + step * 0.03) for step in range(40)]
        for call in calls:
            wheel.add(call)
        await asyncio.sleep(0.05)
        time.sleep(0.9)  # noqa: ASYNC251 - a model run, say
        await until(lambda: all(call.expired for call in calls))

    asyncio.run(main())


def test_an_end_may_begin_another():
    async def main():
        wheel = Deadlines()
        second = Mortal(0.0)

        class First(Mortal):
            def expire(self):
                super().expire()
                wheel.add(second)

        wheel.add(First(0.0))
        await until(lambda: second.expired)

    asyncio.run(main())


@pytest.mark.parametrize("count", [1000])
def test_ended_calls_do_not_pile_up(count):
    async def main():
        wheel = Deadlines()
        for _ in range(count):
            call = Mortal(time.monotonic() + 300)
            wheel.add(call)
            call.closed = True
        await asyncio.sleep(deadlines.TICK * 5)
        assert wheel.fresh == []
        assert not wheel.armed

    asyncio.run(main())
