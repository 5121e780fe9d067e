"""The same requests over HTTP and over gRPC, for tests that must see no difference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import httpx

from cipherscore.proto.v1 import cipherscore_pb2 as pb
from cipherscore.proto.v1 import cipherscore_pb2_grpc
from cipherscore.tokens import from_text, to_text
from tests.support.models import KEY_ID

Row = Mapping[str, bytes]
_CLASSES = {"good": pb.CREDIT_CLASS_GOOD, "bad": pb.CREDIT_CLASS_BAD, None: 0}
_NAMES = {pb.CREDIT_CLASS_GOOD: "good", pb.CREDIT_CLASS_BAD: "bad"}


class Refused(Exception):
    """The server refused; ``status`` is the HTTP status or the name of the gRPC one."""

    def __init__(self, status: object, code: str, field: str | None, row: int | None, text: str):
        super().__init__(f"{status} {code} field={field} row={row}: {text}")
        self.status, self.code, self.field, self.row, self.text = status, code, field, row, text


@dataclass(frozen=True)
class Scored:
    probability: list[float]
    decision: list[str]
    model: str
    threshold: float


@dataclass(frozen=True)
class Generated:
    rows: list[dict[str, bytes]]
    credit_class: list[str]
    model: str
    seed: int


class Transport(Protocol):
    name: str

    def score(self, rows: Sequence[Row], key_id: str = KEY_ID, model: str = "") -> Scored: ...

    def generate(
        self,
        count: int,
        key_id: str = KEY_ID,
        credit_class: str | None = None,
        seed: int | None = None,
        noise: list[list[float]] | None = None,
    ) -> Generated: ...

    def model(self, kind: str) -> dict[str, Any]: ...

    def junk(self) -> None: ...


class Http:
    """JSON under /v1."""

    name = "http"

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=60)

    def post(self, path: str, content: Any) -> Any:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.checked(self.client.post(path, content=body))

    @staticmethod
    def checked(answer: httpx.Response) -> Any:
        if answer.status_code == 200:
            return answer.json()
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        found = answer.json()
        assert found["type"] == f"urn:cipherscore:error:{found['code']}"
        assert found["status"] == answer.status_code
        raise Refused(
            answer.status_code, found["code"], found.get("field"), found.get("row"), answer.text
        )

    def score(self, rows: Sequence[Row], key_id: str = KEY_ID, model: str = "") -> Scored:
        records = [{field: to_text(token) for field, token in row.items()} for row in rows]
        body = {"key_id": key_id, "records": records, **({"model": model} if model else {})}
        found = self.post("/v1/score", body)
        return Scored(
            [result["probability"] for result in found["results"]],
            [result["decision"] for result in found["results"]],
            found["model"],
            found["threshold"],
        )

    def generate(
        self,
        count: int,
        key_id: str = KEY_ID,
        credit_class: str | None = None,
        seed: int | None = None,
        noise: list[list[float]] | None = None,
    ) -> Generated:
        body = {
            "key_id": key_id,
            "count": count,
            "credit_class": credit_class,
            "seed": seed,
            "noise": noise,
        }
        found = self.post("/v1/generate", {k: v for k, v in body.items() if v is not None})
        rows = [{f: from_text(t) for f, t in record.items()} for record in found["records"]]
        return Generated(rows, found["credit_classes"], found["model"], found["seed"])

    def model(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = self.checked(self.client.get(f"/v1/models/{kind}"))
        return found

    def junk(self) -> None:
        self.post("/v1/score", b"\xff\xfe not json")


class Grpc:
    """Columns over cipherscore.v1."""

    name = "grpc"

    def __init__(self, address: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options)
        self.stub = cipherscore_pb2_grpc.CipherScoreStub(self.channel)

    def call(self, method: str, request: Any) -> Any:
        try:
            answer = getattr(self.stub, method)(request, timeout=60, wait_for_ready=True)
            return list(answer) if method == "Generate" else answer
        except grpc.RpcError as error:
            raise refused(error) from error

    def score(self, rows: Sequence[Row], key_id: str = KEY_ID, model: str = "") -> Scored:
        request = pb.ScoreRequest(key_id=key_id, table=table(rows), model=model)
        return scored(self.call("Score", request))

    def generate(
        self,
        count: int,
        key_id: str = KEY_ID,
        credit_class: str | None = None,
        seed: int | None = None,
        noise: list[list[float]] | None = None,
    ) -> Generated:
        request = pb.GenerateRequest(
            key_id=key_id,
            count=count,
            credit_class=_CLASSES.get(credit_class, 7),
            seed=seed,
            noise=[value for row in noise or [] for value in row],
        )
        chunks = self.call("Generate", request)
        return Generated(
            [row for chunk in chunks for row in rows_of(chunk.table)],
            [_NAMES[c] for chunk in chunks for c in chunk.credit_class],
            chunks[0].model,
            chunks[0].seed,
        )

    def model(self, kind: str) -> dict[str, Any]:
        found = self.call("GetModel", pb.GetModelRequest(kind=kind))
        facts = {field.name: getattr(found, field.name) for field in found.DESCRIPTOR.fields}
        return {**facts, "fields": list(found.fields), "metrics": dict(found.metrics)}

    def junk(self) -> None:
        method = self.channel.unary_unary("/cipherscore.v1.CipherScore/Score")
        try:
            method(b"\xff\xfe not a message", timeout=60)
        except grpc.RpcError as error:
            raise refused(error) from error


def refused(error: grpc.RpcError) -> Refused:
    found = dict(error.trailing_metadata() or ())
    row = found.get("cipherscore-error-row")
    return Refused(
        error.code().name,
        found.get("cipherscore-error-code", ""),
        found.get("cipherscore-error-field"),
        None if row is None else int(row),
        f"{error.details()} {found}",
    )


def scored(answer: pb.ScoreResponse) -> Scored:
    return Scored(
        list(answer.probability),
        [_NAMES[decision] for decision in answer.decision],
        answer.model,
        answer.threshold,
    )


def table(rows: Sequence[Row]) -> pb.TokenTable:
    """Return rows, all with the fields of the first, as wire columns."""
    found = pb.TokenTable(rows=len(rows))
    for field in rows[0] if rows else ():
        dictionary = sorted({row[field] for row in rows})
        width = 1 if len(dictionary) <= 256 else 2
        found.columns.add(
            field=field,
            dictionary=dictionary,
            indices=b"".join(dictionary.index(r[field]).to_bytes(width, "little") for r in rows),
        )
    return found


def rows_of(found: pb.TokenTable) -> list[dict[str, bytes]]:
    """Return wire columns as rows."""
    rows: list[dict[str, bytes]] = [{} for _ in range(found.rows)]
    for column in found.columns:
        width = 1 if len(column.dictionary) <= 256 else 2
        assert len(column.indices) == width * found.rows
        for number, row in enumerate(rows):
            position = column.indices[number * width : (number + 1) * width]
            row[column.field] = column.dictionary[int.from_bytes(position, "little")]
    return rows
