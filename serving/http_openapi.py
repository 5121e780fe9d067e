"""The OpenAPI document of ``/v1`` and the page that shows it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cipherscore import __version__
from serving import http_bodies as forms

_SCHEMAS = "#/components/schemas/"
_REFUSALS = {
    400: "The request is malformed.",
    401: "No credential, or one this server does not know.",
    403: "The credential lacks the scope this needs.",
    404: "The server does not serve this model.",
    408: "The request came too slowly; the connection is closed.",
    409: "The request names another key than the model was trained under.",
    413: "Too many rows or bytes in one request.",
    415: "The body is not plain application/json.",
    422: "A token the model never saw in training.",
    429: "The client is over its limit, or the server sheds load; see retry-after.",
    431: "The request's headers are too large; the connection is closed.",
    500: "A fault of the server; it is logged there.",
    503: "The model is not available, or the server shuts down; another may answer.",
    504: "The deadline passed before the answer was there.",
}
_OPEN_REFUSALS = (400, 408, 429, 431, 500, 503)
_WORK_REFUSALS = tuple(_REFUSALS)

DOCS_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CipherScore</title>
<link rel="icon" href="/static_content/favicon-light-32x32.png">
<link rel="stylesheet" href="/static_content/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#page"})</script>
</body>
</html>
"""
"""BentoML serves the files it needs, so the page works without the internet."""


def document(*, open_to_all: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        open_to_all: Whether scoring and generating need no credential here.
    """
    kinds: list[type[BaseModel]] = [
        forms.ScoreBody, forms.ScoreResult, forms.GenerateBody, forms.GenerateResult,
        forms.GeneratedLine, forms.ModelInfo, forms.ModelList, forms.Health, forms.Problem,
    ]  # fmt: skip
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template=_SCHEMAS + "{model}"
    )
    schemes: dict[str, Any] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, or a JWT where the server is set up for them.",
        },
        "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CipherScore",
            "summary": "Credit scoring and synthetic credit data on encrypted categories.",
            "version": __version__,
        },
        "servers": [{"url": "/v1"}],
        "paths": _paths(open_to_all=open_to_all),
        "components": {
            "schemas": schemas["$defs"],
            "responses": {f"R{status}": _refusal(status) for status in _REFUSALS},
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "securitySchemes": schemes,
        },
    }


def _paths(*, open_to_all: bool) -> dict[str, Any]:
    security: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
    if open_to_all:
        security.append({})
    generated = {
        "application/json": {"schema": _ref(forms.GenerateResult)},
        "application/x-ndjson": {
            "schema": {
                "type": "string",
                "description": "One GeneratedLine per row, as fast as the client reads.  A failure "
                "in the middle is a last line of the form Problem, and no end of the answer.",
            }
        },
    }
    return {
        "/score": {
            "post": _work(
                "score", "Probability of bad credit and decision for each record",
                forms.ScoreBody, _json(forms.ScoreResult), security,
            )
        },
        "/generate": {
            "post": _work(
                "generate", "Synthetic encrypted records",
                forms.GenerateBody, generated, security,
            )
        },
        "/models": {"get": _read("models", "The served models", _json(forms.ModelList))},
        "/models/{kind}": {
            "get": _read(
                "model", "One served model", _json(forms.ModelInfo), ("kind", "model"), (404,)
            )
        },
        "/health": {"get": _read("health", "State, device and notices", _json(forms.Health))},
    }  # fmt: skip


def _work(
    name: str,
    summary: str,
    body: type[BaseModel],
    content: dict[str, Any],
    security: list[dict[str, list[str]]],
) -> dict[str, Any]:
    sent = {"schema": _ref(body), "example": forms.EXAMPLES[name]}
    return {
        "operationId": name,
        "summary": summary,
        "security": security,
        "parameters": _parameters("requestId", "timeout", "traceparent"),
        "requestBody": {"required": True, "content": {"application/json": sent}},
        "responses": _responses(content, _WORK_REFUSALS),
    }


def _read(
    name: str,
    summary: str,
    content: dict[str, Any],
    parameters: tuple[str, ...] = (),
    refusals: tuple[int, ...] = (),
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": _parameters(*parameters, "requestId"),
        "responses": _responses(content, (*_OPEN_REFUSALS, *refusals)),
    }


def _responses(content: dict[str, Any], refusals: tuple[int, ...]) -> dict[str, Any]:
    headers = {"x-request-id": {"$ref": "#/components/headers/requestId"}}
    answers: dict[str, Any] = {
        "200": {"description": "The answer.", "headers": headers, "content": content}
    }
    for status in sorted(refusals):
        answers[str(status)] = {"$ref": f"#/components/responses/R{status}"}
    return answers


def _refusal(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if status in {429, 503}:
        headers["retry-after"] = {"$ref": "#/components/headers/retryAfter"}
    if status == 401:
        headers["www-authenticate"] = {"$ref": "#/components/headers/authenticate"}
    return {
        "description": _REFUSALS[status],
        "headers": headers,
        "content": {"application/problem+json": {"schema": _ref(forms.Problem)}},
    }


def _json(form: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(form)}}


def _ref(form: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"{_SCHEMAS}{form.__name__}"}


def _parameters(*names: str) -> list[dict[str, str]]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _parameter(name: str, where: str, text: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": text,
        "schema": schema,
    }


_PARAMETERS = {
    "requestId": _parameter(
        "x-request-id", "header", "Comes back in the answer and stands in the server's log; "
        "one that is longer than 48 characters or not printable is replaced.", type="string",
    ),
    "timeout": _parameter(
        "x-request-timeout-ms", "header", "How long the caller waits, in milliseconds.",
        type="integer", minimum=1, maximum=999_999_999_999,
    ),
    "traceparent": _parameter(
        "traceparent", "header", "W3C trace context.", type="string",
    ),
    "kind": _parameter(
        "kind", "path", "Kind of model.", type="string", enum=["classifier", "generator"],
    ),
    "model": _parameter(
        "model", "query", "Empty: the version in production. A name or name:version asks for "
        "that one.", type="string",
    ),
}  # fmt: skip
_HEADERS = {
    "requestId": {"description": "The request's id.", "schema": {"type": "string"}},
    "retryAfter": {
        "description": "Seconds after which another try makes sense.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "authenticate": {"description": "The scheme.", "schema": {"type": "string"}},
}
