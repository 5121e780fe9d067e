"""One HTTP request and its answer: limited bodies in, JSON and problem+json (RFC 9457) out."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import to_json

from cipherscore.errors import BatchTooLarge, InvalidRequest, RequestError
from serving.call import Call
from serving.rpc import INTERNAL

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = "list[tuple[bytes, bytes]]"

PROBLEM_TYPE = "urn:cipherscore:error:"
JSON, PROBLEM_JSON = b"application/json", b"application/problem+json"
TIMEOUT_HEADER = "x-request-timeout-ms"
REQUEST_ID = "x-request-id"
_MAX_REQUEST_ID = 48  # shorter than a token
_MAX_TIMEOUT_DIGITS = 12
_ids = random.Random()  # noqa: S311 - an id must be unique, not secret
_WATCH_SECONDS = 0.1
"""How long an answer may take before it is watched whether the client still waits for it."""


@dataclass(eq=False)
class Problem(Exception):
    """A refusal that only HTTP knows: a route, a method, a header.

    Attributes:
        status: HTTP status.
        code: Slug, as `RequestError.code`.
        title: What is wrong, in short.
        detail: What to do about it.
        headers: More headers of the answer.
    """

    status: int
    code: str
    title: str
    detail: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Disconnected(Exception):
    """The client has gone; nobody needs an answer."""


def problem_of(error: BaseException) -> Problem:
    """Return what HTTP answers for ``error``; for a bug, nothing of it is told."""
    if isinstance(error, Problem):
        return error
    if not isinstance(error, RequestError):
        return Problem(500, INTERNAL, "Internal error", "internal error")
    headers: Headers = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if error.http_status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="cipherscore"'))
    return Problem(error.http_status, error.code, error.title, error.detail, tuple(headers))


def problem_bytes(problem: Problem, field: str | None = None, row: int | None = None) -> bytes:
    """Return the problem+json body."""
    content = {
        "type": f"{PROBLEM_TYPE}{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail or problem.title,
        "code": problem.code,
    }
    if field is not None:
        content["field"] = field
    if row is not None:
        content["row"] = row
    return to_json(content)


def request_id(headers: Mapping[str, str]) -> str:
    """Return the caller's request id if it is short and printable, else a new one."""
    found = headers.get(REQUEST_ID)
    if found and len(found) <= _MAX_REQUEST_ID and found.isascii() and found.isprintable():
        return found
    return f"{_ids.getrandbits(128):032x}"


