"""The gateway's HTTP application: raw records in, classes out, on the data owner's side.

=====================================  ==========================================================
``POST /predictCreditRisk``            JSON list of raw records -> ``[[1],[2],...]`` in order:
                                       the schema's value for good or bad credit
``GET /livez``                         200 as long as the process runs
``GET /readyz``                        200 if the host serves a classifier for our key, else 503
=====================================  ==========================================================

A refusal is JSON too: ``{"error": ..., "field": ..., "record": ...}``; the last two only where they
are known, ``record`` counts from 0.  A host that limits the rate, is overloaded or shuts down gives
429 or 503 with its ``Retry-After``.  Bodies and values are never logged.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cipherscore.client.context import forwarding
from cipherscore.client.gateway.body import (
    MAX_BODY_BYTES,
    MAX_RECORDS,
    BodyError,
    locate,
    parse_records,
    read_body,
)
from cipherscore.client.incoming import ModelInfo, Score
from cipherscore.errors import (
    BatchTooLarge,
    DataError,
    DeadlineExceeded,
    DeadlinePassed,
    Draining,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    RequestError,
    ServiceError,
    ServiceUnavailable,
    UnknownToken,
)
from cipherscore.schema import Schema

logger = logging.getLogger(__name__)

READY_TIMEOUT = 2.0
_CALLER_AT_FAULT = (UnknownToken, BatchTooLarge)


class Host(Protocol):
    """What the gateway needs of `cipherscore.client.AsyncClient`."""

    schema: Schema

    @property
    def key_id(self) -> str:
        """Id of the key in use."""

    async def score(
        self, rows: Any, *, draws: int = 1, timeout: float | None = None
    ) -> list[Score]:
        """Score raw records."""

    async def model(self, kind: str = "classifier", *, timeout: float | None = None) -> ModelInfo:
        """Describe a model."""

    async def close(self) -> None:
        """Close the connection."""


def create_app(
    client: Host,
    *,
    allowed_hosts: Sequence[str] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_records: int = MAX_RECORDS,
    draws: int = 1,
) -> Starlette:
    """Return the application.  It closes ``client`` when it shuts down.

    Args:
        client: Encrypts and asks the host.
        allowed_hosts: Names that a request's Host header may hold, without port; None for any.  A
            list keeps web pages that rebind their own name to 127.0.0.1 from using the gateway.
        max_body_bytes: Longest request body.
        max_records: Most records of one request.
        draws: How often the homophones of each record are drawn, see the client's ``score``.
    """
    gateway = _Gateway(client, max_body_bytes, max_records, draws)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await client.close()

    app = Starlette(
        routes=[
            Route("/predictCreditRisk", gateway.predict, methods=["POST"]),
            Route("/livez", gateway.livez, methods=["GET"]),
            Route("/readyz", gateway.readyz, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    if allowed_hosts is not None:
        app.add_middleware(_HostGuard, allowed=frozenset(name.lower() for name in allowed_hosts))
    return app


class _Gateway:
    def __init__(self, client: Host, max_body_bytes: int, max_records: int, draws: int) -> None:
        self._client = client
        self._draws = draws
        self._max_body_bytes = max_body_bytes
        self._max_records = max_records
        target = client.schema.target
        self._classes = {"good": _class_value(target.good), "bad": _class_value(target.bad)}

    async def predict(self, request: Request) -> Response:
        records: list[dict[str, Any]] = []
        try:
            declared = request.headers.get("content-length")
            body = await read_body(request.stream(), declared, self._max_body_bytes)
            records = parse_records(body, self._max_records)
            with forwarding(request.headers):
                scores = await self._client.score(records, draws=self._draws)
            return _json([[self._classes[score.decision]] for score in scores])
        except ClientDisconnect:
            return Response(status_code=400)
        except (DataError, RequestError, ServiceError) as error:
            return self._refusal(error, records)
        except Exception as error:  # noqa: BLE001  (a traceback in a log could hold raw values)
            logger.error("unexpected %s while scoring", type(error).__qualname__)  # noqa: TRY400
            return _json({"error": "the gateway failed"}, 500)

    async def livez(self, _: Request) -> Response:
        return _json({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        try:
            model = await self._client.model("classifier", timeout=READY_TIMEOUT)
        except (RequestError, ServiceError) as error:
            return _json({"status": "not ready", "error": str(error)}, 503)
        if model.key_id != self._client.key_id:
            detail = f"the model was trained under key {model.key_id}, not {self._client.key_id}"
            return _json({"status": "not ready", "error": detail}, 503)
        return _json({"status": "ready", "model": model.model})

    def _refusal(
        self, error: DataError | RequestError | ServiceError, records: list[dict[str, Any]]
    ) -> Response:
        status = _status(error)
        field, row = getattr(error, "field", None), getattr(error, "row", None)
        if isinstance(error, DataError) and field is None and row is None:
            field, row = locate(records, self._client.schema) or (None, None)
        content: dict[str, Any] = {"error": str(error)}
        if field is not None:
            content["field"] = field
        if row is not None:
            content["record"] = row
        if status >= 500:
            logger.warning("the host could not answer: %s", type(error).__name__)
        wait = getattr(error, "retry_after", None)
        headers = None if wait is None else {"retry-after": str(max(1, math.ceil(wait)))}
        return _json(content, status, headers)


def _status(error: DataError | RequestError | ServiceError) -> int:
    """Return the HTTP status: 4xx where the caller can mend it, else that of a bad gateway."""
    if isinstance(error, BodyError):
        return error.status
    if isinstance(error, DataError):
        return 400
    if isinstance(error, _CALLER_AT_FAULT):
        return error.http_status
    if isinstance(error, (RateLimited, Overloaded)):
        return 429
    if isinstance(error, (ServiceUnavailable, ModelUnavailable, Draining)):
        return 503
    return 504 if isinstance(error, (DeadlineExceeded, DeadlinePassed)) else 502


class _HostGuard:
    """Refuses requests whose Host header names none of the allowed hosts."""

    def __init__(self, app: Callable[..., Any], allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
            if re.sub(r":\d*\Z", "", host) not in self._allowed:
                await _json({"error": "unknown Host header"}, 421)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _http_error(_: Request, error: Exception) -> Response:
    """Answer unknown paths (404) and wrong methods (405, with Allow) in JSON."""
    assert isinstance(error, HTTPException)  # how it is registered
    return _json({"error": error.detail}, error.status_code, error.headers)


def _json(content: Any, status: int = 200, headers: Any = None) -> Response:
    """Return JSON in ASCII, so that a lone surrogate in a caller's text cannot break the answer."""
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    answer = Response(body, status, headers=headers, media_type="application/json")
    if status == 413:
        answer.headers["connection"] = "close"  # the rest of the body is not read
    return answer


def _class_value(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else text
