"""The gRPC methods as both engines see them: bytes in, bytes or a refusal out."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from cipherscore.errors import InvalidRequest, RequestError
from serving.call import Call, Scope
from serving.gate import Gate

logger = logging.getLogger("bentoml.cipherscore")

CODE_KEY, FIELD_KEY, ROW_KEY = (
    "cipherscore-error-code",
    "cipherscore-error-field",
    "cipherscore-error-row",
)
PUSHBACK_KEY = "grpc-retry-pushback-ms"
INTERNAL = "internal"
OK = "ok"
CANCELLED = "cancelled"

Respond: TypeAlias = Callable[["bytes | BaseException"], None]
_Request = TypeVar("_Request", bound=Message)


@dataclass(frozen=True)
class Unary:
    """One request, one response.

    Attributes:
        name: Short name for metrics and logs.
        scope: What the caller must be allowed to do.
        start: Begins the work on a serialized request; calls its last argument exactly once, on
            the loop, now or later, with the serialized response or the error.  It may also raise a
            `RequestError` at once instead.
    """

    name: str
    scope: Scope | None
    start: Callable[[bytes, Call, Respond], None]


@dataclass(frozen=True)
class Stream:
    """Any number of requests and responses.

    Attributes:
        name: See `Unary`.
        scope: See `Unary`.
        run: Takes the serialized requests, gives the serialized responses; raises a
            `RequestError` to end the call with it.
        client_streaming: Whether more than one request may come.
    """

    name: str
    scope: Scope | None
    run: Callable[[AsyncIterator[bytes], Call], AsyncIterator[bytes]]
    client_streaming: bool


Method: TypeAlias = "Unary | Stream"


@dataclass(frozen=True)
class GrpcApp:
    """What an engine serves: methods by their full path, ``/package.Service/Method``."""

    methods: Mapping[str, Method]
    gate: Gate


def trailers(error: BaseException) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """Return status code, message and metadata that end a call with ``error``.

    Anything but a refusal is a bug: it is logged, without its message, and the caller learns no
    more than that.
    """
    if not isinstance(error, RequestError):
        log_failure("gRPC", error)
        return grpc.StatusCode.INTERNAL.value[0], "internal error", ()
    found = [(CODE_KEY, error.code)]
    if error.field is not None:
        found.append((FIELD_KEY, error.field))
    if error.row is not None:
        found.append((ROW_KEY, str(error.row)))
    if error.retry_after is not None:
        found.append((PUSHBACK_KEY, str(math.ceil(error.retry_after * 1000))))
    code: int = getattr(grpc.StatusCode, error.grpc_status).value[0]
    return code, error.detail, tuple(found)


def outcome(error: BaseException | None) -> str:
    """Return what `Gate.finish` is told."""
    if error is None:
        return OK
    return error.code if isinstance(error, RequestError) else INTERNAL


def log_failure(transport: str, error: BaseException) -> None:
    """Log where a bug struck, but not its message, which may hold a part of the request."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: internal error %s\n%s", transport, type(error).__name__, where)


def parse(message: _Request, content: bytes) -> _Request:
    """Parse ``content`` into ``message``.

    Raises:
        InvalidRequest: It is no such message.
    """
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise InvalidRequest("the message is malformed") from error
    return message
