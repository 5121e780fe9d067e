"""The HTTP transport: JSON under ``/v1``, errors as problem+json (RFC 9457).

Raw ASGI: routing, admission and answers are a few dictionary look-ups, so that a single row costs
little more than its model run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from pydantic_core import to_json

from cipherscore.errors import RequestError
from serving import call as calls
from serving.call import Call
from serving.dataplane import Dataplane
from serving.gate import Gate, Observer
from serving.http_generate import GenerateRoute
from serving.http_message import Disconnected, Exchange, Problem, Receive, Scope, Send
from serving.http_openapi import DOCS_PAGE, document
from serving.http_parse import parse_score
from serving.http_protocol import CERTIFICATE
from serving.http_rows import ScoreWriter, TextTable
from serving.rpc import CANCELLED, OK, log_failure, outcome
from serving.scorer import Scores
from serving.settings import Settings
from serving.work import INLINE_ROWS

PREFIX = "/v1"
_MODEL_PATH = f"{PREFIX}/models/"
_OTHER = "other"


class Facts(Protocol):
    """Who knows what is served."""

    def facts(self) -> Sequence[Mapping[str, Any]]:
        """Return the facts about every served version."""

    def model_facts(self, kind: str, wanted: str = "") -> Mapping[str, Any]:
        """Return the facts about one.  Raises: UnknownModel, ModelUnavailable."""

    def health(self) -> Mapping[str, Any]:
        """Return the server's state."""

    @property
    def ready(self) -> bool:
        """Whether this worker should get requests."""


@dataclass(frozen=True)
class Operation:
    """What one method of one route does.

    Attributes:
        name: Short name for metrics and logs.
        scope: What the caller must be allowed to do.
        run: Answers an admitted request, or raises.
    """

    name: str
    scope: calls.Scope | None
    run: Callable[[Call, Exchange], Awaitable[None]]


class HttpApi:
    """The ASGI application under ``/v1``.

    Args:
        gate: Admits requests.
        dataplane: Does the work.
        facts: Tells what is served.
        settings: Limits.
        observer: Told about requests to no route.
    """

    def __init__(
        self,
        gate: Gate,
        dataplane: Dataplane,
        facts: Facts,
        settings: Settings,
        observer: Observer,
    ) -> None:
        self._gate = gate
        self._dataplane = dataplane
        self._facts = facts
        self._max_bytes = settings.max_message_bytes
        self._max_rows = settings.max_rows
        self._observer = observer
        self._writer = ScoreWriter()
        credentials = (settings.clients_file, settings.jwt_key_file, settings.tls_client_ca_file)
        self._document = to_json(document(open_to_all=not any(credentials)))
        generate = GenerateRoute(dataplane, settings)
        self._routes: dict[str, dict[str, Operation]] = {
            f"{PREFIX}/score": {"POST": Operation("Score", "score", self._score)},
            f"{PREFIX}/generate": {"POST": Operation("Generate", "generate", generate.run)},
            f"{PREFIX}/models": _reading("Models", self._models),
            f"{PREFIX}/health": _reading("Health", self._health),
            f"{PREFIX}/openapi.json": _reading("OpenApi", self._openapi),
            f"{PREFIX}/docs": _reading("Docs", self._docs),
        }
        self._model_route = _reading("GetModel", self._model)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        path: str = scope["path"]
        route = self._routes.get(path)
        if route is None and path.startswith(_MODEL_PATH):
            route = self._model_route
        operation = None if route is None else route.get(scope["method"])
        if operation is None:
            await self._no_operation(exchange, route)
            return
        certificate = scope.get("state", {}).get(CERTIFICATE, "")
        try:
            call = self._gate.admit(
                "http",
                operation.name,
                operation.scope,
                exchange.headers,
                certificate,
                exchange.timeout(),
            )
        except RequestError as error:
            await exchange.refuse(error)
            return
        call.request_id = exchange.request_id
        await self._answer(call, exchange, operation)

    async def _answer(self, call: Call, exchange: Exchange, operation: Operation) -> None:
        """Do what was asked; whatever happens, the call is finished once."""
        code = CANCELLED
        try:
            exchange.check_timeout()
            await operation.run(call, exchange)
            code = OK
        except Disconnected:
            call.cancelled = True
        except (RequestError, Problem) as error:
            code = error.code
            await exchange.refuse(error)
        except Exception as error:  # noqa: BLE001 - the last resort; it is logged
            code = outcome(error)
            log_failure("HTTP", error)
            await exchange.refuse(error)
        finally:
            self._gate.finish(call, code)

    async def _no_operation(
        self, exchange: Exchange, route: Mapping[str, Operation] | None
    ) -> None:
        if route is None:
            problem = Problem(404, "not-found", "Not found", "there is no such route; see /v1/docs")
        else:
            allow = (b"allow", ", ".join([*route, "OPTIONS"]).encode())
            if exchange.scope["method"] == "OPTIONS":
                await exchange.answer_without_body(204, [allow])
                return
            problem = Problem(
                405, "method-not-allowed", "Method not allowed", "see /v1/docs", (allow,)
            )
        self._observer.refused("http", _OTHER, problem.code)
        await exchange.refuse(problem)

    async def _score(self, call: Call, exchange: Exchange) -> None:
        exchange.check_json()
        order = parse_score(await exchange.body(self._max_bytes), self._max_rows)
        answer: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()

        def done(found: Scores | BaseException) -> None:
            if answer.done():
                return
            if isinstance(found, BaseException):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        table = TextTable(order.records)
        self._dataplane.score(call, table, order.key_id, order.model, done, order.reasons)
        scores = await exchange.while_there(answer, call)
        if table.rows * (1 + order.reasons) > INLINE_ROWS:
            content = await asyncio.to_thread(self._writer.write, scores)
        else:
            content = self._writer.write(scores)
        await exchange.answer(200, content)

    async def _models(self, _: Call, exchange: Exchange) -> None:
        await exchange.answer(200, to_json({"models": self._facts.facts()}))

    async def _model(self, call: Call, exchange: Exchange) -> None:
        kind = exchange.scope["path"][len(_MODEL_PATH) :]
        query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
        facts = self._facts.model_facts(kind, query.get("model", [""])[-1])
        call.model = facts["model"]
        await exchange.answer(200, to_json(facts))

    async def _health(self, _: Call, exchange: Exchange) -> None:
        await exchange.answer(200, to_json(self._facts.health()))

    async def _openapi(self, _: Call, exchange: Exchange) -> None:
        await exchange.answer(200, self._document)

    async def _docs(self, _: Call, exchange: Exchange) -> None:
        await exchange.answer(200, DOCS_PAGE, b"text/html; charset=utf-8")


def _reading(name: str, run: Callable[[Call, Exchange], Awaitable[None]]) -> dict[str, Operation]:
    """Return a route that is only read."""
    operation = Operation(name, None, run)
    return {"GET": operation, "HEAD": operation}
