"""The HTTP transport: JSON under ``/v1``, errors as problem+json (RFC 9457)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from cipherscore.errors import (
    BatchTooLarge,
    InvalidNoise,
    InvalidRequest,
    RequestError,
    UnknownClass,
)
from cipherscore.tokens import to_text
from serving.generation import BAD, GOOD, GenerateOrder, Generator
from serving.grpc_server import log_failure
from serving.http_bodies import (
    EXAMPLES,
    GenerateBody,
    GenerateResult,
    Health,
    ModelInfo,
    ModelList,
    Problem,
    ScoreBody,
    ScoreResult,
    body_schema,
)
from serving.scorer import Scores
from serving.status import Host
from serving.tables import RecordTable, printable
from serving.work import Workshop

PROBLEM_TYPE = "urn:cipherscore:error:"
_NAMES = np.array(["good", "bad"])
_CLASSES = {"good": GOOD, "bad": BAD, None: None}
_SCORE: TypeAdapter[ScoreBody] = TypeAdapter(ScoreBody)
_GENERATE: TypeAdapter[GenerateBody] = TypeAdapter(GenerateBody)
_Endpoint = Callable[..., Awaitable[Response]]


def build_app(host: Host, workshop: Workshop) -> FastAPI:
    """Return the application to be mounted at ``/v1``."""
    app = FastAPI(
        title="CipherScore",
        summary="Credit scoring and synthetic credit data on encrypted categories.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": Problem, "description": "Refused (problem+json)."}},
    )
    app.add_exception_handler(HTTPException, _http_problem)
    _add_work(app, _Routes(host, workshop))
    _add_facts(app, host)
    return app


class _Routes:
    """The two routes that compute."""

    def __init__(self, host: Host, workshop: Workshop) -> None:
        self._host = host
        self._workshop = workshop

    async def score(self, request: Request) -> Response:
        body = _validated(_SCORE, await read_body(request, self._host.settings.max_message_bytes))
        scorer = self._host.scorer
        table = RecordTable(body.records)

        def compute() -> Response:
            return _score_response(scorer.score(body.key_id, table))

        return await self._workshop.run(table.rows, compute)

    async def generate(self, request: Request) -> Response:
        limit = self._host.settings.max_message_bytes
        body = _validated(_GENERATE, await read_body(request, limit))
        generator = self._host.generator
        if body.credit_class not in _CLASSES:
            raise UnknownClass("credit_class is 'good' or 'bad'", field="credit_class")
        order = GenerateOrder(
            key_id=body.key_id,
            count=body.count,
            credit_class=_CLASSES[body.credit_class],
            seed=body.seed,
            noise=_noise(body.noise),
        )
        seed, chunks = generator.start(order, self._host.settings.max_generated_json_rows)

        def compute() -> Response:
            parts = list(chunks)
            indices = np.concatenate([part.indices for part in parts])
            classes = np.concatenate([part.credit_class for part in parts])
            return _generate_response(generator, indices, classes, seed)

        return await self._workshop.run(order.count, compute)


def _add_work(app: FastAPI, routes: _Routes) -> None:
    app.post(
        "/score",
        response_model=ScoreResult,
        summary="Probability of bad credit and decision for each record",
        openapi_extra=body_schema(_SCORE, EXAMPLES["score"]),
    )(_guarded(routes.score))
    app.post(
        "/generate",
        response_model=GenerateResult,
        summary="Synthetic encrypted records",
        openapi_extra=body_schema(_GENERATE, EXAMPLES["generate"]),
    )(_guarded(routes.generate))


def _add_facts(app: FastAPI, host: Host) -> None:
    @app.get("/models", response_model=ModelList, summary="The served models")
    @_guarded
    async def models() -> Response:
        return _json({"models": list(host.facts.values())})

    @app.get("/models/{kind}", response_model=ModelInfo, summary="One served model")
    @_guarded
    async def model(kind: str) -> Response:
        return _json(host.model_facts(kind))

    @app.get("/health", response_model=Health, summary="State, device and notices")
    @_guarded
    async def health() -> Response:
        return _json(host.health())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        # BentoML serves these two files itself, so the page works without the internet.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="CipherScore",
            swagger_js_url="/static_content/swagger-ui-bundle.js",
            swagger_css_url="/static_content/swagger-ui.css",
            swagger_favicon_url="/static_content/favicon-light-32x32.png",
        )


def _guarded(endpoint: _Endpoint) -> _Endpoint:
    """Answer errors of ``endpoint`` as problem+json."""

    @functools.wraps(endpoint)
    async def guarded(**arguments: Any) -> Response:
        try:
            return await endpoint(**arguments)
        except RequestError as error:
            return problem(error)
        except Exception as error:  # noqa: BLE001 - the last resort; it is logged
            log_failure("HTTP", error)
            return _problem_json("internal", "Internal error", 500, "internal error")

    return guarded


def problem(error: RequestError) -> Response:
    """Return the problem+json answer for ``error``."""
    return _problem_json(
        error.code, error.title, error.http_status, error.detail, field=error.field, row=error.row
    )


async def _http_problem(_: Request, error: Exception) -> Response:
    """Answer what the router refuses (404, 405) in the same form."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    title = {404: "Not found", 405: "Method not allowed"}.get(status, "Request refused")
    headers = error.headers if isinstance(error, HTTPException) else None
    return _problem_json(
        title.lower().replace(" ", "-"), title, status, f"{title}; see /v1/docs", headers=headers
    )


