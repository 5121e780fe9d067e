"""The outermost ASGI application of a worker: our routes first, all else is BentoML's.

BentoML's own middlewares cost more than a millisecond a request, so what is ours does not pass
through them.  BentoML builds its application before the models are loaded, so `Front` is put around
it first, and begins to answer when it is given an `HttpApp`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import uvicorn.config

from serving import http_protocol
from serving.dataplane import Dataplane
from serving.gate import Gate
from serving.http_api import PREFIX, Facts, HttpApi
from serving.http_message import Receive, Scope, Send
from serving.settings import Settings
from serving.telemetry.observer import Observer
from serving.tls import certificate_name

AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_OIP = "/v2"
_PLAIN = b"text/plain; charset=utf-8"


class Front:
    """Stands before BentoML's application, in the process that serves it.

    Args:
        bento: BentoML's application; lifespan events are its own at any time.
        settings: Limits of connections.
    """

    def __init__(self, bento: AsgiApp, settings: Settings) -> None:
        self._bento = bento
        self._app = bento
        http_protocol.GuardedProtocol.limits = http_protocol.ConnectionLimits(
            connections=settings.max_connections,
            body_bytes=settings.max_message_bytes,
            certificate_name=certificate_name,
        )
        # BentoML leaves the choice of the protocol to uvicorn, and uvicorn makes it here.
        uvicorn.config.HTTP_PROTOCOLS["auto"] = (
            f"{http_protocol.__name__}:{http_protocol.GuardedProtocol.__name__}"
        )

    def open(self, wrap: Callable[[AsgiApp], AsgiApp]) -> None:
        """Answer with what ``wrap`` makes of BentoML's application."""
        self._app = wrap(self._bento)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        await self._app(scope, receive, send)


class HttpApp:
    """Sends each request where it is answered.

    Args:
        bento: BentoML's application.
        gate: Admits requests.
        dataplane: Does the work.
        facts: Tells what is served, and whether this worker should get requests.
        settings: Limits.
        oip: Answers under ``/v2``.
        observer: Has the metrics.
    """

    def __init__(
        self,
        bento: AsgiApp,
        gate: Gate,
        dataplane: Dataplane,
        facts: Facts,
        settings: Settings,
        oip: AsgiApp,
        observer: Observer,
    ) -> None:
        self._bento = bento
        self._gate = gate
        self._facts = facts
        self._api = HttpApi(gate, dataplane, facts, settings, observer)
        self._oip = oip
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(f"{PREFIX}/"):
                return await self._api(scope, receive, send)
            if path.startswith(_OIP) and path[len(_OIP) :][:1] in {"", "/"}:
                return await self._oip(scope, receive, send)
            if path == "/metrics":
                content, kind = self._observer.exposition()
                return await _answer(send, 200, content, kind.encode())
            if path == "/readyz" and (self._gate.draining or not self._facts.ready):
                return await _answer(send, 503, b"not ready\n", _PLAIN)
        return await self._bento(scope, receive, send)


async def _answer(send: Send, status: int, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
