"""A call with any number of requests or responses: a task, and pressure back both ways."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

from cipherscore.errors import Draining
from serving.call import Call
from serving.gate import ENDING, ENDING_RETRY
from serving.http2.exchanges import Exchange
from serving.http2.frames import END_HEADERS, HEADERS, frame
from serving.http2.limits import MESSAGE_BYTES, OUTPUT_BYTES
from serving.http2.messages import (
    HEADERS_BLOCK,
    INTERNAL,
    OK,
    OK_BLOCK,
    PREFIX,
    UNAVAILABLE,
    Assembler,
    CallFault,
    Inflation,
    Message,
    malformed,
    miscounted,
    trailers_only_block,
)
from serving.http2.requests import Request
from serving.rpc import Stream

if TYPE_CHECKING:
    from serving.http2.lifecycle import Lifecycle


class StreamingExchange(Exchange):
    """A call of a `serving.rpc.Stream`.  It is also the iterator of its own request messages.

    The client may send as much as a window and one message ahead of what the method has taken; the
    method may be one message ahead of what the client has.
    """

    __slots__ = (
        "_assembler",
        "_leaving",
        "_loop",
        "_messages",
        "_method",
        "_readable",
        "_task",
        "_waiting",
        "_writable",
    )

    def __init__(
        self, connection: Lifecycle, stream_id: int, request: Request, method: Stream
    ) -> None:
        super().__init__(connection, stream_id, request)
        self._method = method
        self._assembler = Assembler(connection.hub.limits.message_bytes)
        self._messages: deque[Message] = deque()
        self._waiting = 0
        self._leaving = False
        self._loop = asyncio.get_running_loop()
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def waits_for_work(self) -> bool:
        """A health watch is no work; it would never end."""
        return self._method.scope is not None

    # ---- requests

    def open(self) -> None:
        """Have it admitted; a method that takes several messages begins before the first."""
        if self.admit(self._method) is not None and self._method.client_streaming:
            self._begin()

    def _begin(self) -> None:
        assert self.call is not None
        self._task = self._loop.create_task(self._serve(self.call))

    def _take(self, payload: bytes) -> None:
        try:
            found = self._assembler.feed(payload)
            self.charge(len(payload), len(found))
            self._waiting += sum(_cost(message) for message in found)
            self._messages += found
            if len(self._messages) > 1 and not self._method.client_streaming:
                raise miscounted("the method takes exactly one request message")
            self._settle()
        except CallFault as fault:
            self.fail(fault)
            return
        if self._messages:
            _wake(self._readable)

    def _complete(self) -> None:
        if self._assembler.pending:
            self.fail(malformed("the request ends within a message"))
        elif self._method.client_streaming:
            _wake(self._readable)
        elif self._messages:
            self._begin()
        else:
            self.fail(miscounted("the method takes exactly one request message, none was sent"))

    def _settle(self) -> None:
        """Bring memory and window up to date with what waits."""
        self.hold(self._assembler.pending + self._waiting)
        if not self._messages:
            self.replenish()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._messages:
            if self.ended or self.closed or self._leaving:
                raise StopAsyncIteration
            self._readable = self._loop.create_future()
            await self._readable
        message = self._messages.popleft()
        self._waiting -= _cost(message)
        self._settle()
        compressed, content = message
        return await self._inflated(content) if compressed else content

    async def _inflated(self, content: bytes) -> bytes:
        if self.request.encoding == "identity":
            detail = "a message is compressed, but grpc-encoding says identity"
            raise CallFault(INTERNAL, detail, "invalid-request")
        inflation = Inflation(content, self.connection.hub.limits.message_bytes)
        small = inflation.at_once()
        if small is not None:
            return small
        return await self._loop.run_in_executor(None, inflation.rest)

    # ---- responses

    async def _serve(self, call: Call) -> None:
        responses = self._method.run(self, call)
        try:
            async for response in responses:
                await self._send(response)
        except asyncio.CancelledError:
            # By `close`, or by whoever ends the event loop.
            self._task = None
            self.fail(CallFault(UNAVAILABLE, ENDING, "cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - the call ends with it; a bug is logged
            self._task = None
            self.fail(error)
        else:
            self._task = None
            if self._leaving and not self.ended:
                self.fail(Draining(ENDING, retry_after=ENDING_RETRY))
            elif not self.closed:
                self.finish(OK_BLOCK if self.begun else trailers_only_block(OK, ""), "ok")
        finally:
            close = getattr(responses, "aclose", None)
            if close is not None:
                with suppress(Exception):  # the call is over, and has its status
                    await close()

    async def _send(self, response: bytes) -> None:
        out = self.out
        if not self.begun:
            self.begun = True
            out.push(frame(HEADERS, END_HEADERS, self.id, HEADERS_BLOCK))
        out.send(self, PREFIX.pack(0, len(response)) + response)
        if self.id in out.blocked:
            self._writable = self._loop.create_future()
            await self._writable
        elif out.queued * 4 > OUTPUT_BYTES:
            # A method that never waits must not hold up the others.
            out.flush()
            await asyncio.sleep(0)

    def drained(self) -> None:
        """Let the method send its next message."""
        _wake(self._writable)

    # ---- the end

    def leave(self) -> None:
        """Answer the messages that have come, then end the call; the client knows of the drain."""
        if self._method.client_streaming:
            self._leaving = True
            _wake(self._readable)

    def close(self, code: str) -> None:
        """Let go of everything, and end the task."""
        if self.closed:
            return
        super().close(code)
        self._messages.clear()
        if self._task is not None:
            self._task.cancel()


def _cost(message: Message) -> int:
    """Return about how many bytes a message takes in memory."""
    return len(message[1]) + MESSAGE_BYTES


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
