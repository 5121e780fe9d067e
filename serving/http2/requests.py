"""From header fields to a request, or to why they are none (RFC 9113, section 8; gRPC)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Final, TypeAlias

from serving.http2.headers import Fields
from serving.http2.limits import HEADER_LIST_BYTES
from serving.http2.messages import (
    ACCEPTED,
    ENCODINGS,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    http_block,
    parse_timeout,
    trailers_only_block,
)
from serving.rpc import Method, Unary

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
# No control characters but a tab, and no white space at either end.
_is_value: Final = re.compile(rb"(?![\t ])[^\x00-\x08\x0a-\x1f\x7f]*(?<![\t ])").fullmatch
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_FORBIDDEN: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_CONTENT_TYPE: Final = re.compile(r"application/grpc(?:\+proto)?(?:;.*)?")
_FIELD_OVERHEAD: Final = 32


@dataclass(slots=True, eq=False)
class Request:
    """What the headers of a request say.  Streams with the same headers share it: never changed.

    Attributes:
        method: What is to be called; None if ``refusal`` says why nothing is.
        unary: The same, if it is that kind of method.
        metadata: Header fields but the pseudo ones, in lower case.
        timeout: Seconds the caller waits.
        encoding: How compressed messages are compressed.
        length: ``content-length``.
        refusal: Header block that is the whole answer.
        at_end: Whether that answer must wait for the end of the request: so it is with HTTP that
            is no gRPC, where a client may not expect an answer earlier.
    """

    method: Method | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    encoding: str = "identity"
    length: int | None = None
    refusal: bytes = b""
    at_end: bool = False
    unary: Unary | None = None


class Malformed:
    """Header fields that break the rules of HTTP; a stream error."""

    unary: None = None


MALFORMED: Final = Malformed()
Meaning: TypeAlias = "Request | Malformed"


def interpret(fields: Fields, methods: Mapping[str, Method]) -> Meaning:
    """Return what the header fields of a request mean."""
    split = _split(fields)
    if split is None:
        return MALFORMED
    pseudo, metadata = split
    length = _length(metadata.get("content-length"))
    if length == _BAD_LENGTH or not _is_complete(pseudo):
        return MALFORMED
    status = _http_status(pseudo[b":method"], metadata.get("content-type", ""))
    if status:
        return Request(length=length, refusal=http_block(status), at_end=True)
    if _size(fields) > HEADER_LIST_BYTES:
        refusal = trailers_only_block(RESOURCE_EXHAUSTED, "received metadata is too large")
        return Request(length=length, refusal=refusal)
    return _grpc_request(pseudo[b":path"].decode("latin-1"), metadata, length, methods)


def _is_complete(pseudo: Mapping[bytes, bytes]) -> bool:
    """Return whether the pseudo fields are those that a request must have."""
    method = pseudo.get(b":method")
    if method == b"CONNECT":
        return pseudo.keys() == {b":method", b":authority"}
    return bool(method and pseudo.get(b":scheme") and pseudo.get(b":path"))


def _http_status(method: bytes, content_type: str) -> int:
    """Return the HTTP status of what is no gRPC, else 0."""
    if method != b"POST":
        return 405
    if content_type == "application/grpc" or _CONTENT_TYPE.fullmatch(content_type):
        return 0
    return 415


def _grpc_request(
    path: str, metadata: Mapping[str, str], length: int | None, methods: Mapping[str, Method]
) -> Request:
    method = methods.get(path)
    encoding = metadata.get("grpc-encoding", "identity")
    timeout = None
    refusal = b""
    if "grpc-timeout" in metadata:
        timeout = parse_timeout(metadata["grpc-timeout"])
        if timeout is None:
            refusal = trailers_only_block(INVALID_ARGUMENT, "malformed grpc-timeout")
    if encoding not in ENCODINGS:
        refusal = trailers_only_block(UNIMPLEMENTED, "unknown grpc-encoding", ACCEPTED)
    if method is None:
        refusal = trailers_only_block(UNIMPLEMENTED, "unknown method")
    if refusal:
        return Request(length=length, refusal=refusal)
    unary = method if isinstance(method, Unary) else None
    return Request(method, metadata, timeout, encoding, length, unary=unary)


def _size(fields: Fields) -> int:
    """Return the size of a header list (RFC 9113, section 6.5.2)."""
    return sum(map(len, chain.from_iterable(fields))) + len(fields) * _FIELD_OVERHEAD


def trailers_are_valid(fields: Fields) -> bool:
    """Return whether these may be the trailers of a request."""
    split = _split(fields)
    return split is not None and not split[0]


def _split(fields: Fields) -> tuple[dict[bytes, bytes], dict[str, str]] | None:
    """Return pseudo and other fields, None if they break RFC 9113, section 8.2 or 8.3."""
    pseudo: dict[bytes, bytes] = {}
    found: dict[str, str] = {}
    for name, value in fields:
        if not _is_value(value):
            return None
        if name in _PSEUDO:
            if found or name in pseudo:
                return None
            pseudo[name] = value
            continue
        key = _name(name)
        if key is None or (key == "te" and value.lower() != b"trailers"):
            return None
        text = value.decode("latin-1")
        found[key] = f"{found[key]},{text}" if key in found else text
    return pseudo, found


@lru_cache(maxsize=1024)
def _name(name: bytes) -> str | None:
    """Return a field name as text, None if a request must not have it."""
    return None if name in _FORBIDDEN or not _TOKEN.fullmatch(name) else name.decode("ascii")


_BAD_LENGTH: Final = -1


def _length(text: str | None) -> int | None:
    """Return a content length, None if there is none, `_BAD_LENGTH` if it is no number."""
    if text is None:
        return None
    # Repeated ones are malformed, too: the comma between them is no digit.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else _BAD_LENGTH
