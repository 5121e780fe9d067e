"""A call with one request and one response.  This is the hot path: no task, no future."""

from __future__ import annotations

import asyncio

from serving.http2.exchanges import Exchange
from serving.http2.frames import END_HEADERS, END_STREAM, HEADERS, frame
from serving.http2.messages import (
    HEADERS_BLOCK,
    INTERNAL,
    OK_BLOCK,
    PREFIX,
    PREFIX_BYTES,
    Assembler,
    CallFault,
    Inflation,
    Message,
    answer_head,
    answer_tail,
    malformed,
    miscounted,
)


class UnaryExchange(Exchange):
    """A call of a `serving.rpc.Unary`."""

    __slots__ = ("_message",)

    _message: Message | None  # set together with the assembler

    def open(self) -> None:
        """Have it admitted; the work begins when the whole request is there."""
        method = self.request.unary
        assert method is not None
        self.untouched = self.admit(method) is not None

    def whole(self, content: bytes) -> None:
        """Take the whole request, a single message that is not compressed."""
        self.ended = True
        self.untouched = False
        self._start(content)

    def _take(self, payload: bytes) -> None:
        try:
            assembler = self.assembler
            if assembler is None:
                assembler = self.assembler = Assembler(self.connection.hub.limits.message_bytes)
                self._message = None
            found = assembler.feed(payload)
            self.charge(len(payload), len(found))
            for message in found:
                if self._message is not None:
                    raise miscounted("the method takes exactly one request message")
                self._message = message
            self.hold(assembler.pending + (len(self._message[1]) if self._message else 0))
        except CallFault as fault:
            self.fail(fault)
            return
        self.replenish()

    def _complete(self) -> None:
        assembler = self.assembler
        if assembler is not None and assembler.pending:
            self.fail(malformed("the request ends within a message"))
        elif assembler is None or self._message is None:
            self.fail(miscounted("the method takes exactly one request message, none was sent"))
        else:
            compressed, content = self._message
            self._message = self.assembler = None
            self.hold(0)
            if compressed:
                self._inflate(content)
            else:
                self._start(content)

    def _start(self, content: bytes) -> None:
        method, call = self.request.unary, self.call
        assert method is not None
        assert call is not None
        try:
            method.start(content, call, self.done)
        except Exception as error:  # noqa: BLE001 - the call ends with it; a bug is logged
            self.fail(error)

    def done(self, answer: bytes | BaseException) -> None:
        """Send the answer; does nothing if the caller is not waiting any more."""
        if self.closed or self.begun:
            return
        if not isinstance(answer, bytes):
            self.fail(answer)
            return
        out = self.out
        size = len(answer)
        framed = size + PREFIX_BYTES
        if framed > out.frame_limit or framed > out.window or framed > self.window:
            self._send_in_parts(answer)
            return
        out.window -= framed
        out.chunks += (answer_head(self.id, size), answer, answer_tail(self.id))
        # What follows is `close`, of which most does not concern this short way.
        self.closed = True
        connection, call = self.connection, self.call
        assert call is not None
        connection.forget(self)
        connection.hub.gate.finish(call, "ok")
        if not out.held:
            # The last answer of several is not delayed for any further one.
            if connection.streams:
                out.schedule()
            else:
                out.flush()

    def _send_in_parts(self, answer: bytes) -> None:
        self.begun = True
        self.out.push(frame(HEADERS, END_HEADERS, self.id, HEADERS_BLOCK))
        self.out.send(self, PREFIX.pack(0, len(answer)) + answer)

    def drained(self) -> None:
        """Send the trailers."""
        self.out.push(frame(HEADERS, END_HEADERS | END_STREAM, self.id, OK_BLOCK))
        self.close("ok")

    # ---- compression

    def _inflate(self, content: bytes) -> None:
        if self.request.encoding == "identity":
            detail = "a message is compressed, but grpc-encoding says identity"
            self.fail(CallFault(INTERNAL, detail, "invalid-request"))
            return
        inflation = Inflation(content, self.connection.hub.limits.message_bytes)
        try:
            small = inflation.at_once()
        except CallFault as fault:
            self.fail(fault)
            return
        if small is not None:
            self._start(small)
            return
        work = asyncio.get_running_loop().run_in_executor(None, inflation.rest)
        work.add_done_callback(self._inflated)

    def _inflated(self, work: asyncio.Future[bytes]) -> None:
        if work.cancelled() or self.closed:
            work.cancelled() or work.exception()  # so that nobody reports it as unseen
            return
        error = work.exception()
        if error is not None:
            self.fail(error)
        else:
            self._start(work.result())