def _problem_json(
    code: str,
    title: str,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **where: object,
) -> Response:
    content = {
        "type": f"{PROBLEM_TYPE}{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **{name: value for name, value in where.items() if value is not None},
    }
    return Response(to_json(content), status, headers, "application/problem+json")


async def read_body(request: Request, limit: int) -> bytes:
    """Return the request's body.

    Raises:
        BatchTooLarge: It has more than ``limit`` bytes; the rest is not read.
    """
    length = request.headers.get("content-length", "0")
    content = bytearray()
    if length.isdecimal() and len(length) < 20 and int(length) <= limit:
        async for part in request.stream():
            content += part
            if len(content) > limit:
                break
        else:
            return bytes(content)
    raise BatchTooLarge(f"the body has more than {limit} bytes; send several requests")


def _validated(adapter: TypeAdapter[Any], content: bytes) -> Any:
    """Parse and check a JSON body.

    Raises:
        InvalidRequest: Not JSON, or not of this form; pydantic's own texts repeat the input, so
            only the kind of fault and its place are told.
    """
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        kind, place = first["type"], first["loc"]
    if kind == "json_invalid":
        raise InvalidRequest("the body is not valid JSON")
    row = next((part for part in place if isinstance(part, int)), None)
    names = [part for part in place if isinstance(part, str) and part != "[key]"]
    field = printable(names[-1]) if names else None
    what = _FAULTS.get(kind, kind.replace("_", " "))
    where = "the body" if field is None else f"{field!r}"
    raise InvalidRequest(f"{where}: {what}", field=field, row=row)


_FAULTS = {
    "missing": "required",
    "extra_forbidden": "not known here",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "dataclass_type": "must be an object",
}


def _noise(rows: list[list[float]] | None) -> np.ndarray | None:
    """Return JSON noise as float32 [rows, width]; a too large number becomes infinite."""
    if rows is None:
        return None
    if len({len(row) for row in rows}) != 1:
        raise InvalidNoise("noise needs rows, all equally long", field="noise")
    with np.errstate(over="ignore"):
        return np.array(rows, dtype=np.float64).astype(np.float32).reshape(len(rows), -1)


def _score_response(scores: Scores) -> Response:
    decisions = _NAMES[scores.bad.astype(np.intp)].tolist()
    results = [
        {"probability": probability, "decision": decision}
        for probability, decision in zip(scores.probability.tolist(), decisions, strict=True)
    ]
    return _json({"results": results, "model": scores.model, "threshold": scores.threshold})


def _generate_response(
    generator: Generator, indices: np.ndarray, classes: np.ndarray, seed: int
) -> Response:
    vocabulary = generator.model.vocabulary
    texts = [[to_text(token) for token in column] for column in vocabulary.tokens.values()]
    records = [
        {
            field: text[index]
            for field, text, index in zip(vocabulary.fields, texts, row, strict=True)
        }
        for row in indices.tolist()
    ]
    return _json(
        {
            "records": records,
            "credit_classes": _NAMES[classes].tolist(),
            "model": generator.model.tag,
            "seed": seed,
        }
    )


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
