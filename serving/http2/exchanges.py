"""One call on one stream: what its kinds have in common."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from serving.call import Call
from serving.http2.frames import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    NO_ERROR,
    PROTOCOL_ERROR,
    StreamFault,
    frame,
    reset,
    window_update,
)
from serving.http2.limits import (
    MESSAGES_PER_CHORE,
    REFUSED_BODY_BYTES,
    REFUSED_BODY_SECONDS,
    SMALL_DATA,
    STREAM_WINDOW,
)
from serving.http2.messages import (
    DEADLINE_EXCEEDED,
    HTTP_BODY,
    RESOURCE_EXHAUSTED,
    Assembler,
    CallFault,
    trailers_block,
    trailers_only_block,
)
from serving.http2.requests import Request
from serving.rpc import Method, outcome, trailers

if TYPE_CHECKING:
    from serving.http2.lifecycle import Lifecycle

_NOTHING: Final = memoryview(b"")
_HALF_WINDOW: Final = STREAM_WINDOW // 2
_EARLY: Final = frozenset(("cancelled", "deadline-passed"))


class Exchange:
    """A stream from its headers until its answer is on its way.

    Attributes:
        id: Stream id.
        request: What the headers said.
        window: Bytes of DATA that the client lets it send.
        rest: Bytes of DATA that wait for that.
        room: Bytes of DATA that the client may send.
        received: Bytes of DATA that it sent, without padding.
        ended: Whether it has sent all.
        begun: Whether headers were sent to it.
        closed: Whether all was sent to it, or the stream was given up; nothing happens after that.
        call: The admitted call; None as long as there is none.
        assembler: Finds messages in the request; None as long as none is needed.
        untouched: Whether `whole` may be called: nothing but the headers came yet.
        deadline: `time.monotonic` at which it is ended.
    """

    __slots__ = (
        "_held",
        "assembler",
        "begun",
        "call",
        "closed",
        "connection",
        "deadline",
        "ended",
        "id",
        "out",
        "received",
        "request",
        "rest",
        "room",
        "untouched",
        "window",
    )

    def __init__(self, connection: Lifecycle, stream_id: int, request: Request) -> None:
        self.connection = connection
        self.id = stream_id
        self.request = request
        self.out = out = connection.out
        self.window = out.initial
        self.rest = _NOTHING
        self.room = STREAM_WINDOW
        self.received = 0
        self.ended = False
        self.begun = False
        self.closed = False
        self.untouched = False
        self._held = 0
        self.call: Call | None = None
        self.assembler: Assembler | None = None
        self.deadline = 0.0

    # ---- what the client does

    def open(self) -> None:
        """Have the gate admit the call; begin what can begin without a message."""
        raise NotImplementedError

    def data(self, payload: bytes, size: int, ended: bool) -> None:
        """Take a DATA frame: its payload, its size with padding, whether it is the last.

        Raises:
            StreamFault: It does not fit the window or the content length.
        """
        self.untouched = False
        self.room -= size
        if self.room < 0:
            raise StreamFault(FLOW_CONTROL_ERROR)
        self.received += len(payload)
        if ended:
            self.end(payload)
        else:
            length = self.request.length
            if length is not None and self.received > length:
                raise StreamFault(PROTOCOL_ERROR)
            self._take(payload)

    def whole(self, content: bytes) -> None:
        """Take the whole request, a single message that is not compressed."""
        raise NotImplementedError

    def end(self, payload: bytes = b"") -> None:
        """Take the end of the request, with the last bytes of it.

        Raises:
            StreamFault: The content length was another.
        """
        self.ended = True
        self.untouched = False
        length = self.request.length
        if length is not None and self.received != length:
            raise StreamFault(PROTOCOL_ERROR)
        if payload:
            self._take(payload)
        if not self.closed:
            self._complete()

    def _take(self, payload: bytes) -> None:
        """Take bytes of the request."""
        raise NotImplementedError

    def _complete(self) -> None:
        """Take note that the client has sent all."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Take note that the client, or the connection, has gone."""
        self.close("cancelled")

    def drained(self) -> None:
        """Take note that all of `rest` is on its way."""

    # ---- how it ends

    @property
    def waits_for_work(self) -> bool:
        """Whether shutting down must wait for this."""
        return True

    def leave(self) -> None:
        """The server drains, and the client knows; what waits for messages waits no longer."""

    def expire(self) -> None:
        """End it: its deadline has passed."""
        self.fail(CallFault(DEADLINE_EXCEEDED, "Deadline Exceeded", "deadline-passed"))

    def fail(self, error: BaseException) -> None:
        """Answer with ``error``'s status; does nothing once the call is closed."""
        if self.closed:
            return
        if isinstance(error, CallFault):
            code = error.code
            status = (error.status, error.detail, error.fields)
        else:
            code = outcome(error)
            status = trailers(error)
        block = trailers_block(*status) if self.begun else trailers_only_block(*status)
        self.finish(block, code)

    def finish(self, block: bytes, code: str) -> None:
        """Send ``block`` as the last of the answer, and close."""
        self.out.push(frame(HEADERS, END_HEADERS | END_STREAM, self.id, block))
        if not self.ended:
            # The rest of the request is of no use (RFC 9113, section 8.1).
            self.out.push(reset(self.id, NO_ERROR))
        self.close(code)

    def abort(self, error_code: int) -> None:
        """Reset the stream and close."""
        self.out.push(reset(self.id, error_code))
        self.close("cancelled" if error_code == CANCEL else "invalid-request")

    def close(self, code: str) -> None:
        """Let go of everything; the call is over."""
        if self.closed:
            return
        self.closed = True
        self.connection.forget(self)
        self.hold(0)
        if self.rest:
            self.out.drop(self)
            self.rest = _NOTHING
        if self.call is not None:
            if code in _EARLY:
                self.call.cancelled = True
            self.connection.hub.gate.finish(self.call, code)

    # ---- for its kinds

    def admit(self, method: Method) -> Call | None:
        """Return the admitted call, None if it was refused and that was answered."""
        connection = self.connection
        hub, request = connection.hub, self.request
        try:
            call = hub.gate.admit(
                "grpc",
                method.name,
                method.scope,
                request.metadata,
                connection.certificate,
                request.timeout,
            )
        except Exception as error:  # noqa: BLE001 - a refusal, or a bug, which `fail` has logged
            self.fail(error)
            return None
        self.call = call
        self.deadline = call.deadline
        hub.deadlines.add(self)
        return call

    def hold(self, size: int) -> None:
        """Say that ``size`` bytes of request wait in memory.

        Raises:
            CallFault: That is too much.
        """
        if size == self._held:
            return
        more = size - self._held
        self._held = size
        if not self.connection.hold(more) and more > 0:
            raise CallFault(RESOURCE_EXHAUSTED, "too many incomplete messages", "overloaded")

    def charge(self, size: int, messages: int) -> None:
        """Count DATA of ``size`` bytes that is much work for what it brings.

        Args:
            size: Bytes of it.
            messages: Messages that it completes.

        Raises:
            ConnectionFault: There was too much of that.
        """
        if messages:
            self.connection.chore(messages // MESSAGES_PER_CHORE)
        elif size < SMALL_DATA and not self.ended:
            self.connection.chore()

    def replenish(self) -> None:
        """Let the client send on."""
        if self.room < _HALF_WINDOW and not self.ended and not self.closed:
            self.out.push(window_update(self.id, STREAM_WINDOW - self.room))
            self.room = STREAM_WINDOW


class RefusedExchange(Exchange):
    """A request that is HTTP, but no gRPC: answered when it ends, as HTTP clients expect."""

    __slots__ = ()

    def open(self) -> None:
        """Wait for the end, but not for long."""
        self.deadline = time.monotonic() + REFUSED_BODY_SECONDS
        self.connection.hub.deadlines.add(self)

    def _take(self, payload: bytes) -> None:
        self.charge(len(payload), 0)
        if self.received > REFUSED_BODY_BYTES:
            self._complete()

    def _complete(self) -> None:
        if not self.begun:
            self.begun = True
            self.out.push(frame(HEADERS, END_HEADERS, self.id, self.request.refusal))
            self.out.send(self, HTTP_BODY)

    def drained(self) -> None:
        """End the answer."""
        self.out.push(frame(DATA, END_STREAM, self.id, b""))
        if not self.ended:
            self.out.push(reset(self.id, NO_ERROR))
        self.close("")

    def expire(self) -> None:
        """Answer now, or never."""
        if self.begun:
            self.abort(CANCEL)
        else:
            self.deadline += REFUSED_BODY_SECONDS
            self.connection.hub.deadlines.add(self)
            self._complete()

    @property
    def waits_for_work(self) -> bool:
        """Nothing is lost with it."""
        return False
