"""The Open Inference Protocol over HTTP, below ``/v2``."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from pydantic_core import to_json

from cipherscore.errors import BatchTooLarge, InvalidRequest, RequestError
from serving.call import Call
from serving.call import Scope as Right
from serving.dataplane import Dataplane
from serving.futures import settle
from serving.gate import Gate
from serving.http_message import (
    JSON,
    Disconnected,
    Exchange,
    Problem,
    Receive,
    Scope,
    Send,
    problem_of,
)
from serving.http_protocol import CERTIFICATE
from serving.oip import scoring
from serving.oip.inference import Inference
from serving.oip.json_wire import ready_only, request_of, response_of
from serving.oip.protocol import Answer, Request, wanted
from serving.oip.repository import Repository
from serving.rpc import CANCELLED, INTERNAL, OK, log_failure, outcome
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.lineup import Lineup

ROOT = "/v2"
HEADER_LENGTH = "inference-header-content-length"
_BINARY = b"application/octet-stream"
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

_Work: TypeAlias = Callable[[Exchange, Call], Awaitable[None]]
_Route: TypeAlias = "tuple[str, str, Right | None, _Work]"
"""HTTP method, name for metrics, right that is needed, and what is done."""


class OipHttp:
    """ASGI application for the paths below ``/v2``.

    Args:
        gate: Admits requests.
        dataplane: Has the work done.
        lineup: The live versions.
        settings: Limits.
    """

    def __init__(
        self, gate: Gate, dataplane: Dataplane, lineup: Lineup, settings: Settings
    ) -> None:
        self._gate = gate
        self._settings = settings
        self._inference = Inference(dataplane, lineup, settings)
        self._repository = Repository(lineup)
        repository = self._repository
        self._fixed: dict[str, _Route] = {
            "": ("GET", "ServerMetadata", None, _telling(repository.server_metadata)),
            "health/live": ("GET", "ServerLive", None, _telling(lambda: {"live": True})),
            "health/ready": ("GET", "ServerReady", None, self._ready),
            "repository/index": ("POST", "RepositoryIndex", None, self._index),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        exchange = Exchange(scope, receive, send)
        try:
            method, name, right, work = self._route(scope["path"])
            _check_method(scope["method"], method)
            certificate = scope.get("state", {}).get(CERTIFICATE, "")
            call = self._gate.admit(
                "http", name, right, exchange.headers, certificate, exchange.timeout()
            )
        except (RequestError, Problem) as error:
            await _refuse(exchange, error)
            return
        call.request_id = exchange.request_id
        code = INTERNAL
        try:
            await work(exchange, call)
            code = OK
        except Disconnected:
            code = CANCELLED
        except (RequestError, Problem) as error:
            code = error.code if isinstance(error, Problem) else outcome(error)
            await _refuse(exchange, error)
        except asyncio.CancelledError:
            code = CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - the last resort; it is logged
            log_failure("HTTP", error)
            await _refuse(exchange, error)
        finally:
            self._gate.finish(call, code)

    def _route(self, path: str) -> _Route:
        """Return what a path stands for.

        Raises:
            Problem: 404.
        """
        parts = path.strip("/").split("/")[1:]
        found = self._fixed.get("/".join(parts))
        if found is None and parts[:2] == ["repository", "models"] and len(parts) == 4:
            found = self._repository_route(parts[2], parts[3])
        elif found is None and parts[:1] == ["models"] and len(parts) >= 2:
            found = self._model_route(parts[1], parts[2:])
        if found is None:
            raise Problem(404, "not-found", "Not found", "no such path below /v2")
        return found

    def _repository_route(self, name: str, action: str) -> _Route | None:
        if action == "load":
            return "POST", "RepositoryModelLoad", "admin", self._loading(name)
        if action == "unload":
            return "POST", "RepositoryModelUnload", "admin", self._unloading(name)
        return None

    def _model_route(self, name: str, rest: list[str]) -> _Route | None:
        version = ""
        if rest[:1] == ["versions"] and len(rest) >= 2:
            version, rest = rest[1], rest[2:]
        repository = self._repository
        if not rest:
            return (
                "GET",
                "ModelMetadata",
                None,
                _telling(lambda: repository.model_metadata(name, version)),
            )
        if rest == ["ready"]:
            return (
                "GET",
                "ModelReady",
                None,
                _telling(lambda: repository.ready_facts(name, version)),
            )
        if rest == ["config"]:
            return (
                "GET",
                "ModelConfig",
                None,
                _telling(lambda: repository.model_config(name, version)),
            )
        if rest == ["infer"]:
            right: Right = "generate" if repository.generates(name, version) else "score"
            return "POST", "ModelInfer", right, self._inferring(wanted(name, version))
        return None

    # ---- what the routes do

    async def _ready(self, exchange: Exchange, _: Call) -> None:
        ready = self._repository.ready and not self._gate.draining
        await exchange.answer(200 if ready else 503, to_json({"ready": ready}))

    async def _index(self, exchange: Exchange, _: Call) -> None:
        content = await exchange.body(self._settings.max_message_bytes)
        only_ready = ready_only(content)
        await exchange.answer(200, to_json(await self._repository.index(only_ready=only_ready)))

    def _loading(self, name: str) -> _Work:
        async def work(exchange: Exchange, _: Call) -> None:
            await self._repository.load(name)
            await exchange.answer(200, to_json({"model_name": name}))

        return work

    def _unloading(self, name: str) -> _Work:
        async def work(exchange: Exchange, _: Call) -> None:
            await self._repository.unload(name)
            await exchange.answer(200, to_json({"model_name": name}))

        return work

    def _inferring(self, model: str) -> _Work:
        async def work(exchange: Exchange, call: Call) -> None:
            content = await self._body(exchange)
            request, binary = request_of(model, content, _header_length(exchange))
            answer = await exchange.while_there(self._answer(call, request), call)
            body, header = response_of(answer, binary)
            if header is None:
                await exchange.answer(200, body)
            else:
                more = [(HEADER_LENGTH.encode(), b"%d" % header)]
                await exchange.answer(200, body, _BINARY, more)

        return work

    def _answer(self, call: Call, request: Request) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        if not scoring.is_scoring(request):
            return loop.create_task(self._inference.generate(call, request))
        future: asyncio.Future[Answer] = loop.create_future()
        self._inference.score(call, request, settle(future))
        return future

    async def _body(self, exchange: Exchange) -> bytes:
        """Return the body, unpacked.

        Raises:
            RequestError, Problem: It is too large, or packed in an unknown way.
        """
        limit = self._settings.max_message_bytes
        content = await exchange.body(limit)
        encoding = exchange.headers.get("content-encoding", "identity").strip().lower()
        if encoding == "identity":
            return content
        if encoding not in _WINDOW:
            raise Problem(
                415, "unsupported-media-type", "Unsupported media type", "use gzip or deflate"
            )
        return _unpack(content, _WINDOW[encoding], limit)


def _telling(facts: Callable[[], object]) -> _Work:
    async def work(exchange: Exchange, _: Call) -> None:
        await exchange.answer(200, to_json(facts()))

    return work


def _unpack(content: bytes, window: int, limit: int) -> bytes:
    """Return ``content`` decompressed.

    Raises:
        BatchTooLarge: It has more than ``limit`` bytes; no more are made.
        InvalidRequest: It is damaged.
    """
    unpacker = zlib.decompressobj(window)
    try:
        found = unpacker.decompress(content, limit)
    except zlib.error as error:
        raise InvalidRequest("the body cannot be decompressed") from error
    if unpacker.unconsumed_tail:
        raise BatchTooLarge(f"the body has more than {limit} bytes; send several requests")
    if not unpacker.eof:
        raise InvalidRequest("the body cannot be decompressed")
    return found


def _check_method(given: str, expected: str) -> None:
    if given != expected:
        raise Problem(
            405, "method-not-allowed", "Method not allowed", f"use {expected}",
            ((b"allow", expected.encode()),),
        )  # fmt: skip


def _header_length(exchange: Exchange) -> int | None:
    text = exchange.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise InvalidRequest(f"{HEADER_LENGTH} is a number of bytes", field=HEADER_LENGTH)


async def _refuse(exchange: Exchange, error: BaseException) -> None:
    """Answer ``error`` in the protocol's form, unless an answer has begun."""
    if exchange.started:
        return
    problem = problem_of(error)
    content: dict[str, object] = {"error": problem.detail or problem.title, "code": problem.code}
    if isinstance(error, RequestError):
        if error.field is not None:
            content["field"] = error.field
        if error.row is not None:
            content["row"] = error.row
    await exchange.answer(problem.status, to_json(content), JSON, list(problem.headers))