class Exchange:
    """One request and its answer.

    Args:
        scope: Its ASGI scope.
        receive: Gives its body.
        send: Takes the answer.

    Attributes:
        headers: Names in lower case; of one sent twice, the last.
        request_id: Id that the answer carries.
        started: Whether an answer has begun.
    """

    __slots__ = ("_receive", "_send", "_watch", "headers", "request_id", "scope", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.request_id = request_id(self.headers)
        self.started = False
        self._receive = receive
        self._send = send
        self._watch: asyncio.Task[None] | None = None

    def timeout(self) -> float | None:
        """Return how many seconds the caller says it waits; None also for what is no time."""
        text = self.headers.get(TIMEOUT_HEADER)
        return int(text) / 1000 if text is not None and _is_timeout(text) else None

    def check_timeout(self) -> None:
        """Refuse a time that is none; apart, so that the caller is identified first.

        Raises:
            InvalidRequest: It is no whole number of milliseconds above 0.
        """
        text = self.headers.get(TIMEOUT_HEADER)
        if text is not None and not _is_timeout(text):
            raise InvalidRequest(
                f"{TIMEOUT_HEADER} is a whole number of milliseconds above 0", field=TIMEOUT_HEADER
            )

    def check_json(self) -> None:
        """Refuse a body that says it is something other than plain JSON; saying nothing is fine.

        Raises:
            Problem: 415.
        """
        kind = self.headers.get("content-type", "application/json")
        if kind != "application/json":
            name, _, _ = kind.partition(";")
            if name.strip().lower() not in {"application/json", ""}:
                raise Problem(
                    415, "unsupported-media-type", "Unsupported media type",
                    "send content-type: application/json", ((b"accept-post", JSON),),
                )  # fmt: skip
        if self.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Problem(
                415, "unsupported-media-type", "Unsupported media type",
                "send the body without a content-encoding", ((b"accept-encoding", b"identity"),),
            )  # fmt: skip

    async def body(self, limit: int) -> bytes:
        """Return the request's body.

        Raises:
            InvalidRequest: Its announced length is no number.
            BatchTooLarge: It has more than ``limit`` bytes; the rest is not kept.
            Disconnected: The client left in the middle of it.
        """
        length = self.headers.get("content-length", "0")
        # isdecimal(): int() and isdigit() take more than RFC 9110 does.
        if not length.isdecimal():
            raise InvalidRequest("content-length is no number", field="content-length")
        if len(length) > 18 or int(length) > limit:
            raise _too_large(limit)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            content: bytes = message.get("body", b"")
            if len(content) > limit:
                raise _too_large(limit)
            return content
        parts = bytearray()
        while message["type"] == "http.request":
            parts += message.get("body", b"")
            if len(parts) > limit:
                raise _too_large(limit)
            if not message.get("more_body"):
                return bytes(parts)
            message = await self._receive()
        raise Disconnected

    async def while_there(self, answer: asyncio.Future[Any], call: Call) -> Any:
        """Wait for ``answer``, but no longer than the client does.

        Raises:
            Disconnected: The client has gone; ``call`` is marked as cancelled.
        """
        if answer.done():
            return answer.result()
        timer = answer.get_loop().call_later(_WATCH_SECONDS, self.watch, call, answer)
        try:
            return await answer
        finally:
            timer.cancel()
            self.unwatch()

    def watch(self, call: Call, answer: asyncio.Future[Any] | None = None) -> None:
        """Mark ``call`` as cancelled, and give ``answer`` up, as soon as the client leaves.

        For use once the body was read.
        """

        async def wait() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            call.cancelled = True
            if answer is not None and not answer.done():
                answer.set_exception(Disconnected())

        self._watch = asyncio.ensure_future(wait())

    def unwatch(self) -> None:
        """End `watch`."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def answer(
        self, status: int, body: bytes, kind: bytes = JSON, more: Headers | None = None
    ) -> None:
        """Send a whole answer."""
        headers = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id.encode()),
        ]
        if more:
            headers += more
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def answer_without_body(self, status: int, more: Headers) -> None:
        """Send headers alone."""
        headers = [(b"x-request-id", self.request_id.encode()), *more]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, error: BaseException) -> None:
        """Send the problem that ``error`` is.

        Where an answer has begun, that stays without its end, and the connection is closed.
        """
        if self.started:
            return
        problem = problem_of(error)
        field, row = (error.field, error.row) if isinstance(error, RequestError) else (None, None)
        body = problem_bytes(problem, field, row)
        await self.answer(problem.status, body, PROBLEM_JSON, list(problem.headers))

    async def begin(self, kind: str, more: Mapping[str, str]) -> None:
        """Begin an answer that is sent in parts."""
        named = {"content-type": kind, REQUEST_ID: self.request_id, **more}
        headers = [(name.encode(), value.encode()) for name, value in named.items()]
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def part(self, body: bytes, *, last: bool = False) -> None:
        """Send a part; returns when the client has taken most of it."""
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


def _is_timeout(text: str) -> bool:
    # int() also takes signs, spaces, underscores and the digits of other scripts.
    digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_TIMEOUT_DIGITS
    return digits and int(text) > 0


def _too_large(limit: int) -> BatchTooLarge:
    return BatchTooLarge(f"the body has more than {limit} bytes; send several requests")
