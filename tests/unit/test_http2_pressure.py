"""Calls that are refused before they are looked at: each gets its status, nothing else suffers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serving.pressure import TURN_SECONDS
from tests.support.http2_wire import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    RST,
    Frame,
    Wire,
    frame,
    headers,
    message,
    unary,
)

OVERLOADED = {"grpc-status": "8", "cipherscore-error-code": "overloaded"}


class Pressed(Wire):
    """A connection in a turn of the loop that has taken too long already."""

    def __init__(self) -> None:
        super().__init__()
        self.feed(unary(1))  # the connection remembers these headers from now on
        self.take()
        pressure = self.echo.gate.pressure
        pressure.high = True
        pressure._high_until = time.monotonic() + 60
        pressure._began = time.monotonic() - 2 * TURN_SECONDS

    def refused(self, found: list[Frame]) -> list[int]:
        """Return the streams that were told the server is overloaded, and when to come again."""
        streams = []
        for one in found:
            if one.kind == HEADERS:
                fields = self.fields(one)
                assert fields.items() >= OVERLOADED.items()
                assert int(fields["grpc-retry-pushback-ms"]) > 0
                assert one.flags & END_STREAM
                streams.append(one.stream)
        return streams


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_calls_in_one_piece_are_refused_and_counted() -> None:
    async def main() -> None:
        wire = Pressed()
        found = await wire.exchange(b"".join(unary(stream) for stream in range(3, 203, 2)))
        assert wire.refused(found) == list(range(3, 203, 2))
        assert {one.kind for one in found} == {HEADERS}  # no reset: the clients have sent all
        assert wire.echo.gate.refused == {"Unary": 100}
        assert len(wire.echo.gate.admitted) == 1
        assert not wire.connection.streams

    run(main)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_call_that_comes_in_pieces_is_refused_once(cut: int) -> None:
    async def main() -> None:
        wire = Pressed()
        whole = unary(3)
        cut_at = len(headers(3)) + cut % (len(whole) - len(headers(3)))
        found = await wire.exchange(whole[:cut_at])
        assert wire.refused(found) == [3]
        assert [one.code for one in found if one.kind == RST] == [NO_ERROR]
        assert await wire.exchange(whole[cut_at:]) == []  # ignored, as it was on its way
        wire.echo.gate.pressure.high = False
        answer = await wire.exchange(unary(5))
        assert [one.payload for one in answer if one.kind == DATA] == [message(b"hello")]

    run(main)


def test_other_frames_between_are_none_of_the_call() -> None:
    async def main() -> None:
        wire = Pressed()
        two = headers(3) + headers(5)
        bodies = [frame(DATA, END_STREAM, stream, message(b"hello")) for stream in (5, 3)]
        found = await wire.exchange(two + b"".join(bodies))
        assert wire.refused(found) == [3, 5]
        assert GOAWAY not in {one.kind for one in found}

    run(main)


def test_what_is_open_to_everybody_is_answered() -> None:
    async def main() -> None:
        wire = Pressed()
        found = await wire.exchange(
            headers(3, "/test.Echo/Watch") + frame(DATA, END_STREAM, 3, message(b"ready"))
        )
        assert [one.payload for one in found if one.kind == DATA] == [message(b"ready")]
        wire.lose()

    run(main)


def test_the_window_is_given_back() -> None:
    async def main() -> None:
        wire = Pressed()
        room = wire.connection.room
        found = await wire.exchange(unary(3, bytes(10_000)))
        assert wire.refused(found) == [3]
        assert wire.connection.room < room - 10_000
        for stream in range(5, 1005, 2):
            await wire.exchange(unary(stream, bytes(10_000)))
        assert wire.connection.room > 0
        assert not wire.transport.closing

    run(main)
